"""Binary cross-entropy where any mask is."""

import torch
import torch.nn.functional as F

from naclip.training.loss import covered_cross_entropy


def make(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, 5, 5, generator=generator, requires_grad=True)
    return logits, (torch.rand(3, 4, 10, 10, generator=generator) > 0.8).float()


def test_it_is_the_mean_over_clusters_of_the_covered_pixels():
    logits, unions = make()
    unions[0] = 0
    loss = covered_cross_entropy(logits, unions)
    (grad,) = torch.autograd.grad(loss, logits)
    planes = F.interpolate(logits, (10, 10), mode='bilinear', align_corners=False)
    covered = unions.sum(dim=1) > 0
    expected = F.binary_cross_entropy_with_logits(planes.movedim(1, -1)[covered], unions.movedim(1, -1)[covered])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, logits)[0])
    assert not grad[0].any()


def test_nothing_covered():
    logits, unions = make()
    loss = covered_cross_entropy(logits, torch.zeros_like(unions))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()
