"""The step of PAMR in Triton, against the plain form: in Triton's interpreter, and on a device where there is one."""

import os
import subprocess
import sys

import pytest
import torch

from naclip.walk.pamr import affinity, pamr, plain_affinity, refine
from tests.conftest import ROOT
from tests.naclip.walk.test_pamr import random

INTERPRETED = """
from functools import partial
import torch
from naclip.walk import pamr_triton
from naclip.walk.pamr import affinity, neighbour_offsets, refine, refine_fused
from naclip.walk.pamr_triton import TILING, Tiling, step

generator = torch.Generator().manual_seed(0)
image, maps = torch.randn(1, 3, 11, 17, generator=generator), torch.randn(1, 11, 11, 17, generator=generator)
weights, expected = affinity(image, (2, 16)), maps.clone()
refine(expected, weights, 2, (2, 16), 1 << 20)
offsets = torch.tensor(neighbour_offsets((2, 16)), dtype=torch.int32)
torch.testing.assert_close(pamr_triton.affinity(image[0], offsets, 2), weights[0], rtol=1e-5, atol=1e-6)
flat = torch.zeros(3, 6, 7)
torch.testing.assert_close(pamr_triton.affinity(flat, offsets, 2), torch.full((16, 6, 7), 1 / 16))
for tiling in (TILING, Tiling(64, 4, 2, True, 4)):
    refined = maps.clone()
    refine_fused(refined, weights, 2, (2, 16), 4 * 11 * 17 * 9, partial(step, tiling=tiling))
    torch.testing.assert_close(refined, expected, rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
def test_triton_kernel_under_its_interpreter():
    """The kernel's arithmetic, without a GPU; Triton takes this variable at import only."""
    pytest.importorskip('triton')
    environment = os.environ | {'TRITON_INTERPRET': '1', 'PYTHONPATH': str(ROOT)}
    run = subprocess.run([sys.executable, '-c', INTERPRETED], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.cuda
def test_triton_kernel_on_the_device():
    image, maps = random(3, 75, 101).cuda(), random(13, 75, 101, seed=1).cuda()
    expected, weights = maps.clone(), plain_affinity(image, (8, 16))
    torch.testing.assert_close(affinity(image), weights, rtol=1e-5, atol=1e-6)
    refine(expected, weights, 10, (8, 16), 1 << 20)
    torch.testing.assert_close(pamr(image, maps), expected, rtol=1e-5, atol=1e-5)
