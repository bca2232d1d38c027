"""A figure of chosen pictures."""

from pathlib import Path

import numpy as np
import pytest

from naclip.reports.figure import GONE, choose_runs, class_key, draw, figure_file, with_runs
from naclip.reports.gallery import overlay, read_labels, read_photo, read_pictures
from naclip.reports.matrix import labels_of, lines_of
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_gallery, write_run

NAMES = [f'$c_{k}$' for k in range(5)]


@pytest.fixture
def runs(tmp_path: Path):
    for seed in range(3):
        write_run(tmp_path / f'm{seed}', random_matrix(seed), method=f'm{seed}', classes=made_classes(seed))
        write_gallery(tmp_path / f'm{seed}/gallery', NAMES, 4 if seed else 1, seed)
    return find_runs([tmp_path]).runs


def made_classes(seed: int) -> list[dict]:
    matrix = random_matrix(seed)
    return [
        dict(
            name=NAMES[k],
            intersect=int(matrix[k, k]),
            union=int(matrix[k].sum() + matrix[:, k].sum() - matrix[k, k]),
            pred=int(matrix[:, k].sum()),
            label=int(matrix[k].sum()),
        )
        for k in range(5)
    ]


def test_columns(runs):
    labels = labels_of(lines_of(runs))
    assert list(choose_runs(runs, labels, [])) == ['m0', 'm1', 'm2']
    assert list(choose_runs(runs, labels, ['m2', 'm0'])) == ['m2', 'm0']
    with pytest.raises(ValueError, match="no run of 'm9' kept pictures; there are m0; m1; m2"):
        choose_runs(runs, labels, ['m9'])


def test_what_is_drawn_is_what_was_kept(runs):
    pictures, _ = read_pictures(runs)
    columns = choose_runs(runs, labels_of(lines_of(runs)), ['m1', 'm0'])
    chosen = [with_runs(picture, [run for of in columns.values() for run in of]) for picture in pictures][:2]
    figure = draw(chosen, columns)
    axes = np.array(figure.axes[:8]).reshape(2, 4)
    assert [axis.get_title() for axis in axes[0]] == ['picture', 'ground truth', 'm1', 'm0']
    photo = read_photo(chosen[0].shots[0].paths[0])
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), np.asarray(photo))
    shot = next(shot for shot in chosen[0].shots if shot.run.record['method'] == 'm1')
    expected = overlay(photo, read_labels(shot.paths[2], 5), chosen[0].palette)
    np.testing.assert_array_equal(axes[0, 2].images[0].get_array(), np.asarray(expected))
    assert axes[0, 2].get_xlabel() == f'mIoU {shot.miou:.1f}'
    assert [text.get_text() for text in axes[1, 3].texts] == [GONE]  # m0 kept one picture
    for kind, start in (('pdf', b'%PDF'), ('png', b'\x89PNG')):
        content = figure_file(figure, kind)
        assert content.startswith(start)
        assert content == figure_file(draw(chosen, columns), kind)


def test_key_has_the_classes_of_the_ground_truth(runs):
    (picture, *_), _ = read_pictures(runs)
    truth = read_labels(picture.shots[0].paths[1], 5)
    assert [name for name, _ in class_key([picture])] == [NAMES[k] for k in np.unique(truth)]


def test_too_much_or_nothing(runs):
    pictures, _ = read_pictures(runs)
    with pytest.raises(ValueError, match='no picture was chosen'):
        draw([], {})
    with pytest.raises(ValueError, match='13 methods are more than a page holds'):
        draw(pictures, {str(i): [] for i in range(13)})
