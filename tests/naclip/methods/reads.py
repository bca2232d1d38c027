"""Readings in one call."""

import torch.nn.functional as F
from torch import Tensor

from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.walk.attention import Grid
from naclip.walk.reading import Tower

NO_TEXTS = None  # for features that do not depend on texts


def dense_tokens(visual: Tower, images: Tensor, method: LastBlock) -> tuple[Tensor, Grid]:
    """(B, 3, H, W) -> projected tokens (B, N, C), CLS first, not normalised, and the patch grid."""
    reading = method.read(visual, images)
    return method.tokens(reading), reading.grid


def patch_features(visual: Tower, images: Tensor, method: Method) -> Tensor:
    """(B, 3, H, W) -> unit vectors (B, h, w, C)."""
    return F.normalize(method.features(method.read(visual, images), NO_TEXTS), dim=-1)
