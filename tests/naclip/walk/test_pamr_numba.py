"""The kernel for the CPU, against the plain form."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naclip.walk.pamr import affinity, pamr, plain_affinity, refine, refiner
from tests.conftest import ROOT
from tests.naclip.walk.test_pamr import DILATIONS, random

pytest.importorskip('numba')
from naclip.walk import pamr_numba

SIDES = st.integers(1, 40) | st.sampled_from([47, 48, 49, 64, 65])


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@given(height=SIDES, width=SIDES, batch=st.integers(1, 2), dilations=DILATIONS, thread_count=st.integers(1, 3))
def test_affinities_as_the_plain_form(height, width, batch, dilations, thread_count):
    image = random(3, height, width, batch, height)
    image[..., : width // 2] = 0.25  # where nothing differs, all neighbours weigh the same
    with threads(thread_count):
        found = pamr_numba.affinity(image, dilations)
    torch.testing.assert_close(found, plain_affinity(image, dilations), rtol=1e-4, atol=1e-6)


def test_it_is_what_is_chosen(monkeypatch: pytest.MonkeyPatch):
    """Whatever the order of the maps in memory, as of those that F.interpolate makes of features."""
    assert refiner(torch.zeros(1, 2, 3, 4)) is pamr_numba.refine
    seen = []
    monkeypatch.setattr(pamr_numba, 'refine', lambda maps, *_: seen.append(maps.is_contiguous()))
    monkeypatch.setattr('naclip.walk.pamr._numba_refine', lambda: pamr_numba.refine)
    pamr(random(3, 8, 9), random(4, 8, 9).contiguous(memory_format=torch.channels_last))
    assert seen == [True]


@given(
    height=SIDES,
    width=SIDES,
    maps=st.integers(1, 13),
    batch=st.integers(1, 2),
    dilations=DILATIONS,
    steps=st.integers(0, 12),
    scratch_bytes=st.sampled_from([0, 50_000, 200_000, 1 << 24]),
    thread_count=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_as_the_plain_form(height, width, maps, batch, dilations, steps, scratch_bytes, thread_count, seed):
    image, x = random(3, height, width, batch, seed), random(maps, height, width, batch, seed + 1)
    weights, expected = affinity(image, dilations), x.clone()
    refine(expected, weights, steps, dilations, 1 << 24)
    with threads(thread_count):
        pamr_numba.refine(x, weights, steps, dilations, scratch_bytes)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('thread_count', [1, 2])
def test_a_whole_picture(thread_count):
    image, maps = random(3, 123, 250), random(21, 123, 250, seed=1)
    weights, expected = affinity(image), maps.clone()
    refine(expected, weights, 10, (8, 16), 1 << 24)
    with threads(thread_count):
        pamr_numba.refine(maps, weights, 10, (8, 16), 1 << 24)
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-5)


@given(st.integers(0, 400), st.integers(pamr_numba.MAPS, 40), st.integers(1, 20))
def test_shares(count, most, thread_count):
    parts = pamr_numba.shares(count, most, thread_count)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= most
    assert all(size % pamr_numba.MAPS == 0 for size in sizes[:-1])
    assert max(sizes) - min(sizes[:-1], default=max(sizes)) <= pamr_numba.MAPS
    assert len(parts) % thread_count == 0 or max(sizes) <= pamr_numba.MAPS


def test_several_callers_at_once():
    """As when a page serves several people."""
    image, maps = random(3, 40, 50), random(9, 40, 50, seed=1)
    with threads(2), ThreadPoolExecutor(4) as pool:
        expected = pamr(image, maps)  # the last bit of PyTorch's softmax depends on the number of threads
        for refined in pool.map(lambda _: pamr(image, maps), range(8)):
            assert torch.equal(refined, expected)


@pytest.mark.parametrize('maps', [21, 64])
def test_memory_is_bounded(maps):
    """Beyond the maps and the weights: the weights in another order, and the scratch that was granted."""
    x, weights = random(maps, 60, 80), affinity(random(3, 60, 80))
    pamr_numba.refine(x, weights, 1, (8, 16), 600_000)
    tracemalloc.start()
    pamr_numba.refine(x, weights, 1, (8, 16), 600_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 4 * weights.numel() < peak < 4 * weights.numel() + 600_000 + 50_000


CALL = """
import torch
from naclip.walk.pamr import pamr
from naclip.walk.pamr_numba import _refine_group

pamr(torch.rand(1, 3, 20, 30), torch.rand(1, 5, 20, 30))
print(type(_refine_group._cache).__name__, sum(_refine_group.stats.cache_hits.values()))
"""


def run(**environment: str) -> tuple[str, str]:
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'error'} | environment
    done = subprocess.run([sys.executable, '-c', CALL], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.slow
def test_compiled_once_for_all_processes(tmp_path: Path):
    assert run(NUMBA_CACHE_DIR=str(tmp_path)) == ('FunctionCache 0', '')
    assert run(NUMBA_CACHE_DIR=str(tmp_path)) == ('FunctionCache 1', '')


@pytest.mark.slow
def test_without_a_folder_to_write_to():
    """Of the places that numba looks for, only one is allowed that does not fit."""
    assert run(NUMBA_CACHE_LOCATOR_CLASSES='ZipCacheLocator') == ('NullCache 0', '')
