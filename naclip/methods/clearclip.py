"""ClearCLIP: the last block's attention between queries, without residual and FFN."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from clip.model import VisionTransformer
from naclip.methods.last_block import LastBlock
from naclip.methods.method import About
from naclip.walk.reading import Reading
from naclip.walk.windows import pad_centred


def padded_reading(visual: VisionTransformer, windows: Tensor) -> Reading:
    """Windows (B, 3, H, W) with zeros around them up to whole patches, which stage 6 cuts off again."""
    padded, margins = pad_centred(windows, visual.patch_size)
    return Reading(visual, padded, margins=margins)


@dataclass(frozen=True)
class ClearCLIP(LastBlock):
    """softmax(s q q^T), with neither residual nor FFN; windows are padded to whole patches."""

    about: ClassVar[About] = About(
        title='ClearCLIP',
        paper='arXiv:2407.12442, ECCV 2024',
        code='mc-lan/ClearCLIP ad68a404',
        licence='S-Lab licence',
        reads="the last block's queries",
    )
    protocol: ClassVar[str] = 'clearclip'
    attention: str = 'qq'
    architecture: str = 'reduced'

    def read(self, visual: VisionTransformer, windows: Tensor) -> Reading:
        return padded_reading(visual, windows)
