"""Goldens of the guided methods (tests/goldens/guided_*.npz), and the towers under which they were taken."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip.guides import Guide, build_guide
from clip.model import CLIP, build_model
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings
from naclip.walk.vocabulary import Vocabulary
from tests.goldens import guide_weights
from tests.goldens.weights import stand_in_state_dict

GOLDENS = Path(__file__).parents[2] / 'goldens'
SIZES = (64, 64, 12, 128, 16, 77, 49408, 64, 2)
PICTURES = range(3)


@cache
def golden(name: str) -> dict[str, Tensor]:
    """All that a golden file holds."""
    with np.load(GOLDENS / f'guided_{name}.npz') as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


@cache
def model() -> CLIP:
    """The stand-in CLIP; shared, so tests leave it as it is."""
    return build_model(stand_in_state_dict(*SIZES))


@cache
def dino(patch_size: int) -> Guide:
    return build_guide(guide_weights.dino_state_dict(patch_size=patch_size))


@cache
def dinov2() -> Guide:
    return build_guide(guide_weights.dinov2_state_dict())


def image(name: str, i: int) -> Tensor:
    """A normalised picture (1, 3, H, W)."""
    return golden(name)[f'image_{i}'].float()[None]


def original_size(name: str, i: int) -> tuple[int, int]:
    """The size (H, W) that predictions of picture i have."""
    return tuple(golden(name)[f'ori_shape_{i}'].tolist())


def vocabulary(query_idx: list[int]) -> Vocabulary:
    """A vocabulary with these classes of names."""
    classes = [[] for _ in range(max(query_idx) + 1)]
    for i, k in enumerate(query_idx):
        classes[k].append(f'name {i}')
    return Vocabulary(tuple(map(tuple, classes)))


def pipeline(
    name: str, mode: str, method: Method, guide: Guide, net: CLIP | None = None, **options: object
) -> Pipeline:
    file = golden(name)
    windows = dict(slide_crop=int(file['crop']), slide_stride=int(file['stride']))
    texts = file[f'text_features/{mode}'].float()
    idx = file.get(f'query_idx/{mode}')
    mine = vocabulary(list(range(len(texts))) if idx is None else idx.tolist())
    return Pipeline(net or model(), method, mine, texts, Settings(**windows | options), guide)


def assert_near(ours: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within `tolerance` of the largest expected magnitude."""
    assert ours.shape == expected.shape
    assert ours.isfinite().all()
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


def assert_labels(name: str, key: str, labels: Tensor) -> None:
    """No other label (1, 1, H, W) where the golden is not ambiguous."""
    file = golden(name)
    expected = file[f'{key}/label'].long()
    ambiguous = np.unpackbits(file[f'{key}/ambiguous'].numpy())[: expected.numel()]
    clear = torch.from_numpy(ambiguous == 0).view(expected.shape)
    assert clear.float().mean() > 0.9
    assert torch.equal(labels[0, 0][clear], expected[clear])


def assert_predicted(name: str, key: str, labels: Tensor, probabilities: Tensor, tolerance: float = 1e-4) -> None:
    """Class probabilities (1, K, H, W) within `tolerance`, and labels as `assert_labels` has it."""
    file = golden(name)
    expected, mean = file[f'{key}/probs_every4'], file[f'{key}/probs_mean_hw']
    torch.testing.assert_close(probabilities[0, :, ::4, ::4].float(), expected.float(), rtol=0, atol=tolerance)
    torch.testing.assert_close(probabilities[0].mean(dim=(1, 2)).float(), mean.float(), rtol=0, atol=tolerance)
    assert_labels(name, key, labels)
