"""Weights as PixelCLIP's published checkpoints have them, which `eval.py --method pixelclip --backbone FILE` reads."""

from pathlib import Path

import torch
from torch import Tensor

from naclip.files import written_whole
from naclip.training.step import PixelCLIPTraining

FINAL = 'model_final.pth'
TEACHER = 'teacher_encoder.'
# What the published teacher has of CLIP beside its image tower; it is never used.
LEFTOVERS = (
    'positional_embedding',
    'text_projection',
    'logit_scale',
    'token_embedding.weight',
    'ln_final.weight',
    'ln_final.bias',
)


def published_state(model: PixelCLIPTraining) -> dict[str, Tensor]:
    """All weights under the published names."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    text = model.net.state_dict()
    return state | {f'{TEACHER}{name}': text[name].detach() for name in LEFTOVERS}


def write_published(model: PixelCLIPTraining, path: Path, iteration: int) -> None:
    """Write the weights to a file that is there whole or not at all."""
    with written_whole(path) as temporary:
        torch.save({'model': published_state(model), 'iteration': iteration}, temporary)


def newest_whole(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint of MMEngine's in a folder that is whole, and newer ones that are cut short."""
    broken = []
    found = [path for path in folder.glob('iter_*.pth') if path.stem.removeprefix('iter_').isdecimal()]
    for path in sorted(found, key=lambda path: int(path.stem.removeprefix('iter_')), reverse=True):
        try:
            torch.load(path, map_location='meta', weights_only=False, mmap=True)
        except (RuntimeError, EOFError, OSError):
            broken.append(path)
            continue
        return path, broken
    return None, broken
