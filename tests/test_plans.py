"""Several runs in one command: each leaves exactly what it leaves alone, whatever happens to the others."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import eval as eval_script
from naclip.harness import datasets, passes
from naclip.shapes.generator import write_dataset
from tests.conftest import ROOT, free_port
from tests.goldens.fake_datasets import write_benchmark

PICTURES = 15
FILES = ('confusion.npy', 'per_image.csv')
SAME = ('images', 'metrics', 'classes', 'changes', 'sha256', 'method', 'protocol', 'settings', 'backbone', 'files')
ALL = ('--save-confusion', '--per-image')
QUICK = ('--cfg-options', 'test_dataloader.num_workers=0')
ENVIRONMENT = {'OMP_NUM_THREADS': '1'}
METHODS = ('naclip', 'clip', 'sclip')

pytestmark = pytest.mark.usefixtures('default_scope_given_back')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data')
    for name in ('voc', 'context'):
        write_benchmark(root, name)
    return root


@pytest.fixture(scope='module')
def shapes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for the first pictures of the embedded benchmark."""
    root = tmp_path_factory.mktemp('shapes') / 'shapes'
    write_dataset(root, count=PICTURES)
    return ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--data-root', str(root), '--device', 'cpu']


def results(work_dir: Path) -> dict:
    return json.loads((work_dir / 'results.json').read_text())


def check_same(work_dir: Path, alone: Path) -> None:
    """The same numbers under the same settings, file by file."""
    record, expected = results(work_dir), results(alone)
    for key in SAME:
        assert record[key] == expected[key], key
    for name in FILES:
        assert (work_dir / name).read_bytes() == (alone / name).read_bytes()


def record_of(name: str, config: str, method: str, *cfg_options: str, **more: object) -> dict:
    options = dict(item.split('=') for item in ('test_dataloader.num_workers=0', *cfg_options))
    return {
        'name': name,
        'config': str(ROOT / f'configs/cfg_{config}.py'),
        'method': method,
        'cfg_options': options,
    } | more


# Methods of several kinds, protocols, vocabularies, windows, refinement, thresholds, labels; on two data sets.
MIXED = [
    record_of('a', 'voc21', 'naclip'),
    record_of('b', 'voc20', 'naclip'),
    record_of('c', 'voc21', 'naclip', 'model.prob_thd=0.3', std=2.0),
    record_of('d', 'voc21', 'clip', pamr='on', protocol='naclip'),
    record_of('e', 'voc20', 'sclip'),
    record_of('f', 'voc21', 'sclip', 'model.slide_crop=64', 'model.slide_stride=32', protocol='naclip'),
    record_of('g', 'voc21', 'cliptrase'),
    record_of('h', 'voc20', 'pearl', protocol='naclip'),
    record_of('i', 'context59', 'naclip', pamr='off'),
    record_of('j', 'context60', 'clip', name_path=str(ROOT / 'configs/cls_context60.txt')),
    record_of('k', 'voc20', 'naclip', pamr='off'),
]


def data_root(record: dict, data: Path) -> str:
    return str(data / ('voc' if 'voc' in Path(record['config']).name else 'context'))


@pytest.mark.slow
def test_every_run_is_what_it_is_alone(data: Path, checkpoint_file: Path, tmp_path: Path, capfd):
    common = ['--backbone', str(checkpoint_file), '--device', 'cpu', *ALL]
    plan = tmp_path / 'plan.json'
    plan.write_text(json.dumps([record | {'data_root': data_root(record, data)} for record in MIXED]))
    assert eval_script.main(['--plan', str(plan), '--work-dir', str(tmp_path / 'plan'), *common]) == 0
    told = capfd.readouterr().out
    shared = set()
    for record in MIXED:
        name, benchmark = record['name'], Path(record['config']).stem.removeprefix('cfg_')
        alone = tmp_path / 'alone' / name
        alone_plan = tmp_path / f'{name}.json'
        alone_plan.write_text(json.dumps([record | {'data_root': data_root(record, data)}]))
        assert eval_script.main(['--plan', str(alone_plan), '--work-dir', str(alone), *common]) == 0
        check_same(tmp_path / 'plan' / name / benchmark, alone)
        assert results(alone)['seconds']['shared_by'] == 1
        shared.add(results(tmp_path / 'plan' / name / benchmark)['seconds']['shared_by'])
        assert f'{name}/{benchmark}: mIoU' in told
    assert max(shared) > 3


