"""Plans: options with several values, and files, as runs."""

import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip.commands.evaluate import build_parser, runs_of
from naclip.runs.plan import arguments_of, parse_sweep, read_plan


def runs(*argv: str):
    return runs_of(build_parser().parse_args(argv), argv, 'eval.py')


def test_one_run_is_what_it_was():
    (run,) = runs('--config', 'configs/cfg_voc21.py', '--method', 'sclip', '--std', '3', '--pamr', 'off')
    assert (run.config, run.method, run.std, run.pamr) == ('configs/cfg_voc21.py', 'sclip', 3.0, 'off')
    assert (run.attn, run.protocol, run.work_dir, run.run_name) == (None, None, None, None)


def test_every_combination_once_and_in_its_own_folder():
    given = ['--config', 'voc21', 'configs/cfg_voc20.py', '--method', 'naclip', 'clip', '--std', '1', '2']
    found = runs(*given, '--pamr', 'off', '--sweep', 'model.prob_thd=0,0.1', '--work-dir', 'w')
    keys = [(r.config, r.method, r.std, r.cfg_options[-1]) for r in found]
    values = product(['naclip', 'clip'], [1.0, 2.0], ['0', '0.1'], ['voc21', 'configs/cfg_voc20.py'])
    assert keys == [(c, m, s, f'model.prob_thd={t}') for m, s, t, c in values]
    assert len({r.work_dir for r in found}) == len(found) == 16
    assert {r.pamr for r in found} == {'off'}
    assert found[0].work_dir == 'w/naclip_std=1.0_prob_thd=0/voc21'
    assert found[1].run_name == 'naclip_std=1.0_prob_thd=0/voc20'


def test_only_data_differ():
    assert [r.work_dir for r in runs('--config', 'voc21', 'voc20')] == ['work_dirs/voc21', 'work_dirs/voc20']


def test_constants_of_methods_are_swept():
    first, second = runs('--config', 'voc21', '--method', 'resclip', '--sweep', 'method.lr=0.2,0.4', '--method-options',
                         'ts=2.0')  # fmt: skip
    assert first.method_options == ['ts=2.0', 'lr=0.2']
    assert second.method_options == ['ts=2.0', 'lr=0.4']
    assert second.run_name == 'method_lr=0.4/voc21' or second.run_name == 'lr=0.4/voc21'
    assert first.cfg_options == []


@pytest.mark.parametrize(
    ('argv', 'told'),
    [
        (['--config', 'voc21', '--sweep', 'prob_thd'], 'expects KEY=VALUE,VALUE'),
        (['--config', 'voc21', '--sweep', 'a=1,,2'], 'expects KEY=VALUE,VALUE'),
        (['--config', 'voc21', '--sweep', 'a=1,1'], '1 is there twice'),
        (['--config', 'voc21', 'configs/cfg_voc21.py'], 'two runs of the plan are one: voc21'),
        (['--config', 'voc21', '--method', 'clip', 'clip'], 'two runs of the plan are one: clip/voc21'),
        (['--plan', 'nowhere.json'], 'plan nowhere.json does not exist'),
        ([], 'one of the arguments --config --images --plan is required'),
    ],
)
def test_what_is_no_plan(argv: list[str], told: str):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        runs(*argv)


@given(st.lists(st.sampled_from(['0', '0.1', '(8, 16)', '[2,4,8]', 'a b']), min_size=1, max_size=5, unique=True))
def test_values_with_brackets_stay_whole(values: list[str]):
    assert parse_sweep(f'model.x={",".join(values)}') == ('model.x', values)


RECORDS = [
    {'config': 'voc21', 'method': 'naclip', 'std': 3},
    {'config': ['voc20', 'voc21'], 'method': ['clip', 'sclip'], 'pamr': 'off'},
    {'name': 'mine', 'config': 'voc21', 'cfg-options': {'model.prob_thd': 0.2}, 'save_confusion': True},
]


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_a_file_of_runs(tmp_path: Path, suffix: str):
    path = tmp_path / f'plan{suffix}'
    path.write_text(json.dumps({'runs': RECORDS} if suffix == '.json' else RECORDS))  # JSON is YAML
    found = runs('--plan', str(path), '--std', '7', '--work-dir', 'w')
    assert [(r.config, r.method, r.std, r.pamr) for r in found] == [
        ('voc21', 'naclip', 3.0, None),
        ('voc20', 'clip', 7.0, 'off'),
        ('voc21', 'clip', 7.0, 'off'),
        ('voc20', 'sclip', 7.0, 'off'),
        ('voc21', 'sclip', 7.0, 'off'),
        ('voc21', None, 7.0, None),
    ]
    assert len({r.work_dir for r in found}) == 6
    assert found[-1].work_dir == 'w/mine/voc21'
    assert found[-1].cfg_options == ['model.prob_thd=0.2']
    assert (found[-1].save_confusion, found[0].save_confusion) == (True, False)


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('{', 'cannot be read'),
        ('[]', 'expected a list of runs'),
        ('{"runs": 1}', 'expected a list of runs'),
        ('[1]', 'expected a list of runs'),
        ('[{"config": "voc21", "metod": "clip"}]', "run 1: there is no option 'metod' of a run; did you mean method"),
        ('[{"config": "voc21"}, {"config": "voc20", "launcher": "mpi"}]', "run 2: there is no option 'launcher'"),
        ('[{"method": "clip"}]', 'one of the arguments'),
        ('[{"config": "voc21", "std": "wide"}]', 'run 1: argument --std: invalid float'),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, told: str):
    path = tmp_path / 'plan.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        runs('--plan', str(path))


def test_broken_yaml(tmp_path: Path):
    path = tmp_path / 'plan.yaml'
    path.write_text('- config: [voc21\n')
    with pytest.raises(ValueError, match=r'plan .*plan\.yaml cannot be read'):
        read_plan(path)


def test_arguments():
    known = ['std', 'resume', 'cfg-options', 'method']
    record = {'std': [1, 2], 'resume': True, 'cfg_options': {'a.b': [1, 2]}, 'method': None}
    assert arguments_of(record, known) == ['--std', '1', '2', '--resume', '--cfg-options', 'a.b=[1, 2]']
    assert arguments_of({'resume': False}, known) == []
