"""Pictures to patch features in CLIP's joint space."""

import torch.nn.functional as F
from torch import Tensor

from clip.model import VisionTransformer
from naclip.attention import Grid, attend
from naclip.methods import Method


def dense_tokens(visual: VisionTransformer, images: Tensor, method: Method) -> tuple[Tensor, Grid]:
    """Run the tower with the method's last block.

    (B, 3, H, W) normalised pictures -> projected tokens (B, N, C), CLS first, not normalised, and the patch
    grid (h, w).
    """
    x, grid = visual.embed(images, method.resample)  # (B, N, D)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    q, k, v = last.attn.qkv(last.ln_1(x))  # (B, heads, N, d)
    terms = method.attention(q, k, v, grid, method.gaussian_std)
    y = last.attn.merge(attend(terms, v))  # (B, N, D)
    return visual.project(method.architecture(last, x, y)), grid


def patch_features(visual: VisionTransformer, images: Tensor, method: Method) -> Tensor:
    """(B, 3, H, W) -> unit vectors (B, h, w, C) of the patches, or on the method's feature grid."""
    tokens, grid = dense_tokens(visual, images, method)
    features = tokens[:, 1:].unflatten(1, grid)
    if method.feature_grid:
        planes = features.movedim(-1, 1)  # (B, C, h, w)
        features = F.interpolate(planes, method.feature_grid, mode='bilinear', align_corners=False).movedim(1, -1)
    return F.normalize(features, dim=-1)
