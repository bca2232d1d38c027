"""CLIP's own last block, patch tokens read as they are: the baseline."""

from dataclasses import dataclass
from typing import ClassVar

from naclip.methods.last_block import LastBlock
from naclip.methods.method import About


@dataclass(frozen=True)
class CLIP(LastBlock):
    """softmax(s q k^T) with residual and FFN."""

    about: ClassVar[About] = About(
        title='CLIP', paper='arXiv:2103.00020', code='openai/CLIP', licence='MIT', reads='the last block as it is'
    )
    attention: str = 'vanilla'
    architecture: str = 'vanilla'
