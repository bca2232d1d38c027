"""Experts' maps and their fusion, pixel by pixel."""

import torch
import torch.nn.functional as F

from naclip.methods.clip_surgery import CLIPSurgery
from naclip.methods.experts import fused, maps_of_each
from naclip.methods.naclip import NACLIP


def test_fusion_by_hand(model):
    generator = torch.Generator().manual_seed(0)
    experts, default = (F.normalize(torch.randn(*n, 4, 64, generator=generator), dim=-1) for n in ((3,), ()))
    experts[1] = experts[0]  # two that are equally sure of what they say
    query_idx = torch.tensor([0, 1, 1, 2])
    with torch.no_grad():
        reading = NACLIP().read(model.visual, torch.randn(1, 3, 48, 64, generator=generator))
        ours = fused(NACLIP(), reading, experts, default, query_idx)[0]
        maps = [NACLIP().maps(reading, texts) for texts in (default, *experts)]
    p = [F.interpolate(torch.softmax(100 * m, dim=1), (48, 64), mode='bilinear')[0] for m in maps]
    said = 0
    for y in range(0, 48, 3):
        for x in range(0, 64, 3):
            best, chosen = -1.0, p[0][:, y, x]
            for k in range(3):
                of_expert = p[1 + k][:, y, x]
                name = int(of_expert.argmax())
                if int(query_idx[name]) == k and float(of_expert[name]) > best:
                    best, chosen = float(of_expert[name]), of_expert
                    said += 1
            torch.testing.assert_close(ours[:, y, x], chosen)
    assert said > 20


def test_maps_are_the_methods_own(model):
    """Also of methods whose features depend on the texts."""
    texts = F.normalize(torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(1)), dim=-1)
    with torch.no_grad():
        for method in (NACLIP(), CLIPSurgery(depth=1)):
            reading = method.read(model.visual, torch.randn(2, 3, 48, 64))
            for ours, some in zip(maps_of_each(method, reading, texts), texts, strict=True):
                torch.testing.assert_close(ours, method.maps(reading, some))
