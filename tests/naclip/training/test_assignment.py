"""Balanced assignment, alone and over two processes."""

import itertools
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from naclip.training.assignment import balanced_assignment
from tests.naclip.training.golden import golden

CASES = range(3)
SPLITS = (0.4, 0.0)  # how many of the rows the first process has; 0: a process without a mask


@pytest.mark.parametrize('i', CASES)
def test_goldens(i):
    similarity, eps = golden()[f'sinkhorn/{i}/similarity'], golden()[f'sinkhorn/{i}/eps'].item()
    shares = balanced_assignment(similarity, eps)
    torch.testing.assert_close(shares, golden()[f'sinkhorn/{i}/assignment'], rtol=0, atol=2e-5)
    assert torch.equal(shares.argmax(dim=1), golden()[f'sinkhorn/{i}/labels'].long())


def test_a_cluster_that_underflows_gets_no_mask():
    cosines = torch.tensor([[1.0, 0.9, -1.0], [0.9, 1.0, -1.0]])
    shares = balanced_assignment(cosines, 100.0)
    assert shares.isfinite().all()
    assert shares.argmax(dim=1).tolist() == [0, 1]


def test_no_mask_at_all():
    assert balanced_assignment(torch.zeros(0, 5), 100.0).shape == (0, 5)


def _part(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    for i, split in itertools.product(CASES, SPLITS):
        rows = golden()[f'sinkhorn/{i}/similarity']
        cut = int(split * len(rows))
        own = rows[:cut] if rank == 0 else rows[cut:]
        shares = balanced_assignment(own, golden()[f'sinkhorn/{i}/eps'].item())
        torch.save(shares, os.path.join(folder, f'{i}_{split}_{rank}.pt'))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path):
    mp.spawn(_part, (str(tmp_path),), nprocs=2)
    for i, split in itertools.product(CASES, SPLITS):
        shares = torch.cat([torch.load(tmp_path / f'{i}_{split}_{rank}.pt') for rank in range(2)])
        torch.testing.assert_close(shares, golden()[f'sinkhorn/{i}/assignment'], rtol=0, atol=2e-5)
        assert torch.equal(shares.argmax(dim=1), golden()[f'sinkhorn/{i}/labels'].long())
