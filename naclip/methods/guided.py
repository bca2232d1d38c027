"""What methods that are guided by another tower have in common: its weights gather CLIP's last values.

Shapes: B windows; h, w a patch grid; n = h*w patches; D width of CLIP's tower; C joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.model import ResidualAttentionBlock
from naclip.walk.attention import Grid
from naclip.walk.reading import Reading


def values(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """The values that a block's attention takes of its input (B, N, D), heads side by side (B, N, D)."""
    attention, width = block.attn, x.shape[-1]
    of_values = slice(2 * width, 3 * width)
    weight, bias = attention.in_proj_weight[of_values], attention.in_proj_bias[of_values]
    return F.linear(block.ln_1(x), weight, bias)


def to_grid(tokens: Tensor, source: Grid, target: Grid) -> Tensor:
    """Patches (B, n, D) of one grid, on another, bilinear: (B, m, D)."""
    if source == target:
        return tokens
    planes = tokens.mT.unflatten(2, source)
    return F.interpolate(planes, target, mode='bilinear', align_corners=False).flatten(2).mT


def gather(reading: Reading, x: Tensor, weights: Tensor, grid: Grid) -> Tensor:
    """CLIP's last attention with weights on another grid: O(A up(v(x))), no residual, no FFN.

    x (B, N, D), CLS first, is what enters the last block; weights (B, m, m) are those of all heads; (B, m, D).
    """
    last = reading.block(reading.depth)
    v = to_grid(values(last, x)[:, 1:], reading.grid, grid)
    return last.attn.out_proj(weights.to(v.dtype) @ v)


def unit_similarity(features: Tensor) -> Tensor:
    """Cosines of all pairs of a guide's patches (B, h, w, D): (B, n, n), float32."""
    unit = F.normalize(features.flatten(1, 2).float(), dim=-1)
    return unit @ unit.mT


def softmax_of(logits: Tensor, allowed: Tensor) -> Tensor:
    """Row softmax over allowed pairs (B, n, n); a patch may always attend to itself, so that no row is empty."""
    itself = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return torch.softmax(logits.masked_fill(~(allowed | itself), -torch.inf), dim=-1)
