"""DINO's ViT-S/16, frozen, whose tokens are clustered into masks.

Written from the architecture (Caron et al., 2021, arXiv:2104.14294); parameters carry the names of its checkpoints.
B pictures; H, W pixels; h, w grid; N = 1 + h*w tokens, CLS first; D width.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip import MEAN, STD
from clip.model import count_layers, resample_by_scale
from clip.weights import DEFAULT_DOWNLOAD_ROOT, Release, download, file_sha256, read_checkpoint

logger = logging.getLogger(__name__)
URL = 'https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth'
NAME = 'dino_vits16'
TIMM_NAME = 'vit_small_patch16_224.dino'
HEAD_WIDTH = 64
IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm1(x)), then + mlp(norm2(.))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 4 * width), act=nn.GELU(), fc2=nn.Linear(4 * width, width))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class DINO(nn.Module):
    """The tower: pictures to tokens."""

    def __init__(self, width: int, patch: int, positions: int, depth: int):
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures in ImageNet's normalisation (B, 3, H, W), whole patches -> patch tokens (B, h, w, D)."""
        patches = self.patch_embed.proj(images)  # (B, D, h, w)
        grid = patches.shape[-2:]
        cls, position = self.pos_embed.split([1, self.pos_embed.shape[1] - 1], dim=1)
        g = round(position.shape[1] ** 0.5)
        if tuple(grid) != (g, g):
            planes = resample_by_scale(position.transpose(1, 2).unflatten(2, (g, g)), *grid)
            position = planes.flatten(2).transpose(1, 2)
        patches = patches.flatten(2).transpose(1, 2) + position
        x = torch.cat([(self.cls_token + cls).expand(len(patches), -1, -1), patches], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].unflatten(1, grid)


def as_dino_sees(images: Tensor, patch: int = 16) -> Tensor:
    """Pictures in CLIP's normalisation (B, 3, H, W) -> in ImageNet's, at the nearest whole patches, bilinear."""
    mean, std, own_mean, own_std = (
        images.new_tensor(values)[:, None, None] for values in (MEAN, STD, IMAGENET_MEAN, IMAGENET_STD)
    )
    size = [max(round(side / patch), 1) * patch for side in images.shape[-2:]]
    return F.interpolate((images * std + mean - own_mean) / own_std, size, mode='bilinear', align_corners=False)


def load_dino(path: str | os.PathLike = NAME, download_root: str | os.PathLike | None = None) -> DINO:
    """DINO's ViT-S/16 from its checkpoint: downloaded once under its name, or a file; frozen, in eval mode.

    The file may also be timm's of the same weights.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: no file, or not one of DINO's ViT; says why.
    """
    if os.fspath(path) == NAME:
        path = _fetched(Path(download_root or DEFAULT_DOWNLOAD_ROOT).expanduser())
    elif not Path(path).expanduser().is_file():
        raise FileNotFoundError(f'DINO weights {path}: no such file; expected one, or {NAME}')
    checkpoint = read_checkpoint(Path(path).expanduser())
    return build_dino(checkpoint.state_dict, str(path))


def _fetched(root: Path) -> Path:
    """The published file. Its publisher gives no SHA-256, so the first download's is written beside it and kept to."""
    path = root / URL.rsplit('/', 1)[-1]
    noted = path.with_suffix('.sha256')
    if not path.is_file():
        download(Release(URL, None), root)
    found = file_sha256(path)
    if not noted.is_file():
        noted.write_text(found + '\n', encoding='utf-8')
    elif noted.read_text(encoding='utf-8').strip() != found:
        raise ValueError(
            f'{path} has changed since it was downloaded: its SHA-256 is {found}, noted in {noted.name} is '
            f'another; remove both to download it again'
        )
    return path


def build_dino(weights: Mapping[str, Tensor], source: str) -> DINO:
    """The tower with the sizes and weights of a state dict.

    Raises:
        ValueError: it is not one of DINO's ViT; says what is missing or superfluous.
    """
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(('head.', 'fc.'))}
    try:
        width, _, patch, _ = weights['patch_embed.proj.weight'].shape
        tower = DINO(width, patch, weights['pos_embed'].shape[1], count_layers(weights, 'blocks.'))
        tower.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except (KeyError, ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise ValueError(
            f"{source} is not a checkpoint of DINO's ViT ({reason}): expected {URL}, or timm's {TIMM_NAME}"
        ) from None
    return tower.eval().requires_grad_(False)
