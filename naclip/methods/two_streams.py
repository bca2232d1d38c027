"""A second stream of tokens beside the tower's last blocks: GEM and CLIP Surgery.

Shapes: B windows; N = 1 + h*w tokens, CLS first; D tower width; d head width.
"""

from collections.abc import Callable

from torch import Tensor

from naclip.walk.reading import Reading

# Queries, keys and values (B, heads, N, d), and the normed tokens (B, N, D) they come from -> (B, heads, N, d).
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def two_streams(reading: Reading, attend: Attend, depth: int) -> Tensor:
    """The sum of the input of the last `depth` blocks and of each one's other attention: tokens (B, N, D).

    The blocks are fed by the original stream; the new one gathers what `attend` makes of them, without FFN.
    """
    first = reading.depth - depth
    stream = reading.tokens(first)
    for layer in range(first + 1, reading.depth + 1):
        stream = stream + stream_step(reading, attend, layer)
    return stream


def stream_step(reading: Reading, attend: Attend, layer: int) -> Tensor:
    """What a layer adds to the second stream (B, N, D): its other attention, projected."""
    q, k, v = reading.qkv(layer)
    return reading.block(layer).attn.merge(attend(q, k, v, reading.normed(layer)))
