"""Runs that are killed and go on: their results are those of a run that was not; and what else a run leaves behind."""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from filelock import FileLock
from mmengine.logging import MMLogger
from PIL import Image

import eval as eval_script
from clip.weights import BUNDLED
from naclip.runs import attempts
from naclip.shapes.generator import CLASSES, write_dataset
from tests.conftest import ROOT, free_port

PICTURES = 15  # odd: of two processes, the second one has fewer
QUICK = ('--cfg-options', 'test_dataloader.num_workers=0')
ALL = ('--save-confusion', '--per-image')
ENVIRONMENT = {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'}
FILES = ('results.json', 'confusion.npy', 'per_image.csv')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pictures of the embedded benchmark."""
    root = tmp_path_factory.mktemp('data') / 'shapes'
    write_dataset(root, count=PICTURES)
    return root


@pytest.fixture(scope='module')
def options(data: Path) -> list[str]:
    return ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--data-root', str(data), '--device', 'cpu']


@pytest.fixture(scope='module')
def finished(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a run that nothing interrupted; tests leave it as it is."""
    work_dir = tmp_path_factory.mktemp('finished')
    assert eval_script.main([*options, '--work-dir', str(work_dir), *ALL, *QUICK]) == 0
    return work_dir


@pytest.fixture
def work_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of that one."""
    return Path(shutil.copytree(finished, tmp_path / 'work'))


@pytest.fixture
def resume(options: list[str], work_dir: Path) -> Callable[..., int]:
    """Runs eval.py --resume in `work_dir`; returns the exit code."""

    def run(*more: str) -> int:
        return eval_script.main([*options, '--work-dir', str(work_dir), '--resume', *more, *QUICK])

    return run


@pytest.fixture
def refusal(resume: Callable[..., int], work_dir: Path, capfd: pytest.CaptureFixture) -> Callable[..., str]:
    """Runs eval.py --resume where it must refuse; returns the line it says, once nothing was found changed."""

    def run(*more: str) -> str:
        before = snapshot(work_dir)
        capfd.readouterr()
        assert resume(*more) == 1
        (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith('eval.py: '))
        assert snapshot(work_dir) == before
        return line

    return run


def read_results(work_dir: Path) -> dict:
    return json.loads((work_dir / 'results.json').read_text())


def snapshot(work_dir: Path) -> dict[str, bytes]:
    """Results and counts, byte by byte."""
    paths = [*(work_dir / name for name in FILES), *sorted((work_dir / 'counts').iterdir())]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def counted(work_dir: Path) -> list[str]:
    """The picture of every whole line of the counts."""
    files = sorted((work_dir / 'counts').glob('*.jsonl'))
    return [json.loads(line)['image'] for file in files for line in file.read_bytes().split(b'\n')[:-1]]


def assert_equal(work_dir: Path, finished: Path, files: bool = True) -> dict:
    """Exactly the results of the run that nothing interrupted."""
    record, expected = read_results(work_dir), read_results(finished)
    for key in ('images', 'metrics', 'classes', 'changes', 'sha256', 'method', 'protocol'):
        assert record[key] == expected[key]
    if files:
        assert record['files'] == {'confusion': 'confusion.npy', 'per_image': 'per_image.csv'}
        for name in FILES[1:]:
            assert (work_dir / name).read_bytes() == (finished / name).read_bytes()
    return record


# What a kill leaves behind, made from a finished run.


def forget_results(work_dir: Path) -> None:
    for name in FILES:
        (work_dir / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(6))
def test_going_on_from_any_byte(
    seed: int, work_dir: Path, finished: Path, resume: Callable[..., int], capfd: pytest.CaptureFixture
):
    forget_results(work_dir)
    counts = work_dir / 'counts/1-0.jsonl'
    whole = counts.read_bytes()
    cut = whole[: random.Random(seed).randrange(len(whole)) if seed else 0]
    counts.write_bytes(cut)
    (work_dir / 'counts/.run.json.7.tmp').write_text('{')
    (work_dir / '.results.json.7.tmp').write_text('{')
    assert resume(*ALL) == 0
    assert assert_equal(work_dir, finished)['resumed'] == 1
    assert f'| {cut.count(10)}/{PICTURES} [' in capfd.readouterr().err  # where the progress bar starts
    assert counts.read_bytes() == cut  # nothing is written to again
    assert sorted(counted(work_dir)) == sorted(counted(finished))  # and nothing is evaluated again
    assert not list(work_dir.rglob('*.tmp'))


def test_only_the_results_are_missing(
    work_dir: Path, finished: Path, resume: Callable[..., int], capfd: pytest.CaptureFixture, monkeypatch
):
    # MMEngine's loggers print where the first run of the process did, which is not what is captured here.
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
    forget_results(work_dir)
    expected = read_results(finished)
    assert resume(*ALL) == 0
    record = assert_equal(work_dir, finished)
    captured = capfd.readouterr()
    assert f'going on after {PICTURES} of {PICTURES} pictures' in captured.out
    for name in CLASSES:
        assert f' {name} ' in captured.out + captured.err  # MMSegmentation's table
    assert list((work_dir / 'counts').glob('*.jsonl')) == [work_dir / 'counts/1-0.jsonl']
    # The records tell the time, too, but for what came before the first batch and after the last.
    assert record['seconds']['total'] == pytest.approx(expected['seconds']['total'], rel=0.5)


def test_damage_costs_its_picture_only(
    work_dir: Path, finished: Path, resume: Callable[..., int], caplog: pytest.LogCaptureFixture
):
    counts = work_dir / 'counts/1-0.jsonl'
    lines = counts.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b'[', b'(', 1)
    counts.write_bytes(b''.join(lines))
    assert resume(*ALL) == 0
    assert_equal(work_dir, finished)
    assert f'{counts}, line 5 is damaged' in caplog.text
    assert len((work_dir / 'counts/2-0.jsonl').read_bytes().splitlines()) == 1


def test_counts_without_a_header_are_not_used(work_dir: Path, finished: Path, resume: Callable[..., int]):
    (work_dir / 'counts/run.json').unlink()
    (work_dir / 'counts/1-0.jsonl').rename(work_dir / 'counts/3-0.jsonl')
    assert resume(*ALL) == 0
    assert assert_equal(work_dir, finished)['resumed'] == 0
    assert [path.name for path in (work_dir / 'counts').glob('*.jsonl')] == ['1-0.jsonl']


def test_resume_without_counts_just_starts(options: list[str], finished: Path, tmp_path: Path):
    assert eval_script.main([*options, '--work-dir', str(tmp_path / 'new'), '--resume', *ALL, *QUICK]) == 0
    assert assert_equal(tmp_path / 'new', finished)['resumed'] == 0


def test_earlier_attempts_under_other_versions_are_noted(
    work_dir: Path, finished: Path, resume: Callable[..., int], caplog: pytest.LogCaptureFixture
):
    header = json.loads((work_dir / 'counts/run.json').read_text())
    header['attempts'][0]['git_commit'] = 'abc'
    (work_dir / 'counts/run.json').write_text(json.dumps(header))
    forget_results(work_dir)
    assert resume() == 0
    record = assert_equal(work_dir, finished, files=False)
    assert record['resumed_from'] == [{'git_commit': 'abc'}]
    assert 'earlier attempts ran under other git_commit' in caplog.text
    assert record['files'] == {}
    assert not (work_dir / 'confusion.npy').exists()


# Finished runs, and other ones.


def test_finished_run_stays_as_it_is(work_dir: Path, resume: Callable[..., int], capfd: pytest.CaptureFixture):
    before = snapshot(work_dir)
    assert resume() == 0
    assert 'finished before, under the same settings; nothing is evaluated again' in capfd.readouterr().out
    assert snapshot(work_dir) == before
    forget_results(work_dir)
    (work_dir / 'results.json').write_bytes(before['results.json'][:100])  # not as eval.py would leave it
    assert resume(*ALL) == 0
    assert {**snapshot(work_dir), 'results.json': b'', 'run.json': b''} == before | {
        'results.json': b'',
        'run.json': b'',
    }


def test_finished_run_gets_files_it_lacks(work_dir: Path, finished: Path, resume: Callable[..., int]):
    record = read_results(work_dir) | {'files': {}}
    (work_dir / 'results.json').write_text(json.dumps(record))
    for name in FILES[1:]:
        (work_dir / name).unlink()
    assert resume('--per-image') == 0
    assert read_results(work_dir) == record | {'files': {'per_image': 'per_image.csv'}}
    assert resume('--save-confusion') == 0
    assert_equal(work_dir, finished)


def test_other_settings_are_refused(refusal: Callable[..., str], work_dir: Path):
    line = refusal('--std', '3')
    assert line == (
        f'eval.py: {work_dir} has a run under other settings: settings.constants.gaussian_std was 5.0, is 3.0; '
        'take another --work-dir, or leave out --resume to start over'
    )
    assert 'settings.limit was not set, is 4' in refusal('--limit', '4')
    assert 'settings.pamr_steps was 10, is 0' in refusal('--pamr', 'off')
    assert 'settings.dtype was float32, is bfloat16' in refusal('--dtype', 'bfloat16')


def test_other_files_are_refused_but_not_other_places(
    refusal: Callable[..., str], resume: Callable[..., int], tmp_path: Path
):
    names, templates = tmp_path / 'names.txt', tmp_path / 'templates.txt'
    shutil.copy(ROOT / 'configs/cls_shapes.txt', names)
    shutil.copy(ROOT / 'prompts/imagenet.txt', templates)
    weights = shutil.copy(BUNDLED['shapes'], tmp_path / 'weights.safetensors')
    same = ['--name-path', str(names), '--templates', str(templates), '--backbone', str(weights)]
    assert resume(*same) == 0
    names.write_text(names.read_text() + '\n')
    assert re.search(r': sha256\.vocabulary was \w{12}, is \w{12}; take', refusal(*same))
    shutil.copy(ROOT / 'configs/cls_shapes.txt', names)
    templates.write_text('a photo of a {}.\n')
    assert re.search(r': sha256\.templates was \w{12}, is \w{12}; take', refusal(*same))
    shutil.copy(ROOT / 'prompts/imagenet.txt', templates)
    tensors = safetensors.torch.load_file(weights)
    tensors['logit_scale'] += 1
    safetensors.torch.save_file(tensors, weights, metadata={'known_words': '[]'})
    assert re.search(r': sha256\.weights was \w{12}, is \w{12}; take', refusal(*same))


def test_other_pictures_are_refused(
    options: list[str], data: Path, tmp_path: Path, finished: Path, capfd: pytest.CaptureFixture
):
    work_dir, root = tmp_path / 'work', Path(shutil.copytree(data, tmp_path / 'data'))
    argv = [*options, '--data-root', str(root), '--work-dir', str(work_dir), '--resume', '--pamr', 'off', *QUICK]
    assert eval_script.main(argv) == 0
    for folder in ('img_dir/val', 'ann_dir/val'):
        (root / folder / '000003.png').unlink()
    assert eval_script.main(argv) == 1
    assert f'pictures was {PICTURES}, is {PICTURES - 1}' in capfd.readouterr().err


def test_damaged_header_is_refused(refusal: Callable[..., str], work_dir: Path):
    (work_dir / 'counts/run.json').write_text('{"identity": 1')
    line = refusal()
    assert f'{work_dir}/counts/run.json is damaged' in line
    assert line.endswith('leave out --resume to start over')


def test_two_runs_in_one_place_are_refused(
    refusal: Callable[..., str], work_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attempts, 'LOCK_WAIT', 0.1)
    with FileLock(work_dir / 'counts/lock'):
        assert f'another run is at work in {work_dir}' in refusal()


def test_starting_over_leaves_nothing_of_the_old_run(
    options: list[str], data: Path, finished: Path, work_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    argv = [*options, '--work-dir', str(work_dir), *QUICK]
    before = snapshot(work_dir)
    assert eval_script.main([*argv, 'model.colour=red']) == 1
    assert snapshot(work_dir) == before  # what never began takes nothing away
    root = Path(shutil.copytree(data, tmp_path / 'data'))
    (root / 'img_dir/val/000004.png').write_bytes(b'no picture')
    assert eval_script.main([*argv, '--data-root', str(root)]) == 1
    assert not any((work_dir / name).exists() for name in FILES)
    assert len(counted(work_dir)) == 4
    assert not caplog.records
    assert eval_script.main(argv) == 0
    assert 'removing the 4 counted pictures of an unfinished run' in caplog.text
    assert_equal(work_dir, finished, files=False)
    assert sorted(path.name for path in (work_dir / 'counts').iterdir()) == ['1-0.jsonl', 'lock', 'run.json']


def test_mended_data_and_going_on(options: list[str], data: Path, finished: Path, tmp_path: Path):
    work_dir, root = tmp_path / 'work', Path(shutil.copytree(data, tmp_path / 'data'))
    argv = [*options, '--data-root', str(root), '--work-dir', str(work_dir), '--resume', *QUICK]
    (root / 'ann_dir/val/000009.png').write_bytes(b'no label map')
    assert eval_script.main([*argv, *ALL]) == 1
    shutil.copy(data / 'ann_dir/val/000009.png', root / 'ann_dir/val/000009.png')
    assert eval_script.main([*argv[:-2], *ALL, *QUICK]) == 0
    assert_equal(work_dir, finished)
    assert sorted(counted(work_dir)) == sorted(counted(finished))


def test_counts_that_vanish_are_missed(
    resume: Callable[..., int], work_dir: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    forget_results(work_dir)
    counts = work_dir / 'counts/1-0.jsonl'
    counts.write_bytes(b''.join(counts.read_bytes().splitlines(keepends=True)[:10]))
    with monkeypatch.context() as patch:
        patch.setattr('naclip.runs.journal.Journal.append', lambda *args: None)  # a disk that forgets
        assert resume(*ALL) == 1
    assert f'10 of {PICTURES} pictures are there; --resume evaluates what is missing' in capsys.readouterr().err
    assert not (work_dir / 'results.json').exists()
    assert resume(*ALL) == 0
    assert_equal(work_dir, finished)


def test_pictures_listed_twice_are_refused(options: list[str], data: Path, tmp_path: Path, capfd):
    root = Path(shutil.copytree(data, tmp_path / 'data'))
    (root / 'val.txt').write_text('000000\n000001\n000000\n')
    argv = [*options, '--data-root', str(root), '--work-dir', str(tmp_path / 'work'), *QUICK]
    assert eval_script.main([*argv, 'test_dataloader.dataset.ann_file=val.txt']) == 1
    assert f'lists {root}/img_dir/val/000000.png twice' in capfd.readouterr().err


def test_part_of_a_data_set(options: list[str], finished: Path, tmp_path: Path):
    """A config's own `indices`, under --limit and --resume."""
    work_dir = tmp_path / 'work'
    argv = [*options, '--work-dir', str(work_dir), '--resume', '--limit', '3', *QUICK]
    assert eval_script.main([*argv, 'test_dataloader.dataset.indices=[9,2,5,7]']) == 0
    assert counted(work_dir) == [f'img_dir/val/00000{i}.png' for i in (9, 2, 5)]
    counts = work_dir / 'counts/1-0.jsonl'
    counts.write_bytes(b''.join(counts.read_bytes().splitlines(keepends=True)[1:]))
    classes = read_results(work_dir)['classes']
    assert eval_script.main([*argv, 'test_dataloader.dataset.indices=[9,2,5,7]']) == 0
    (line,) = (work_dir / 'counts/2-0.jsonl').read_bytes().splitlines()
    assert json.loads(line)['image'] == 'img_dir/val/000009.png'
    assert read_results(work_dir)['classes'] == classes
    assert (
        eval_script.main([*argv[:-4], *QUICK, 'test_dataloader.dataset.indices=-2', '--work-dir', f'{work_dir}2']) == 0
    )
    assert counted(Path(f'{work_dir}2')) == [f'img_dir/val/0000{i}.png' for i in (13, 14)]


# The files beside results.json.


def test_confusion_is_what_the_maps_say(finished: Path, data: Path):
    confusion, record = np.load(finished / 'confusion.npy'), read_results(finished)
    assert (confusion.dtype, confusion.shape) == (np.int64, (len(CLASSES), len(CLASSES)))
    assert confusion.diagonal().tolist() == [row['intersect'] for row in record['classes']]
    assert confusion.sum(0).tolist() == [row['pred'] for row in record['classes']]
    labels = [np.asarray(Image.open(path)) for path in sorted((data / 'ann_dir/val').iterdir())]
    expected = np.bincount(np.concatenate([label.ravel() for label in labels]), minlength=len(CLASSES))
    assert confusion.sum(1).tolist() == expected.tolist()


def test_per_image_table_of_a_run(finished: Path, options: list[str], tmp_path: Path):
    with (finished / 'per_image.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert sorted(row['image'] for row in rows) == [f'img_dir/val/{i:06d}.png' for i in range(PICTURES)]
    scores = [float(row['mIoU']) for row in rows]
    assert scores == sorted(scores)
    (first,) = (row for row in rows if row['image'] == 'img_dir/val/000000.png')
    assert eval_script.main([*options, '--work-dir', str(tmp_path), '--limit', '1', *QUICK]) == 0
    record = read_results(tmp_path)
    assert first['mIoU'] == f'{record["metrics"]["mIoU"]:.2f}'
    assert first['aAcc'] == f'{record["metrics"]["aAcc"]:.2f}'
    worst = min((row for row in record['classes'] if row['iou'] is not None), key=lambda row: row['iou'])
    assert first['worst_IoU'] == f'{worst["iou"]:.2f}'


def test_another_vocabulary_and_templates(options: list[str], tmp_path: Path, capfd: pytest.CaptureFixture):
    names, templates = tmp_path / 'names.txt', tmp_path / 'templates.txt'
    lines = (ROOT / 'configs/cls_shapes.txt').read_text().splitlines()
    names.write_text('\n'.join(lines))
    templates.write_text('a photo of a {}.\n')
    argv = [*options, '--work-dir', str(tmp_path / 'work'), '--limit', '1', '--name-path', str(names)]
    argv += ['--templates', str(templates), *QUICK]
    assert eval_script.main(argv) == 0
    record = read_results(tmp_path / 'work')
    assert record['changes'] == {'name_path': str(names), 'templates': str(templates)}
    assert (record['settings']['vocabulary'], record['settings']['templates']) == (str(names), str(templates))
    for broken, content, expected in (
        (names, '\n'.join(lines[1:]), 'has 19 classes, the data set has 20'),
        (templates, 'a photo\n', "must have '{}' once"),
        (templates, None, 'does not exist'),
    ):
        good = broken.read_text()
        broken.write_text(content) if content is not None else broken.unlink()
        capfd.readouterr()
        assert eval_script.main(argv) == 1
        assert expected in capfd.readouterr().err
        broken.write_text(good)


# Real kills of real processes.


def start(*command: str, **environment: str) -> subprocess.Popen:
    environment = os.environ | ENVIRONMENT | environment
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    parents = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(')')[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def kill_once(process: subprocess.Popen, reached: Callable[[], bool], pause: float) -> None:
    """SIGKILL for a process and all its children, a little after something has been reached."""
    deadline = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < deadline
        assert process.poll() is None, 'it ended before it could be killed'
        time.sleep(0.002)
    time.sleep(pause)
    for pid in family(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


@pytest.mark.slow
def test_killed_again_and_again(options: list[str], finished: Path, tmp_path: Path):
    work_dir = tmp_path / 'work'
    command = [sys.executable, 'eval.py', *options, '--work-dir', str(work_dir), '--resume', *ALL]
    chance = random.Random()  # another moment in every run of the tests
    for enough in (0, 6):
        process = start(*command)
        header = work_dir / 'counts/run.json'
        kill_once(process, lambda: header.exists() and len(counted(work_dir)) >= enough, chance.uniform(0, 0.05))  # noqa: B023
        assert not (work_dir / 'results.json').exists() or len(counted(work_dir)) >= PICTURES
    assert start(*command).wait(timeout=600) == 0
    assert assert_equal(work_dir, finished)['resumed'] == 2
    assert sorted(counted(work_dir)) == sorted(counted(finished))


@pytest.mark.slow
def test_two_processes_killed_and_one_goes_on(options: list[str], finished: Path, tmp_path: Path):
    work_dir = tmp_path / 'work'
    command = ['bash', 'dist_test.sh', *options[1:], '--work-dir', str(work_dir)]
    process = start(*command, GPUS='2', PORT=str(free_port()))
    kill_once(process, lambda: len(counted(work_dir)) >= 5, random.Random().uniform(0, 0.05))
    assert {path.name for path in (work_dir / 'counts').glob('*.jsonl')} == {'1-0.jsonl', '1-1.jsonl'}
    assert eval_script.main([*options, '--work-dir', str(work_dir), '--resume', *ALL, *QUICK]) == 0
    record = assert_equal(work_dir, finished)
    assert (record['resumed'], record['settings']['processes']) == (1, 1)


@pytest.mark.slow
def test_one_process_stopped_and_two_go_on(options: list[str], work_dir: Path, finished: Path):
    """Five pictures are left for two processes: one evaluates three of them, the other two."""
    forget_results(work_dir)
    counts = work_dir / 'counts/1-0.jsonl'
    counts.write_bytes(b''.join(counts.read_bytes().splitlines(keepends=True)[:-5]))
    command = ['bash', 'dist_test.sh', *options[1:], '--work-dir', str(work_dir), '--resume', *ALL]
    assert start(*command, GPUS='2', PORT=str(free_port())).wait(timeout=600) == 0
    record = assert_equal(work_dir, finished)
    assert (record['resumed'], record['settings']['processes']) == (1, 2)
    assert sorted(counted(work_dir)) == sorted(counted(finished))
    assert (work_dir / 'counts/2-1.jsonl').stat().st_size > 0


@pytest.mark.slow
def test_all_again(data: Path, finished: Path, tmp_path: Path):
    def run(std: str, *more: str, **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, output, and the benchmark's line in the last table."""
        command = ['bash', str(ROOT / 'test_all.sh'), '-', '-', std, '-', 'cpu', str(tmp_path / 'log'), *root, *more]
        environment = os.environ | ENVIRONMENT | {'BENCHMARKS': 'shapes'} | environment
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        (line,) = (line for line in done.stdout.partition('=== all')[2].splitlines() if line.startswith('shapes '))
        return done.returncode, done.stdout, line.split()

    root = ['--data-root', os.path.relpath(data, tmp_path)]
    shutil.copytree(finished, tmp_path / 'mine/shapes')
    miou = f'{read_results(finished)["metrics"]["mIoU"]:.2f}'
    code, output, line = run('-', *ALL, WORK_DIR='mine')
    assert (code, line[1:3]) == (0, [str(PICTURES), miou]), output
    assert 'results: mine\n' in output
    assert 'shapes: finished before' in output
    code, output, line = run('2', WORK_DIR='mine')
    assert (code, line[1:3]) == (1, ['-', '-'])  # what is there belongs to another run
    assert (
        'eval.py: mine/shapes has a run under other settings: settings.constants.gaussian_std was 5.0, is 2.0' in output
    )
    assert 'not evaluated: shapes' in output
    assert_equal(tmp_path / 'mine/shapes', finished)
    # By default other settings go elsewhere; and starting over asks nothing.
    name = re.sub('[^a-z0-9.]+', '_', f'std 2 {root} limit 3')
    default = tmp_path / 'work_dirs/test_all' / name / 'shapes'
    shutil.copytree(finished, default)
    code, output, line = run('2', '--limit', '3', RESUME='0')
    assert (code, line[1]) == (0, '3'), output
    assert f'results: work_dirs/test_all/{name}\n' in output
    assert read_results(default)['settings']['constants']['gaussian_std'] == 2
    assert not (default / 'confusion.npy').exists()
