"""What methods cost beside CLIP's own last block."""

from pathlib import Path

import pytest

from clip.guides import GUIDES
from naclip.reports.costs import describe_point, find_costs, guide_parameters
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import random_matrix, write_run


def write(folder: Path, method: str, seconds: dict, seed: int = 0, **changes) -> None:
    write_run(folder, random_matrix(seed), method=method, seconds={'total': 9.0} | seconds, **changes)


def test_relative_to_clip_on_the_same_device(tmp_path: Path):
    write(tmp_path / 'clip', 'clip', {'per_image': 0.5})
    write(tmp_path / 'naclip', 'naclip', {'per_image': 0.6}, 1)
    constants = {'constants': {'guide': 'dino_vitb16'}}
    write(tmp_path / 'proxyclip', 'proxyclip', {'per_image': 1.5}, 2, settings=constants)
    write(tmp_path / 'elsewhere', 'sclip', {'per_image': 0.01}, 3, device={'name': 'y'})
    (costs,), notes = find_costs(find_runs([tmp_path]).runs)
    assert (costs.benchmark, costs.device, costs.seconds) == ('voc21', 'x', 0.5)
    assert [point.run.record['method'] for point in costs.points] == ['clip', 'naclip', 'proxyclip']
    assert [point.ratio for point in costs.points] == pytest.approx([1, 1.2, 3])
    assert [point.miou for point in costs.points] == [point.run.miou() for point in costs.points]
    assert describe_point(costs.points[1]) == 'naclip'
    assert describe_point(costs.points[2]) == 'proxyclip + dino_vitb16, 86 M'
    assert notes == []


def test_shared_seconds_are_no_cost_and_that_is_said(tmp_path: Path):
    write(tmp_path / 'clip', 'clip', {'per_image': 0.5})
    write(tmp_path / 'naclip', 'naclip', {'per_image': 0.6, 'shared_by': 1}, 1)
    write(tmp_path / 'sclip', 'sclip', {'per_image': 0.1, 'shared_by': 3}, 2)
    moved = [{'device': {'type': 'cuda', 'name': 'z'}}]
    write(tmp_path / 'gem', 'gem', {'per_image': 0.1}, 3, resumed_from=moved)
    (costs,), notes = find_costs(find_runs([tmp_path]).runs)
    assert [point.run.record['method'] for point in costs.points] == ['clip', 'naclip']
    (note,) = notes
    assert note.startswith('seconds of 1 of 4 runs are those of a pass that several methods shared')


def test_without_clip_there_is_nothing_to_compare_with(tmp_path: Path):
    for i, method in enumerate(('naclip', 'sclip')):
        write(tmp_path / method, method, {'per_image': 0.5}, i)
    costs, notes = find_costs(find_runs([tmp_path]).runs)
    assert (costs, notes) == ([], ['no run of clip to compare costs with: voc21 on x'])


def test_parameters_of_guides():
    """Published: 21.7, 85.8 million for DINO's ViT-S and ViT-B; 86.6 and 304.4 for DINOv2's ViT-B and ViT-L."""
    assert all(guide_parameters(name) for name in GUIDES)
    millions = {name: guide_parameters(name) / 1e6 for name in GUIDES}
    assert millions['dino_vits16'] == pytest.approx(21.7, abs=0.05)
    assert millions['dino_vitb16'] == pytest.approx(85.8, abs=0.05)
    assert millions['dinov2_vitb14_reg'] == pytest.approx(86.6, abs=0.05)
    assert millions['dinov2_vitl14'] == pytest.approx(304.4, abs=0.05)
    assert guide_parameters('my_guide.pth') is None
