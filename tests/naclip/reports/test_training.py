"""What a training left of its way."""

import json
from pathlib import Path

import pytest

from naclip.reports.training import find_trainings, read_losses, read_scores


def write_training(folder: Path) -> None:
    for attempt, steps in (('20260101_000000', (1, 2, 3)), ('20260101_000100', (3, 4))):
        (folder / attempt / 'vis_data').mkdir(parents=True)
        lines = [json.dumps({'step': step, 'loss': 1 / step + (attempt > '20260101_0000001')}) for step in steps]
        (folder / attempt / 'vis_data/scalars.json').write_text('\n'.join([*lines, '{"mIoU": 3.0, "step": 4}']))
    (folder / 'validation.json').write_text(json.dumps([{'step': 2, 'mIoU': 50.0}, {'step': 4, 'mIoU': None}]))


def test_losses_and_scores(tmp_path: Path):
    write_training(tmp_path / 'training')
    assert read_losses(tmp_path / 'training') == {1: 1.0, 2: 0.5, 3: 1 / 3 + 1, 4: 1.25}
    assert read_scores(tmp_path / 'training') == [(2, 50.0)]
    assert read_scores(tmp_path) == []
    with pytest.raises(FileNotFoundError, match='has no log of a training'):
        read_losses(tmp_path)


def test_found_below_folders_once_and_evaluations_are_none(tmp_path: Path):
    write_training(tmp_path / 'a/training')
    (tmp_path / 'evaluation/20260101/vis_data').mkdir(parents=True)
    (tmp_path / 'evaluation/20260101/vis_data/scalars.json').write_text('{"mIoU": 3.0, "step": 0}\n')
    (training,), problems = find_trainings([tmp_path, tmp_path / 'a'])
    assert (training.folder, len(training.losses), problems) == (tmp_path / 'a/training', 4, [])


@pytest.mark.parametrize(
    ('name', 'text'),
    [('20260101_000100/vis_data/scalars.json', '{"step": 3, "loss"'), ('validation.json', '[{"mIoU": 3}]')],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, text: str):
    write_training(tmp_path)
    (tmp_path / name).write_text(text)
    trainings, (problem,) = find_trainings([tmp_path])
    assert trainings == []
    assert 'is damaged' in problem
