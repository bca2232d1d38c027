"""What the published code of PixelCLIP's training gave, and the stand-in model that it gave it for."""

import json
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip import MEAN, STD
from clip.model import build_model
from naclip.training.pooling import shrink
from naclip.training.step import PixelCLIPTraining
from tests.conftest import ROOT
from tests.goldens.weights import stand_in_state_dict


@cache
def golden() -> dict[str, Tensor | np.ndarray]:
    with np.load(ROOT / 'tests' / 'goldens' / 'pixelclip_training.npz') as file:
        arrays = {key: file[key] for key in file.files}
    return {key: array if array.dtype.kind == 'U' else torch.from_numpy(array) for key, array in arrays.items()}


def said(key: str) -> dict:
    """A golden that is JSON."""
    return json.loads(str(golden()[key]))


def bits(key: str, shape: tuple[int, ...]) -> Tensor:
    """A golden of packed bits, bool."""
    return torch.from_numpy(np.unpackbits(golden()[key].numpy())[: int(np.prod(shape))]).view(shape).bool()


def pictures(key: str) -> Tensor:
    """Normalised pictures (B, 3, H, W)."""
    images = golden()[key].permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def inputs(key: str) -> Tensor:
    """Normalised pictures at the side that the towers see (B, 3, S, S)."""
    return F.interpolate(pictures(key), (said('config')['clip_resolution'],) * 2, mode='bilinear', align_corners=False)


def masks() -> list[Tensor]:
    """The masks of each picture at the resolution of training (n, M, M)."""
    size = said('config')['image_size']
    found = []
    for i, count in enumerate(golden()['in/num_masks'].tolist()):
        rows = np.unpackbits(golden()[f'in/masks_{i}'].numpy(), axis=1)[:, : size[0] * size[1]]
        full = torch.from_numpy(rows).view(count, *size).bool()
        found.append(shrink(full, said('config')['mask_resolution']))
    return found


def training() -> PixelCLIPTraining:
    """The stand-in model, as it is before its first step."""
    tower = said('config')['tower']
    net = build_model(stand_in_state_dict(**tower))
    model = PixelCLIPTraining(net, golden()['prompt/tokens'], said('config')['eps'])
    head = {key.removeprefix('head/'): value.float() for key, value in golden().items() if key.startswith('head/')}
    model.head.load_state_dict(head)
    return model.train()


def assert_near(ours: Tensor, key: str, tolerance: float, floor: float = 0.0) -> None:
    """Within `tolerance` of the largest expected magnitude, or `floor`."""
    expected = golden()[key] if isinstance(key, str) else key
    assert ours.shape == expected.shape
    worst = (ours.detach() - expected).abs().max()
    assert worst <= max(tolerance * expected.abs().max(), floor), f'{key}: {worst / expected.abs().max()}'
