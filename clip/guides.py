"""Guides: DINO and DINOv2 ViTs, the second pair of eyes of methods that let another tower correct CLIP's attention.

Written from the architectures (DINO, arXiv:2104.14294; DINOv2, arXiv:2304.07193; registers, arXiv:2309.16588).
Parameters carry the names of the published checkpoints.

Shapes: B pictures; H, W pixels; h, w patch grid; R registers; N = 1 + R + h*w tokens, CLS first, then registers;
n = h*w patches; D tower width; d head width.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.form import HEAD_WIDTH
from clip.model import (
    LayerNorm,
    Resample,
    count_layers,
    fill,
    normal,
    resample_by_scale,
    resample_by_size_antialiased,
)
from clip.names import did_you_mean
from clip.releases import BUNDLED_GUIDES, GUIDES, available_guides
from clip.weights import Checkpoint, download, file_sha256, read_checkpoint

EPSILON = 1e-6  # of the LayerNorms
# Per-channel statistics of the guides' training pictures, RGB in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
logger = logging.getLogger(__name__)


class GuideAttention(nn.Module):
    """Multi-head self-attention whose parts can be used alone."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, D) -> queries, keys, values, heads side by side, each (B, N, D)."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention's output (B, N, D) from its parts."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class MLP(nn.Module):
    """Two layers with exact GELU between them."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GuideBlock(nn.Module):
    """x + ls1(attention(norm1(x))), then + ls2(mlp(norm2(.))); DINO has no ls1 and ls2."""

    def __init__(self, width: int, layer_scale: bool):
        super().__init__()
        self.norm1 = LayerNorm(width, EPSILON)
        self.attn = GuideAttention(width)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = LayerNorm(width, EPSILON)
        self.mlp = MLP(width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values of the block's input, each (B, N, D)."""
        return self.attn.parts(self.norm1(x))

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The block's output (B, N, D) from its input and the parts of its attention."""
        x = x + self.ls1(self.attn.attend(q, k, v))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x, *self.parts(x))


class PatchEmbed(nn.Module):
    """The convolution that makes patches."""

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)


@dataclass(frozen=True)
class GuideSizes:
    """What tells one guide from another. `registers` is None for DINO, which has no LayerScale either."""

    width: int
    depth: int
    patch_size: int
    native_grid: int
    registers: int | None = None


class Guide(nn.Module):
    """A DINO or DINOv2 ViT; `resample` carries its positional embedding to other grids."""

    def __init__(self, sizes: GuideSizes):
        super().__init__()
        width, registers = sizes.width, sizes.registers
        self.patch_size, self.native_grid, self.registers = sizes.patch_size, sizes.native_grid, registers or 0
        # DINOv2 changed how it resamples for the towers with registers only.
        self.resample: Resample = resample_by_size_antialiased if registers else resample_by_scale
        self.patch_embed = PatchEmbed(sizes.patch_size, width)
        self.cls_token = normal(1, 1, width, std=0.02)
        self.pos_embed = normal(1, sizes.native_grid**2 + 1, width, std=0.02)
        if registers:
            self.register_tokens = normal(1, registers, width, std=0.02)
        if registers is not None:
            self.mask_token = nn.Parameter(torch.zeros(1, width))  # for training only
        self.blocks = nn.ModuleList(GuideBlock(width, registers is not None) for _ in range(sizes.depth))
        self.norm = LayerNorm(width, EPSILON)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the guide computes in."""
        return self.patch_embed.proj.weight.dtype

    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pictures normalised as ImageNet's (B, 3, H, W) -> first tokens (B, N, D), and the patch grid (h, w).

        Pixels right of and below the last whole patch are dropped.

        Raises:
            ValueError: the pictures are smaller than one patch.
        """
        size = tuple(images.shape[-2:])
        if min(size) < self.patch_size:
            raise ValueError(
                f'a picture or window of {size[0]}x{size[1]} pixels is smaller than one {self.patch_size}-pixel patch '
                'of the guide; resize it, or use a larger slide_crop'
            )
        patches = self.patch_embed(images.to(self.dtype))  # (B, D, h, w)
        grid = tuple(patches.shape[-2:])
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).mT], dim=1)
        tokens = tokens + self.position(size, grid).to(tokens.dtype)
        if self.registers:  # these have no position
            cls, patches = tokens.split([1, tokens.shape[1] - 1], dim=1)
            tokens = torch.cat([cls, self.register_tokens.expand(len(tokens), -1, -1), patches], dim=1)
        return tokens, grid

    def position(self, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """The positional embedding of pictures of a size (H, W) on their grid (1, 1 + n, D)."""
        g = self.native_grid
        if grid[0] * grid[1] == g * g and size[0] == size[1]:
            return self.pos_embed
        cls, patches = self.pos_embed.float().split([1, g * g], dim=1)
        patches = self.resample(patches.mT.unflatten(2, (g, g)), *grid)  # (1, D, h, w)
        return torch.cat([cls, patches.flatten(2).mT], dim=1)

    def patches(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N, D) -> those of the patches, in their places (B, h, w, D)."""
        return tokens[:, 1 + self.registers :].unflatten(1, grid)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> all tokens after the last norm (B, N, D)."""
        x, _ = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def cast(self, dtype: torch.dtype) -> 'Guide':
        """Convert the weights to `dtype`, in place, but for the LayerNorms, which stay float32."""
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, LayerNorm):
                module.float()
        return self


