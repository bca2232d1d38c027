"""PEARL: keys are turned towards the queries before they meet; then the maps spread along the picture.

Shapes: B windows or pictures; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; C joint
width; d head width; Q names.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.method import About, Method
from naclip.methods.propagation import propagate
from naclip.walk.attention import Term, attend
from naclip.walk.gathering import Gathered, Place, gathered_by_terms
from naclip.walk.reading import Reading

TINY = 1e-6


def centred(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, heads, N, d) without their means, where patches weigh what their queries are long."""
    lengths = F.pad(q[..., 1:, :].norm(dim=-1, keepdim=True), (0, 0, 1, 0))  # (B, heads, N, 1), 0 for CLS
    weights = lengths / (lengths.sum(dim=-2, keepdim=True) + TINY)
    return q - (weights * q).sum(dim=-2, keepdim=True), k - (weights * k).sum(dim=-2, keepdim=True)


def rotation(m: Tensor, steps: int) -> Tensor:
    """Coupled Newton-Schulz steps from m (..., d, d) towards its polar factor: R (..., d, d).

    The published five end far from it, and it is with them that the published numbers were reached.
    """
    a = m.mT @ m
    size = torch.linalg.matrix_norm(a, keepdim=True)
    unit = torch.eye(m.shape[-1], device=m.device, dtype=m.dtype)
    y, z = a / size + TINY * unit, unit
    for _ in range(steps):
        t = 1.5 * unit - 0.5 * z @ y
        y, z = y @ t, t @ z
    return m @ z / size.sqrt()


def turned_terms(q: Tensor, k: Tensor, alpha: float, steps: int) -> list[Term]:
    """softmax(s q (k R)^T + alpha s k_c k_c^T), as one product of vectors that are twice as wide."""
    q_c, k_c = centred(q, k)
    turned = k @ rotation(k_c.mT @ q_c, steps)
    a, b = torch.cat([q, alpha * k_c], dim=-1), torch.cat([turned, k_c], dim=-1)  # (B, heads, N, 2d)
    return [Term(2**0.5 * a, b)]  # s is d^-1/2, not (2d)^-1/2


@dataclass(frozen=True)
class PEARL(Method):
    """softmax(s q (k R)^T + alpha s k_c k_c^T), R a rotation for each head, neither residual nor FFN; propagation.

    Raises:
        ValueError: a constant that makes no sense.
    """

    about: ClassVar[About] = About(
        title='PEARL',
        paper='arXiv:2603.21528',
        code='PGSmall/PEARL c26062b5',
        licence='none stated',
        reads="the last block's queries and keys; the picture and the texts, for its propagation",
    )
    protocol: ClassVar[str] = 'pearl'
    alpha: float = 0.08  # of the keys' own affinity; 0.3 for Cityscapes and ADE20K
    rotation_steps: int = 5
    propagate: bool = True
    grid: int = 80  # cells along each side of the picture, about; 224 for Cityscapes
    solver_steps: int = 25

    def __post_init__(self):
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f'alpha is {self.alpha}, expected a number >= 0')
        for constant, least in (('rotation_steps', 0), ('grid', 1), ('solver_steps', 0)):
            if getattr(self, constant) < least:
                raise ValueError(f'{constant} is {getattr(self, constant)}, expected a whole number >= {least}')

    def terms(self, reading: Reading) -> list[Term]:
        """Of the last block's attention; float32 as published, in any tower: five steps multiply rounding errors."""
        q, k, _ = reading.qkv(reading.depth)
        return turned_terms(q.float(), k.float(), self.alpha, self.rotation_steps)

    def tokens(self, reading: Reading) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        _, _, v = reading.qkv(reading.depth)
        y = attend(self.terms(reading), v.float())
        return reading.project(reading.block(reading.depth).attn.merge(y.to(v.dtype)))

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading))

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last block's attention; maps spread over whole pictures after that."""
        return gathered_by_terms(self.terms(reading), reading.grid, place, len(reading.windows))

    def refine(self, pictures: Tensor, maps: Tensor, texts: Tensor) -> Tensor:
        return propagate(pictures, maps, texts, self.grid, self.solver_steps) if self.propagate else maps
