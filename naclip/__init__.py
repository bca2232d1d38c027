"""Training-free open-vocabulary segmentation with CLIP: `naclip.segment('cat.jpg', 'cat; dog; grass')`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naclip.api import Segmentation, Segmenter, segment

__all__ = ['Segmentation', 'Segmenter', 'segment']


def __getattr__(name: str):
    # On first use: the command-line tools import parts of this package, and should not wait for PyTorch.
    if name in __all__:
        from naclip import api

        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
