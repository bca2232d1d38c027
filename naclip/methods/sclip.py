"""SCLIP: correlative self-attention."""

from dataclasses import dataclass
from typing import ClassVar

from naclip.methods.last_block import LastBlock
from naclip.methods.method import About


@dataclass(frozen=True)
class SCLIP(LastBlock):
    """softmax(s q q^T) + softmax(s k k^T), a sum, with residual and FFN."""

    about: ClassVar[About] = About(
        title='SCLIP',
        paper='arXiv:2312.01597, ECCV 2024',
        code='wangf3014/SCLIP',
        licence='see there',
        reads="the last block's queries and keys",
    )
    protocol: ClassVar[str] = 'sclip'
    attention: str = 'csa'
    architecture: str = 'vanilla'