def test_pictures_are_read_once(data: Path, checkpoint_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    transform = datasets.CheckedStep.transform
    monkeypatch.setattr(
        datasets.CheckedStep, 'transform', lambda self, r: read.append(self.reads) or transform(self, r)
    )
    argv = ['--config', 'voc21', 'voc20', '--method', *METHODS, '--protocol', 'naclip', '--device', 'cpu']
    argv += ['--backbone', str(checkpoint_file), '--data-root', str(data / 'voc'), '--work-dir', str(tmp_path)]
    assert eval_script.main([*argv, *QUICK]) == 0
    assert read.count('img_path') == 3
    assert read.count('seg_map_path') == 6  # with and without background


def test_a_run_that_fails_is_told_of_and_the_others_go_on(shapes: list[str], tmp_path: Path, capfd):
    bad = tmp_path / 'bad.txt'
    bad.write_text('cat\n')
    good = str(ROOT / 'configs/cls_shapes.txt')
    argv = [*shapes, '--name-path', str(bad), good, '--method', 'clip', 'naclip', '--limit', '2']
    assert eval_script.main([*argv, '--work-dir', str(tmp_path / 'w'), *QUICK]) == 1
    error = capfd.readouterr().err
    assert 'clip_name_path=bad/shapes: not evaluated: ' in error
    assert 'Traceback' not in error
    last = error.strip().splitlines()[-1]
    assert last == 'eval.py: 2 of 4 runs failed: clip_name_path=bad/shapes, naclip_name_path=bad/shapes'
    for method in ('clip', 'naclip'):
        assert results(tmp_path / f'w/{method}_name_path=cls_shapes/shapes')['images'] == 2
        assert not (tmp_path / f'w/{method}_name_path=bad/shapes/results.json').exists()


def test_a_method_that_fails_on_a_picture(shapes: list[str], tmp_path: Path, capfd):
    """It ends there; what it counted stays, and mended it goes on."""
    source = """
from dataclasses import dataclass
from naclip.methods.clip import CLIP

@dataclass(frozen=True)
class Fragile(CLIP):
    def maps(self, reading, texts):
        Fragile.seen = getattr(Fragile, 'seen', 0) + 1
        if Fragile.seen == 3:
            raise ValueError('too much')
        return super().maps(reading, texts)
"""
    method = tmp_path / 'fragile.py'
    method.write_text(source)
    argv = [*shapes, '--method', 'clip', f'{method}:Fragile', '--limit', '4', '--work-dir', str(tmp_path / 'w'), *ALL]
    assert eval_script.main([*argv, *QUICK]) == 1
    error = capfd.readouterr().err
    assert '1 of 2 runs failed' in error
    assert 'not evaluated: too much' in error
    folder = tmp_path / 'w/fragile.py_Fragile'
    assert results(tmp_path / 'w/clip/shapes')['images'] == 4
    assert len((folder / 'shapes/counts/1-0.jsonl').read_text().splitlines()) == 2
    assert eval_script.main([*argv, '--resume', *QUICK]) == 0
    assert results(folder / 'shapes')['metrics'] == results(tmp_path / 'w/clip/shapes')['metrics']


@pytest.fixture(scope='module')
def finished(shapes: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plans that nothing interrupted; tests leave them as they are."""
    root = tmp_path_factory.mktemp('finished')
    assert eval_script.main([*shapes, '--method', *METHODS, '--work-dir', str(root), *ALL, *QUICK]) == 0
    return root


@pytest.mark.slow
def test_memory_makes_more_passes_and_changes_nothing(shapes: list[str], finished: Path, tmp_path: Path):
    argv = [*shapes, '--method', *METHODS, '--work-dir', str(tmp_path), *ALL, '--memory', '1M']
    assert eval_script.main([*argv, *QUICK]) == 0
    for method in METHODS:
        check_same(tmp_path / method / 'shapes', finished / method / 'shapes')
        assert results(tmp_path / method / 'shapes')['seconds']['shared_by'] == 1
        assert results(finished / method / 'shapes')['seconds']['shared_by'] == len(METHODS)


@pytest.mark.parametrize('budget', [0, 3, 7, 10, 99])
def test_groups_stay_within_the_budget(budget: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(passes, 'bytes_needed', sum)
    runs = [3, 4, 2, 5, 1]
    groups = passes.within(runs, budget)
    assert [run for group in groups for run in group] == runs
    assert all(sum(group) <= budget or len(group) == 1 for group in groups)


def test_dry_run_writes_nothing(shapes: list[str], tmp_path: Path, capfd):
    argv = [*shapes, '--method', *METHODS, '--sweep', 'model.prob_thd=0,0.2', '--work-dir', str(tmp_path / 'w')]
    assert eval_script.main([*argv, '--dry-run', *QUICK]) == 0
    told = capfd.readouterr().out
    assert f'pass 1: 6 runs, {PICTURES} pictures loaded once, 1 look through the tower, 3 sets of maps' in told
    assert told.count('  ->  ') == 6
    assert not (tmp_path / 'w').exists()


@pytest.mark.slow
def test_only_what_is_missing_is_evaluated(shapes: list[str], finished: Path, tmp_path: Path, capfd):
    """A method more costs that method; the finished ones stay as they are."""
    argv = [*shapes, '--work-dir', str(tmp_path), *ALL, '--resume']
    assert eval_script.main([*argv, '--method', 'naclip', 'clip', *QUICK]) == 0
    before = (tmp_path / 'clip/shapes/results.json').read_bytes()
    assert eval_script.main([*argv, '--method', *METHODS, *QUICK]) == 0
    assert capfd.readouterr().out.count('finished before, under the same settings') == 2
    assert (tmp_path / 'clip/shapes/results.json').read_bytes() == before
    for method in METHODS:
        check_same(tmp_path / method / 'shapes', finished / method / 'shapes')


def test_a_changed_run_is_refused_alone(shapes: list[str], tmp_path: Path, capfd):
    argv = [*shapes, '--method', 'clip', 'sclip', '--limit', '2', '--work-dir', str(tmp_path), '--resume']
    assert eval_script.main([*argv, *QUICK]) == 0
    header = tmp_path / 'clip/shapes/counts/run.json'
    content = json.loads(header.read_text())
    content['identity']['settings']['logit_scale'] = 1
    header.write_text(json.dumps(content))
    assert eval_script.main([*argv, *QUICK]) == 1
    captured = capfd.readouterr()
    assert 'clip/shapes: not evaluated: ' in captured.err
    assert 'logit_scale was 1, is 40' in captured.err
    assert 'sclip/shapes: finished before' in captured.out


def lines(work_dir: Path) -> int:
    return sum(path.read_bytes().count(b'\n') for path in work_dir.rglob('*.jsonl'))


def start(argv: Sequence[str], env: dict | None = None) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / 'eval.py'), *argv]
    environment = os.environ | ENVIRONMENT | (env or {})
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2))
def test_killed_again_and_again(seed: int, shapes: list[str], finished: Path, tmp_path: Path):
    """SIGKILL at whatever moment: each run goes on with what it lacks."""
    rng = random.Random(seed)
    argv = [*shapes, '--method', *METHODS, '--work-dir', str(tmp_path), '--resume', *ALL, *QUICK]
    kills = 0
    while kills < 4:
        process, wanted = start(argv), lines(tmp_path) + rng.randint(1, 12)
        while process.poll() is None and lines(tmp_path) < wanted:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills
    assert start(argv).wait() == 0
    for method in METHODS:
        work_dir = tmp_path / method / 'shapes'
        check_same(work_dir, finished / method / 'shapes')
        whole = [
            line for path in work_dir.rglob('*.jsonl') for line in path.read_text().splitlines() if line[-1] == '}'
        ]
        keys = [json.loads(line)['image'] for line in whole]
        assert len(set(keys)) == len(keys) == PICTURES
        assert results(work_dir)['resumed'] >= 1


@pytest.mark.slow
def test_two_processes(shapes: list[str], finished: Path, tmp_path: Path):
    command = ['bash', str(ROOT / 'dist_test.sh'), str(ROOT / 'configs/cfg_shapes.py'), '--method', *METHODS]
    options = [*shapes[2:], '--work-dir', str(tmp_path), *ALL, *QUICK]
    environment = os.environ | ENVIRONMENT | {'GPUS': '2', 'PYTHON': sys.executable, 'PORT': str(free_port())}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for method in METHODS:
        work_dir = tmp_path / method / 'shapes'
        assert {path.name for path in (work_dir / 'counts').glob('*.jsonl')} == {'1-0.jsonl', '1-1.jsonl'}
        record, expected = results(work_dir), results(finished / method / 'shapes')
        for key in ('images', 'metrics', 'classes', 'sha256'):
            assert record[key] == expected[key]
        assert (work_dir / 'confusion.npy').read_bytes() == (finished / method / 'shapes/confusion.npy').read_bytes()


@pytest.mark.slow
def test_a_batch_of_pictures_of_any_sizes(data: Path, checkpoint_file: Path, tmp_path: Path):
    """Three pictures of three sizes together give what each gives alone."""
    argv = ['--config', 'voc21', 'voc20', '--method', 'naclip', 'cliptrase', '--device', 'cpu', *ALL]
    argv += ['--backbone', str(checkpoint_file), '--data-root', str(data / 'voc')]
    for size in (1, 3):
        place = ['--work-dir', str(tmp_path / str(size)), *QUICK, f'test_dataloader.batch_size={size}']
        assert eval_script.main([*argv, *place]) == 0
    for method in ('naclip', 'cliptrase'):
        for benchmark in ('voc21', 'voc20'):
            together, alone = (results(tmp_path / size / method / benchmark) for size in ('3', '1'))
            for key in ('images', 'metrics', 'classes'):
                assert together[key] == alone[key]


@pytest.mark.slow
def test_the_guide_of_several_methods_runs_once(shapes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from clip.guides import Guide

    embedded = []
    embed = Guide.embed
    monkeypatch.setattr(Guide, 'embed', lambda self, *args: embedded.append(id(self)) or embed(self, *args))
    argv = [*shapes, '--method', 'proxyclip', 'lposs', 'lposs_plus', '--protocol', 'naclip', '--limit', '3', *QUICK]
    assert eval_script.main([*argv, '--work-dir', str(tmp_path / 'w')]) == 0
    assert len(embedded) == 3  # once a picture
    assert len(set(embedded)) == 1
