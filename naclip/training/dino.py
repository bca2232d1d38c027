"""DINO, frozen, whose tokens are clustered into masks: the tower of clip/guides.py, and what it sees of a picture.

B pictures; H, W pixels; h, w grid; D width.
"""

import os
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from clip import MEAN, STD
from clip.guides import IMAGENET_MEAN, IMAGENET_STD, Guide, build_guide, open_guide

NAME = 'dino_vits16'  # as published; any guide will do
TIMM_NAME = 'vit_small_patch16_224.dino'
HEADS = ('head.', 'fc.')  # what some files have beside the tower


def as_dino_sees(images: Tensor, patch: int = 16) -> Tensor:
    """Pictures in CLIP's normalisation (B, 3, H, W) -> in ImageNet's, at the nearest whole patches, bilinear."""
    mean, std, own_mean, own_std = (
        images.new_tensor(values)[:, None, None] for values in (MEAN, STD, IMAGENET_MEAN, IMAGENET_STD)
    )
    size = [max(round(side / patch), 1) * patch for side in images.shape[-2:]]
    return F.interpolate((images * std + mean - own_mean) / own_std, size, mode='bilinear', align_corners=False)


def dino_tokens(tower: Guide, images: Tensor) -> Tensor:
    """The patch tokens of pictures in CLIP's normalisation (B, 3, H, W): (B, h, w, D)."""
    seen = as_dino_sees(images, tower.patch_size)
    grid = seen.shape[-2] // tower.patch_size, seen.shape[-1] // tower.patch_size
    return tower.patches(tower(seen), grid)


def load_dino(path: str | os.PathLike = NAME, download_root: str | os.PathLike | None = None) -> Guide:
    """The tower of a guide's name, downloaded once, or of a file, DINO's own or timm's; frozen, in eval mode.

    Raises:
        ValueError: neither a known name nor a file, or not one of DINO's ViT; says why.
        ConnectionError: the weights are not here and cannot be fetched.
    """
    checkpoint = open_guide(path, download_root)
    try:
        return frozen_dino(checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}; expected {NAME}'s file, or timm's {TIMM_NAME}") from None


def frozen_dino(weights: Mapping[str, Tensor]) -> Guide:
    """The tower with the sizes and weights of a state dict, heads left out.

    Raises:
        ValueError: it is not one of DINO's ViT; says what is missing or superfluous.
    """
    tower = build_guide({name: tensor for name, tensor in weights.items() if not name.startswith(HEADS)})
    return tower.requires_grad_(False)
