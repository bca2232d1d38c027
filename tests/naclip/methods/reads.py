"""Readings in one call."""

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.walk.attention import Grid
from naclip.walk.gathering import Place
from naclip.walk.reading import Reading, Tower

NO_TEXTS = None  # for features that do not depend on texts


def dense_tokens(visual: Tower, images: Tensor, method: LastBlock) -> tuple[Tensor, Grid]:
    """(B, 3, H, W) -> projected tokens (B, N, C), CLS first, not normalised, and the patch grid."""
    reading = method.read(visual, images)
    return method.tokens(reading), reading.grid


def patch_features(visual: Tower, images: Tensor, method: Method) -> Tensor:
    """(B, 3, H, W) -> unit vectors (B, h, w, C)."""
    return F.normalize(method.features(method.read(visual, images), NO_TEXTS), dim=-1)


def all_weights(method: Method, reading: Reading, texts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """With which weights each patch of a reading's only window gathers from all (n, n), and from CLS (n,)."""
    h, w = method.patch_grid(reading)
    rows = [method.weights(reading, texts, Place(0, *divmod(i, w))) for i in range(h * w)]
    return torch.stack([row.patches.flatten() for row in rows]), torch.tensor([row.cls for row in rows])
