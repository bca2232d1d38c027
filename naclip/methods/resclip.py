"""ResCLIP: earlier blocks' attention joins the last block's, and a first result guides a second pass.

Shapes: B windows; H, W pixels; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; C joint width; d head
width; Q names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.methods.feedback import cell_names, semantic_feedback
from naclip.methods.last_block import ARCHITECTURES
from naclip.methods.method import About, Method
from naclip.walk.attention import ATTENTION_FORMS, Term, attend
from naclip.walk.gathering import Gathered, Place, attention_row, in_window, patch_index
from naclip.walk.pamr import pamr_
from naclip.walk.reading import Reading, cosine

SCALE = 40.0  # of the first pass's cosines, as in all published settings
PAMR_STEPS, PAMR_DILATIONS = 10, (8, 16)


def earlier_terms(reading: Reading, layers: tuple[int, int]) -> list[Term]:
    """The softmaxes whose mean is A_rcs: the attention of the layers from a first to a last one.

    Raises:
        ValueError: the tower has too few blocks.
    """
    first, last = layers
    if reading.depth <= last:
        raise ValueError(
            f'ResCLIP reads the attention of blocks {first} to {last} and the last block, but the image tower has '
            f'{reading.depth} blocks: use a tower with {last + 1} or more, as ViT-B/16, or set layers below '
            f'{reading.depth}'
        )
    return [Term(*reading.qkv(layer)[:2]) for layer in range(first, last + 1)]


@torch.no_grad()  # names are chosen by them, which has no gradient
def first_probabilities(cosines: Tensor, windows: Tensor) -> Tensor:
    """The names' probabilities at the pixels of windows (B, 3, H, W), of cosines (B, Q, h, w): (B, Q, H, W)."""
    # Else the larger maps have the order of the cosines, whose names lie next to each other.
    maps = F.interpolate(cosines.contiguous(), windows.shape[-2:], mode='bilinear', align_corners=False)
    maps = pamr_(windows, maps, PAMR_STEPS, PAMR_DILATIONS)
    return torch.softmax(maps.mul_(SCALE), dim=1, out=maps)


def guided(terms: Sequence[Term], feedback: Tensor, ts: float, ls: float) -> list[Term]:
    """Terms with ts [(1 - ls) L + ls S] for their logits L, and their own biases; S (B, N, N) before the division."""
    # Published with S and ls S rounded to float16, which moves tokens by 1e-4.
    s = (feedback / feedback.amax(dim=(1, 2), keepdim=True)).half()
    pull = ts * (ls * s).float()[:, None]  # (B, 1, N, N)
    return [
        Term(ts * (1 - ls) * a, b, (pull if bias is None else pull + bias.float()).to(a.dtype)) for a, b, bias in terms
    ]


