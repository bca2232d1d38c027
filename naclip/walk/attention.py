"""Attention forms of the last block.

A form answers one question: between which vectors, with which bias, are the softmaxes taken? It maps the
block's queries, keys and values to *terms*; the attention weights are the sum of the terms' softmaxes,

    A = sum over terms of softmax(s * a b^T + bias),   s = d^-1/2,

so one description serves both the explicit weights (`attention_weights`) and the fused product with the values
(`attend`). Shapes: B pictures; h, w patch grid; N = 1 + h*w tokens, CLS first; d head width.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]


class Term(NamedTuple):
    """One softmax: vectors a and b (B, heads, N, d), and a bias that broadcasts to (B, heads, N, N), or None."""

    a: Tensor
    b: Tensor
    bias: Tensor | None = None


AttentionForm = Callable[[Tensor, Tensor, Tensor, Grid, float], list[Term]]


@lru_cache(maxsize=4)  # large grids have large biases
def gaussian_bias(grid: Grid, std: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The neighbourhood bias ω (N, N): exp(-dist² / 2σ²) between patches, 0 wherever CLS is involved.

    Distances are in patches. Source: NACLIP, arXiv:2404.08181, section 3.3.

    Raises:
        ValueError: σ is not a positive number.
    """
    if not std > 0:
        raise ValueError(f'the standard deviation of the Gaussian (gaussian_std, --std) is {std}, expected > 0')
    with torch.inference_mode(False):  # what is cached must serve everybody
        h, w = grid
        rows = torch.arange(h, dtype=torch.float32).repeat_interleave(w)
        columns = torch.arange(w, dtype=torch.float32).repeat(h)
        squared_distance = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
        return F.pad(torch.exp(-squared_distance / (2 * std**2)), (1, 0, 1, 0)).to(device, dtype)


def naclip(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s k k^T + ω): NACLIP."""
    return [Term(k, k, gaussian_bias(grid, std, k.device, k.dtype))]


def nonly(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(m ω): the neighbourhood only; m is what a logit could be, from the mean norms of the tokens."""
    norms = q.float().norm(dim=-1).mean(dim=-1) * k.float().norm(dim=-1).mean(dim=-1)  # (B, heads)
    m = q.shape[-1] ** -0.5 * norms.mean(dim=-1)  # (B,)
    nothing = torch.zeros_like(q)
    return [Term(nothing, nothing, (m[:, None, None, None] * gaussian_bias(grid, std, q.device, m.dtype)).to(q.dtype))]


def gav(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s q k^T + s ‖q_i‖ ‖k_j‖ ω_ij): NACLIP's first release."""
    norms = q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :]  # (B, heads, N, N)
    return [Term(q, k, q.shape[-1] ** -0.5 * norms * gaussian_bias(grid, std, q.device, q.dtype))]


def kk(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s k k^T)."""
    return [Term(k, k)]


def qq(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s q q^T): ClearCLIP, arXiv:2407.12442."""
    return [Term(q, q)]


def csa(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s q q^T) + softmax(s k k^T), a sum: SCLIP, arXiv:2312.01597."""
    return [Term(q, q), Term(k, k)]


def vanilla(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s q k^T): CLIP."""
    return [Term(q, k)]


def identity(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """Each token attends to itself alone, A v = v: MaskCLIP (arXiv:2112.01071), PixelCLIP."""
    nothing = torch.zeros_like(q)
    others = torch.full((q.shape[-2], q.shape[-2]), -torch.inf, device=q.device, dtype=q.dtype).fill_diagonal_(0)
    return [Term(nothing, nothing, others)]


def qkv(q: Tensor, k: Tensor, v: Tensor, grid: Grid, std: float) -> list[Term]:
    """softmax(s q q^T) + softmax(s k k^T) + softmax(s v v^T), a sum: CLIPtrase, arXiv:2407.08268."""
    return [Term(q, q), Term(k, k), Term(v, v)]


ATTENTION_FORMS: Mapping[str, AttentionForm] = {
    form.__name__: form for form in (naclip, nonly, gav, kk, csa, vanilla, identity, qkv, qq)
}


def attention_weights(terms: list[Term]) -> Tensor:
    """A (B, heads, N, N), the sum of the terms' softmaxes, written out."""
    weights = 0
    for a, b, bias in terms:
        logits = a.shape[-1] ** -0.5 * a @ b.transpose(-2, -1)
        weights = weights + torch.softmax(logits if bias is None else logits + bias, dim=-1)
    return weights


def attend(terms: list[Term], v: Tensor) -> Tensor:
    """A v (B, heads, N, d), by fused kernels that never hold A."""
    result = 0
    for a, b, bias in terms:
        result = result + F.scaled_dot_product_attention(a, b, v, attn_mask=bias)
    return result
