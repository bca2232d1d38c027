"""The head: sizes, names, and chunks."""

import torch

from naclip.training import head as module
from naclip.training.head import Head


def test_parameters():
    head = Head()
    assert sum(p.numel() for p in head.parameters()) == 118_145
    assert head(torch.zeros(3, 1, 5, 6)).shape == (3, 1, 20, 24)


def test_chunks_are_exact(monkeypatch):
    torch.manual_seed(0)
    head, maps = Head(), torch.randn(7, 1, 4, 4, requires_grad=True)
    whole = head(maps)
    whole.square().sum().backward()
    expected = [p.grad.clone() for p in (*head.parameters(), maps)]
    head.zero_grad()
    maps.grad = None
    monkeypatch.setattr(module, 'CHUNK', 3)
    parts = head(maps)
    parts.square().sum().backward()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close([p.grad for p in (*head.parameters(), maps)], expected, rtol=1e-4, atol=1e-3)
