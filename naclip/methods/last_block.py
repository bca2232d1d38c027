"""Methods that replace CLIP's last block: another attention, and what of the block is kept around it.

Shapes: B windows; h, w patch grid; N = 1 + h*w tokens, CLS first; D tower width; C joint width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from clip.model import ResidualAttentionBlock
from naclip.methods.method import Method
from naclip.names import unknown
from naclip.walk.attention import ATTENTION_FORMS, Grid, Term, attend
from naclip.walk.gathering import Gathered, Place, gathered_by_terms
from naclip.walk.reading import Reading, kept_in_reading

Architecture = Callable[[ResidualAttentionBlock, Tensor, Tensor], Tensor]
Terms = Callable[[Tensor, Tensor, Tensor, Grid], list[Term]]


def reduced(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """The attention's output y alone: neither residual nor FFN."""
    return y


def vanilla(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """CLIP's own block: residual, then FFN."""
    return block.feed_forward(x + y)


def cls_residual(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """The CLS token's residual for every token, then FFN: PixelCLIP."""
    return block.feed_forward(x[:, :1] + y)


ARCHITECTURES: Mapping[str, Architecture] = {form.__name__: form for form in (reduced, vanilla, cls_residual)}


def last_block(reading: Reading, terms: Terms, architecture: Architecture = reduced) -> Tensor:
    """The tower with another last block: projected tokens (B, N, C), CLS first, not normalised."""
    last, x = reading.block(reading.depth), reading.tokens(reading.depth - 1)  # x (B, N, D)
    q, k, v = reading.qkv(reading.depth)  # (B, heads, N, d)
    y = last.attn.merge(attend(terms(q, k, v, reading.grid), v))  # (B, N, D)
    return reading.project(architecture(last, x, y))


def last_weights(reading: Reading, terms: Terms, place: Place) -> Gathered:
    """With which weights a patch gathers in `last_block`, mean over heads: as many rows of sum 1 as there are terms."""
    q, k, v = reading.qkv(reading.depth)
    return gathered_by_terms(terms(q, k, v, reading.grid), reading.grid, place, len(q))


@dataclass(frozen=True)
class LastBlock(Method):
    """An attention form of naclip/walk/attention.py in an architecture of the last block, with σ in patches.

    Raises:
        ValueError: an unknown form or architecture (lists the valid ones), or σ <= 0.
    """

    attention: str = 'vanilla'
    architecture: str = 'vanilla'
    gaussian_std: float = 5.0

    def __post_init__(self):
        for choices, value, what in (
            (ATTENTION_FORMS, self.attention, 'attention (attn_strategy, --attn)'),
            (ARCHITECTURES, self.architecture, 'architecture (arch, --arch)'),
        ):
            if value not in choices:
                raise ValueError(unknown(what, value, choices))
        if not self.gaussian_std > 0:
            raise ValueError(f'gaussian_std is {self.gaussian_std}, expected a number > 0')

    @property
    def terms(self) -> Terms:
        """Queries, keys, values and grid of the last block -> the terms of its attention."""
        return partial(ATTENTION_FORMS[self.attention], std=self.gaussian_std)

    @kept_in_reading
    def tokens(self, reading: Reading) -> Tensor:
        """Projected tokens (B, N, C), CLS first, not normalised."""
        return last_block(reading, self.terms, ARCHITECTURES[self.architecture])

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        return reading.patches(self.tokens(reading))

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the last block's attention; what an architecture adds around it does not count."""
        return last_weights(reading, self.terms, place)
