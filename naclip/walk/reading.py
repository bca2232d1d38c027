"""Pictures to patch features in CLIP's joint space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.convnext import ConvNeXt
from clip.model import VisionTransformer
from naclip.methods.last_block import Method, method_name
from naclip.walk.attention import Grid, attend

Tower = VisionTransformer | ConvNeXt


def check_tower(visual: Tower, method: Method) -> None:
    """Make sure that a method can read a tower.

    Raises:
        ValueError: the tower is a ConvNeXt, and the method is not PixelCLIP's.
    """
    name = method_name(method)
    if isinstance(visual, ConvNeXt) and name != 'pixelclip':
        raise ValueError(
            f'method {name} reads the blocks of a ViT, and the backbone has a ConvNeXt image tower: '
            'use --method pixelclip'
        )


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


def features(visual: Tower, images: Tensor, method: Method) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) -> unit vectors of CLS (B, C), and of the patches, or on the feature grid (B, h, w, C).

    A ConvNeXt has its feature of the whole picture instead of CLS.

    Raises:
        ValueError: the method cannot read the tower.
    """
    check_tower(visual, method)
    if isinstance(visual, ConvNeXt):
        cls, patches = visual.read(images)
    else:
        tokens, grid = dense_tokens(visual, images, method)
        cls, patches = tokens[:, 0], tokens[:, 1:].unflatten(1, grid)
    if method.feature_grid:
        planes = patches.movedim(-1, 1)  # (B, C, h, w)
        patches = F.interpolate(planes, method.feature_grid, mode='bilinear', align_corners=False).movedim(1, -1)
    return F.normalize(cls, dim=-1), F.normalize(patches, dim=-1)


def patch_features(visual: Tower, images: Tensor, method: Method) -> Tensor:
    """The second of `features`: (B, 3, H, W) -> (B, h, w, C)."""
    return features(visual, images, method)[1]


def token_affinity(visual: VisionTransformer, images: Tensor, method: Method) -> tuple[Tensor, Grid]:
    """How alike tokens are in the last block but one: (B, 3, H, W) -> (B, N, N) in float32, and the patch grid.

    The mean over q, k and v, and over the heads, of the cosines of their vectors: CLIPtrase.
    """
    x, grid = visual.embed(images, method.resample)
    *blocks, lender, _ = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    unit = F.normalize(torch.stack(lender.attn.qkv(lender.ln_1(x))).float(), dim=-1)  # (3, B, heads, N, d)
    return (unit @ unit.mT).mean(dim=(0, 2)), grid