@dataclass(frozen=True)
class ResCLIP(Method):
    """A = tr [(1 - lr) A0 + lr A_rcs], A0 as in NACLIP; twice: the second time A0's logits hear of the first result.

    The logits L of A0, before its bias, are then ts [(1 - ls) L + ls S]. Subclasses have another A0.

    Raises:
        ValueError: a constant that makes no sense.
    """

    name: ClassVar[str] = 'resclip'
    about: ClassVar[About] = About(
        title='ResCLIP',
        paper='arXiv:2411.15851, CVPR 2025',
        code='yvhangyang/ResCLIP 0e085f7f',
        licence='none stated',
        reads='the attention of blocks 6 to 9; the last block, twice, with the texts in between',
    )
    protocol: ClassVar[str] = 'resclip'
    form: ClassVar[str] = 'naclip'  # of A0, one of ATTENTION_FORMS
    architecture: ClassVar[str] = 'reduced'  # of the last block, one of ARCHITECTURES
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'layers': (1, 1)}}
    lr: float = 0.4  # the share of A_rcs; this, ts, ls and temp are those of context59
    ts: float = 1.8  # scales the second pass's logits
    ls: float = 0.7  # the share of S in them
    temp: float = 0.25  # where the first pass is less sure than this, it says name 0
    tr: float = 2.0  # scales the attention
    gaussian_std: float = 5.0  # of NACLIP's ω, in patches
    layers: tuple[int, int] = (6, 9)  # first and last of the blocks of A_rcs, in a tower of twelve

    def __post_init__(self):
        for constant in ('lr', 'ls', 'temp'):
            if not 0 <= getattr(self, constant) <= 1:
                raise ValueError(f'{constant} is {getattr(self, constant)}, expected a number from 0 to 1')
        for constant in ('ts', 'tr', 'gaussian_std'):
            if not 0 < getattr(self, constant) < math.inf:
                raise ValueError(f'{constant} is {getattr(self, constant)}, expected a number > 0')

        if len(self.layers) != 2 or not 1 <= self.layers[0] <= self.layers[1]:
            raise ValueError(f'layers is {self.layers}, expected two, the first and the last')

    def tokens(self, reading: Reading, texts: Tensor) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        return self.tokens_of(reading, *self.second_pass(reading, texts))

    def second_pass(self, reading: Reading, texts: Tensor) -> tuple[list[Term], Tensor]:
        """A0's terms once they have heard of the first result, and what A_rcs gathers (B, heads, N, d)."""
        earlier = earlier_terms(
            reading, self.layers
        )  # first, so that the reading goes on from what was computed for them
        q, k, v = reading.qkv(reading.depth)  # (B, heads, N, d)
        terms = ATTENTION_FORMS[self.form](q, k, v, reading.grid, self.gaussian_std)
        of_earlier = attend(earlier, v) / len(earlier)
        cosines = cosine(reading.patches(self.tokens_of(reading, terms, of_earlier)), texts)
        probabilities = first_probabilities(cosines, reading.windows)
        names = cell_names(probabilities, self.temp, reading.visual.patch_size)
        return guided(terms, semantic_feedback(names), self.ts, self.ls), of_earlier

    def tokens_of(self, reading: Reading, terms: list[Term], of_earlier: Tensor) -> Tensor:
        """A pass's projected tokens (B, N, C), of A0's terms and what A_rcs gathers (B, heads, N, d)."""
        last, x = reading.block(reading.depth), reading.tokens(reading.depth - 1)  # x (B, N, D)
        _, _, v = reading.qkv(reading.depth)
        y = self.mix(attend(terms, v), of_earlier)
        return reading.project(ARCHITECTURES[self.architecture](last, x, last.attn.merge(y)))

    def mix(self, of_last: Tensor, of_earlier: Tensor) -> Tensor:
        """A, or what it gathers, from A0 and A_rcs, or what these gather."""
        return self.tr * ((1 - self.lr) * of_last + self.lr * of_earlier)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading, texts))

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the second pass: A0, guided by the first, and A_rcs."""
        terms, _ = self.second_pass(reading, texts)
        earlier, token = earlier_terms(reading, self.layers), 1 + patch_index(place, reading.grid)
        of_last, of_earlier = (attention_row(some, place.window, token) for some in (terms, earlier))
        row = self.mix(of_last, of_earlier / len(earlier))
        return in_window(row, reading.grid, place, len(reading.windows))


@dataclass(frozen=True)
class ResCLIPOnClearCLIP(ResCLIP):
    """ResCLIP with A0 = softmax(s q q^T)."""

    name: ClassVar[str] = 'resclip_clearclip'
    about: ClassVar[About] = replace(ResCLIP.about, title='ResCLIP on ClearCLIP')
    form: ClassVar[str] = 'qq'


@dataclass(frozen=True)
class ResCLIPOnSCLIP(ResCLIP):
    """ResCLIP with A0 = softmax(s q q^T) + softmax(s k k^T), and with residual and FFN."""

    name: ClassVar[str] = 'resclip_sclip'
    about: ClassVar[About] = replace(ResCLIP.about, title='ResCLIP on SCLIP')
    form: ClassVar[str] = 'csa'
    architecture: ClassVar[str] = 'vanilla'
