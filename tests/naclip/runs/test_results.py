"""What a run leaves behind."""

import json
import math
import subprocess
from pathlib import Path

import pytest
import torch

from naclip.runs.results import PixelCounts, device_name, git_commit, package_versions, write_results

COUNTS = PixelCounts(intersect=[6, 0, 0], union=[8, 4, 0], pred=[7, 1, 0], label=[7, 3, 0])


def test_metrics_skip_classes_that_never_occur():
    assert COUNTS.iou() == pytest.approx([75, 0, math.nan], nan_ok=True)
    assert COUNTS.acc() == pytest.approx([600 / 7, 0, math.nan], nan_ok=True)
    assert COUNTS.metrics() == pytest.approx({'mIoU': 37.5, 'aAcc': 60, 'mAcc': 300 / 7})


def test_table_has_a_record_a_class():
    first, second, third = COUNTS.table(['x', 'y', 'z'])
    assert first == {'name': 'x', 'iou': 75, 'acc': 600 / 7, 'intersect': 6, 'union': 8, 'pred': 7, 'label': 7}
    assert second['name'] == 'y'
    assert math.isnan(third['iou'])


def test_results_file_is_strict_json(tmp_path: Path):
    path = tmp_path / 'new' / 'results.json'
    write_results(path, {'value': math.nan, 'list': [1.5, (math.nan, 'ü')], 'none': None})
    assert json.loads(path.read_text('utf-8')) == {'value': None, 'list': [1.5, [None, 'ü']], 'none': None}
    assert [file.name for file in path.parent.iterdir()] == ['results.json']


def test_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / 'results.json'
    write_results(path, {'run': 1})
    with pytest.raises(TypeError):
        write_results(path, {'run': object()})
    assert json.loads(path.read_text()) == {'run': 1}
    assert [file.name for file in tmp_path.iterdir()] == ['results.json']


def test_versions_name_the_openmmlab_packages():
    versions = package_versions()
    assert versions['torch'] == torch.__version__.split('+')[0] or versions['torch'] == torch.__version__
    assert any(name.endswith('mmsegmentation') for name in versions)


def test_git_commit_is_the_checkouts():
    run = subprocess.run(['git', 'rev-parse', 'HEAD'], capture_output=True, text=True, cwd=Path(__file__).parent)
    if run.returncode:
        assert git_commit() is None
    else:
        assert git_commit().removesuffix('+changes') == run.stdout.strip()


def test_device_name_of_the_processor():
    assert device_name(torch.device('cpu')).endswith(f'{torch.get_num_threads()} threads')
