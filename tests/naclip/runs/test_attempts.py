"""What makes two runs the same one, and what a start leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip.runs.attempts import alone, begin, differences, run_identity
from naclip.runs.journal import Journal, read_journal

NOTES = {'versions': {'torch': '2'}, 'git_commit': 'abc', 'device': {'type': 'cpu'}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def record(**settings: object) -> dict:
    return {
        'benchmark': 'voc21',
        'method': 'naclip',
        'protocol': 'naclip',
        'changes': {'name_path': '/a/cls.txt', 'gaussian_std': 3.0},
        'settings': {'config': 'a.py', 'vocabulary': '/a/cls.txt', 'templates': '/a/t.txt', 'processes': 2} | settings,
        'sha256': {'weights': 'a' * 64},
        **NOTES,
    }


def config(**dataset: object) -> tuple[dict, dict]:
    """The data set and the evaluator of a config."""
    dataset = dict(type='X', data_root='/data', test_mode=True, pipeline=[dict(type='Resize', scale=(2, 3))]) | dataset
    return dataset, dict(type='M', collect_dir='/w')


@given(VALUES, VALUES)
def test_there_is_a_difference_where_values_differ(was: object, now: object):
    assert differences(was, was) == []
    assert bool(differences(was, now)) == (without_null(was) != without_null(now))


def without_null(value: object) -> object:
    """A key that is null is as good as none."""
    if isinstance(value, dict):
        return {k: without_null(v) for k, v in value.items() if v is not None}
    return [without_null(v) for v in value] if isinstance(value, list) else value


def test_differences_name_key_was_and_is():
    was = {'a': {'b': 1, 'c': [1, {'d': 2}]}, 'sha256': {'w': '0' * 64}}
    now = {'a': {'c': [1, {'d': 3}], 'e': 'x'}, 'sha256': {'w': '1' * 64}}
    assert differences(was, now) == [
        'a.c.1.d was 2, is 3',
        'a.e was not set, is x',
        'a.b was 1, is not set',
        f'sha256.w was {"0" * 12}, is {"1" * 12}',
    ]
    assert differences({'a': [1, 2]}, {'a': [1]}) == ['a was [1, 2], is [1]']


def test_identity_is_what_counts_depend_on():
    base = run_identity(record(), *config(), ['x', 'y'], 21)
    assert base == json.loads(json.dumps(base))
    moved = record(config='b.py', vocabulary='/b/cls.txt', templates='/b/t.txt', processes=1)
    moved['changes'] = {'name_path': '/b/cls.txt', 'gaussian_std': 3.0}
    moved |= {'git_commit': 'def', 'device': {}, 'versions': {}}
    assert run_identity(moved, *config(data_root='/x', indices=2), ['x', 'y'], 21) == base
    for other in (
        run_identity(record(dtype='float16'), *config(), ['x', 'y'], 21),
        run_identity(record(), *config(pipeline=[dict(type='Resize', scale=(2, 4))]), ['x', 'y'], 21),
        run_identity(record(), *config(), ['x', 'z'], 21),
        run_identity(record(), *config(), ['x'], 21),
        run_identity(record(), *config(), ['x', 'y'], 20),
        run_identity(record() | {'protocol': 'sclip'}, *config(), ['x', 'y'], 21),
    ):
        assert differences(base, other)


def test_begin_go_on_and_start_over(tmp_path: Path):
    identity = {'classes': 2, 'settings': {'std': 1}}
    first = begin_alone(tmp_path, identity, ['a', 'b'], resume=False)
    assert (first.number, first.done, first.results) == (1, [], None)
    journal = Journal(tmp_path / 'counts', 1, 0)
    journal.append('b', np.array([[0, 1, 5], [1, 1, 2]]))
    journal.append('of another data set', np.array([[0, 1, 5]]))
    journal.close()
    second = begin_alone(tmp_path, identity, ['a', 'b'], resume=True)
    assert (second.number, second.done, len(second.notes)) == (2, ['b'], 2)
    assert (second.counts.intersect, second.counts.pred, second.counts.label) == ([0, 2], [0, 7], [5, 2])
    with pytest.raises(ValueError, match=r'settings\.std was 1, is 2; take another --work-dir'):
        begin_alone(tmp_path, identity | {'settings': {'std': 2}}, ['a', 'b'], resume=True)
    assert set(read_journal(tmp_path / 'counts')[0]) == {'b', 'of another data set'}
    third = begin_alone(tmp_path, identity, ['a', 'b'], resume=False)
    assert (third.number, third.done) == (1, [])
    assert read_journal(tmp_path / 'counts')[0] == {}


def test_complete_only_with_counts_and_results(tmp_path: Path):
    identity = {'classes': 1}
    begin_alone(tmp_path, identity, ['a'], resume=False)
    (tmp_path / 'results.json').write_text('{"x": 1}')
    assert begin_alone(tmp_path, identity, ['a'], resume=True).results is None  # nothing is counted
    assert not (tmp_path / 'results.json').exists()
    journal = Journal(tmp_path / 'counts', 1, 0)
    journal.append('a', np.array([[0, 0, 1]]))
    journal.close()
    (tmp_path / 'results.json').write_text('{"x": 1}')
    assert begin_alone(tmp_path, identity, ['a'], resume=True).results == {'x': 1}


def begin_alone(work_dir: Path, identity: dict, pictures: list[str], resume: bool):
    with alone(work_dir):
        return begin(work_dir, identity, NOTES, pictures, resume)