def build_guide(state_dict: Mapping[str, Tensor]) -> Guide:
    """A float32 guide, in eval mode, with the sizes and the weights of a state dict.

    Raises:
        ValueError: not a DINO or DINOv2 ViT; says what is missing or superfluous.
    """
    with torch.device('meta'):
        model = Guide(_sizes(state_dict))
    return fill(model, state_dict, 'DINO or DINOv2 ViT', of='it')


def _sizes(weights: Mapping[str, Tensor]) -> GuideSizes:
    """The sizes that a state dict implies."""
    try:
        if 'blocks.0.mlp.w12.weight' in weights:
            raise ValueError('its blocks have SwiGLU, as ViT-g has; use a smaller DINOv2')
        width, _, patch_size, _ = weights['patch_embed.proj.weight'].shape
        positions = weights['pos_embed'].shape[1] - 1
        depth = count_layers(weights, 'blocks.')
        registers = weights['register_tokens'].shape[1] if 'register_tokens' in weights else 0
        has_scale = 'blocks.0.ls1.gamma' in weights
    except KeyError as error:
        raise ValueError(f'not a DINO or DINOv2 ViT: {error} is missing') from None
    except (ValueError, IndexError) as error:
        raise ValueError(f'not a DINO or DINOv2 ViT that can be read: {error}') from None
    grid = round(positions**0.5)
    if width % HEAD_WIDTH or grid * grid != positions:
        raise ValueError(
            f'not a DINO or DINOv2 ViT: its width is {width}, expected a multiple of {HEAD_WIDTH}; it has {positions} '
            'positions, expected a square'
        )
    return GuideSizes(width, depth, patch_size, grid, registers if has_scale or registers else None)


def open_guide(name_or_path: str | os.PathLike, download_root: str | os.PathLike | None = None) -> Checkpoint:
    """The checkpoint of a guide's name or a path, downloaded if need be.

    Raises:
        ValueError: neither a known name nor a file; a file that cannot be read, or a download that has changed since.
        ConnectionError: the file is not here and cannot be fetched; says from where, and where to put it.
    """
    name = os.fspath(name_or_path)
    if name in BUNDLED_GUIDES:
        return read_checkpoint(BUNDLED_GUIDES[name])
    if name in GUIDES:
        path = download(GUIDES[name], download_root)
        _keep_to(path)
        checkpoint = read_checkpoint(path)
        logger.warning(
            'guide %s: its publisher gives no SHA-256 to check; that of %s is %s', name, checkpoint.path,
            checkpoint.sha256,
        )  # fmt: skip
        return checkpoint
    path = Path(name).expanduser()
    if not path.is_file():
        choices = available_guides()
        raise ValueError(
            f'unknown guide {name!r}: neither a checkpoint file nor one of {", ".join(choices)}'
            f'{did_you_mean(name, choices)}'
        )
    return read_checkpoint(path)


def _keep_to(path: Path) -> None:
    """Note the SHA-256 of a download beside it, and keep to it: its publisher gives none.

    Raises:
        ValueError: the file is not the one that was noted.
    """
    noted, found = path.with_suffix('.sha256'), file_sha256(path)
    if not noted.is_file():
        with contextlib.suppress(OSError):  # where nobody may write, nobody changes the file either
            noted.write_text(found + '\n', encoding='utf-8')
    elif noted.read_text(encoding='utf-8').strip() != found:
        raise ValueError(
            f'{path} has changed since it was downloaded: its SHA-256 is {found}, noted in {noted.name} is another; '
            'remove both to download it again'
        )


def load_guide(
    name_or_path: str | os.PathLike,
    device: str | torch.device = 'cpu',
    dtype: torch.dtype = torch.float32,
    download_root: str | os.PathLike | None = None,
) -> tuple[Guide, Checkpoint]:
    """A guide in eval mode, and the checkpoint that it came from: file, SHA-256.

    Raises:
        ValueError: unknown name; a file that is damaged, or no DINO or DINOv2 ViT.
        ConnectionError: the weights are not here and cannot be fetched.
    """
    checkpoint = open_guide(name_or_path, download_root)
    try:
        guide = build_guide(checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(f'guide {checkpoint.path}: {error}') from None
    return guide.cast(dtype).to(device), checkpoint
