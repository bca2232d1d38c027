"""NACLIP: each patch attends to similar patches in its neighbourhood."""

from dataclasses import dataclass
from typing import ClassVar

from naclip.methods.last_block import LastBlock
from naclip.methods.method import About


@dataclass(frozen=True)
class NACLIP(LastBlock):
    """softmax(s k k^T + ω), ω a Gaussian around each patch; neither residual nor FFN; PAMR after it."""

    about: ClassVar[About] = About(
        title='NACLIP',
        paper='arXiv:2404.08181, WACV 2025',
        code='sinahmr/NACLIP',
        licence='see there',
        reads="the last block's keys, and where patches are",
    )
    pamr: ClassVar[bool] = True
    attention: str = 'naclip'
    architecture: str = 'reduced'
