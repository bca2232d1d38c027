"""CLIP for dense reading: OpenAI's interface (`load`, `tokenize`, `available_models`) on towers that open up.

For example: `model, preprocess = clip.load('ViT-B/16', device='cuda')`, then
`model.encode_text(clip.tokenize(['a photo of a cat.']).to('cuda'))`.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clip.convnext import ConvNeXtCLIP
    from clip.form import ACTIVATIONS, MEAN, STD
    from clip.loading import DTYPES, load, load_checkpoint, resolve_device, resolve_dtype
    from clip.model import CLIP
    from clip.releases import available_models
    from clip.tokenizer import CONTEXT_LENGTH, tokenize

__all__ = [
    'ACTIVATIONS',
    'CLIP',
    'CONTEXT_LENGTH',
    'DTYPES',
    'MEAN',
    'STD',
    'ConvNeXtCLIP',
    'available_models',
    'load',
    'load_checkpoint',
    'resolve_device',
    'resolve_dtype',
    'tokenize',
]

# The module of each name, imported on first use: command lines show names, and should not wait for PyTorch.
_MODULES: Mapping[str, str] = {
    'ACTIVATIONS': 'form',
    'CLIP': 'model',
    'CONTEXT_LENGTH': 'tokenizer',
    'DTYPES': 'loading',
    'MEAN': 'form',
    'STD': 'form',
    'ConvNeXtCLIP': 'convnext',
    'available_models': 'releases',
    'load': 'loading',
    'load_checkpoint': 'loading',
    'resolve_device': 'loading',
    'resolve_dtype': 'loading',
    'tokenize': 'tokenizer',
}


def __getattr__(name: str):
    if name in _MODULES:
        return getattr(importlib.import_module(f'clip.{_MODULES[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
