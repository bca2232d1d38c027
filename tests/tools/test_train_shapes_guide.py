"""The tiny guide's training, in small; and that what is shipped is one."""

import torch
from numpy.random import RandomState

from clip.guides import BUNDLED_GUIDES, load_guide
from tools.train_shapes_guide import GRID, balanced, crops, main, matched, neighbours


def test_trains_a_guide(tmp_path, capsys):
    out = tmp_path / 'guide.safetensors'
    assert main(['--steps', '2', '--batch', '2', '--pool', '2', '-o', str(out)]) == 0
    guide, _ = load_guide(out)
    assert guide(torch.zeros(1, 3, 64, 64)).shape == (1, 1 + GRID**2, 128)
    assert 'loss' in capsys.readouterr().out


def test_the_shipped_guide_is_small_and_reads():
    assert BUNDLED_GUIDES['shapes'].stat().st_size < 4e6
    guide, _ = load_guide('shapes')
    assert guide(torch.zeros(1, 3, 40, 60)).shape == (1, 151, 128)


def test_matched_cells_show_the_same_place():
    pool = torch.arange(96 * 96).view(1, 1, 96, 96).expand(1, 3, 96, 96).float()
    rng = RandomState(0)
    for _ in range(20):
        first, second, shift = crops(pool, rng, 1)
        grids = [crop[:, 0, ::4, ::4] for crop in (first, second)]
        assert grids[0].shape == (1, GRID, GRID)
        assert torch.equal(matched(grids[0], shift, True), matched(grids[1], shift, False))


def test_assignments_are_balanced():
    q = balanced(torch.rand(64, 8, generator=torch.Generator().manual_seed(0)), rounds=20)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(64))
    torch.testing.assert_close(q.sum(dim=0), torch.full((8,), 8.0), rtol=0.05, atol=0)


def test_neighbours_are_near():
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(9), indexing='ij')
    cells = torch.stack([rows, columns], dim=-1)[None]
    moved = neighbours(cells, RandomState(0))
    assert moved.shape == cells.shape
    assert (moved - cells).abs().max() == 1
