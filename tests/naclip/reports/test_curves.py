"""Curves as vector graphics."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from naclip.reports.costs import find_costs
from naclip.reports.curves import COLOURS, cost_figure, styles, sweep_figure, to_png, to_svg, training_figure
from naclip.reports.runs import Sweep, find_runs
from naclip.reports.training import Training
from tests.naclip.reports.made import random_matrix, write_run

EVIL = '$\\foo$ <script>alert(1)</script> 猫'


def luminance_and_blue(colour: str) -> np.ndarray:
    """What is left of a colour to somebody who cannot tell red from green, roughly: lightness, and blue against it."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return np.array([0.3 * red + 0.59 * green + 0.11 * blue, blue - 0.5 * (red + green)])


def test_no_two_lines_are_alike():
    drawn = [tuple(sorted(style.items())) for style in styles(56)]
    assert len(set(drawn)) == 56
    assert len({(style['color'], style['marker']) for style in styles(20)}) == 20
    seen = [luminance_and_blue(colour) for colour in COLOURS]
    distances = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 0.05


def figures(tmp_path: Path):
    lines = {f'method {i} {EVIL}': [(1, 20 + i), (100, 30 - i)] for i in range(20)}
    yield sweep_figure(Sweep(EVIL, EVIL, lines))
    for i, method in enumerate(['clip', *'abcdefghij']):
        write_run(tmp_path / method, random_matrix(i), method=method, seconds={'total': 1, 'per_image': 0.1 + i})
    (costs,), _ = find_costs(find_runs([tmp_path]).runs)
    yield cost_figure(costs)
    yield training_figure(Training(Path(EVIL), {1: 3.0, 2: 2.0}, [(2, 40.0)]))
    yield training_figure(Training(Path('a'), {1: 3.0}, []))


@pytest.mark.slow
def test_svg_is_whole_alone_and_always_the_same(tmp_path: Path):
    for once, again in zip(figures(tmp_path), figures(tmp_path), strict=True):
        svg = to_svg(once)
        assert svg == to_svg(again)
        root = ElementTree.fromstring(svg)
        assert root.tag == '{http://www.w3.org/2000/svg}svg'
        links = [value for node in root.iter() for key, value in node.attrib.items() if key.endswith('href')]
        assert all(link.startswith('#') for link in links)
        assert not [node for node in root.iter() if node.tag.endswith(('script', 'text', 'image'))]
        assert to_png(once).startswith(b'\x89PNG')


def test_ticks_are_the_values_that_were_taken():
    axis = sweep_figure(Sweep('voc21', 'gaussian_std', {'a': [(1, 20), (5, 30), (9, 10)]})).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ['1', '5', '9']
    assert axis.get_xlabel() == 'σ of the Gaussian, in patches'
    (line,) = axis.lines
    assert line.get_ydata() == pytest.approx([20, 30, 10])
