"""Checkpoints as models that are ready to use."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clip.convnext import ConvNeXtCLIP, build_convnext, has_convnext
from clip.form import Statement
from clip.model import CLIP, build_model
from clip.names import unknown
from clip.releases import DEVICES, DTYPE_NAMES
from clip.sources import open_checkpoint
from clip.weights import Checkpoint

DTYPES = {name: getattr(torch, name) for name in DTYPE_NAMES}


def load(
    name_or_path: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = 'auto',
    download_root: str | os.PathLike | None = None,
    activation: str | None = None,
    head_width: int | None = None,
) -> tuple[CLIP | ConvNeXtCLIP, Callable[[Image.Image], Tensor]]:
    """A CLIP model in eval mode, and the preprocessing of its training pictures.

    Args:
        name_or_path: one of `available_models()`; a checkpoint file (TorchScript archive, torch.save'd state dict or
            .safetensors); 'local-dir:PATH' or 'hf-hub:ORG/NAME', with a config of OpenCLIP or Hugging Face; or
            'NAME/TAG' of OpenCLIP, where open_clip_torch is installed.
        device: default: CUDA where there is one, else the CPU.
        dtype: 'auto' (float16 on CUDA, float32 on the CPU), 'float32', 'float16', 'bfloat16', or a torch.dtype.
        download_root: where known names are downloaded to; default ~/.cache/clip.
        activation: of a file whose source cannot be told: 'quick_gelu' or 'gelu'.
        head_width: of such a file: the width of the image tower's heads (64, but 80 in ViT-H/14, 88 in g/14, 104 in
            bigG/14).

    Raises:
        ValueError: unknown name or dtype; a file that is damaged, or no CLIP with a ViT or (this needs
            open_clip_torch) ConvNeXt-B image tower; a source that cannot be told, without `activation` and
            `head_width`.
        ConnectionError: the weights are not here and cannot be fetched.
    """
    model, preprocess, _ = load_checkpoint(name_or_path, device, dtype, download_root, activation, head_width)
    return model, preprocess


def load_checkpoint(
    name_or_path: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = 'auto',
    download_root: str | os.PathLike | None = None,
    activation: str | None = None,
    head_width: int | None = None,
) -> tuple[CLIP | ConvNeXtCLIP, Callable[[Image.Image], Tensor], Checkpoint]:
    """As `load`, and the checkpoint it came from: file, SHA-256, metadata, and what its source says of it."""
    device = resolve_device(device)
    checkpoint = open_checkpoint(name_or_path, download_root, activation, head_width)
    said = checkpoint.statement
    try:
        build = build_convnext if has_convnext(checkpoint.state_dict) else build_model
        model = build(checkpoint.state_dict, said.form)
    except ValueError as error:
        raise ValueError(f'{checkpoint.path}: {error}') from None
    if said.sizes and said.sizes.get('image_resolution'):
        model.visual.input_resolution = said.sizes['image_resolution']
    model = model.cast(resolve_dtype(dtype, device)).to(device)
    return model, Preprocess(model.visual.input_resolution, said), checkpoint


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The torch.device of a name; of None and 'auto': CUDA where there is one, else the CPU.

    Raises:
        ValueError: unknown, or not there.
    """
    if device is None or device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(unknown('device', device, DEVICES)) from None
    if resolved.type == 'cuda' and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {device}: there are {torch.cuda.device_count()} CUDA devices here; use cpu')
    return resolved


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The torch.dtype that a name stands for on a device.

    Raises:
        ValueError: unknown name; lists the valid ones.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == 'auto':
        return torch.float16 if device.type == 'cuda' else torch.float32
    if dtype not in DTYPES:
        raise ValueError(unknown('dtype', dtype, ['auto', *DTYPES]))
    return DTYPES[dtype]


@dataclass(frozen=True)
class Preprocess:
    """PIL picture -> normalised (3, resolution, resolution), as the source of the weights says.

    As a rule the short side is resized bicubically, and the centre cut out. The arithmetic is torchvision's.
    """

    resolution: int
    said: Statement

    def __call__(self, picture: Image.Image) -> Tensor:
        side, size = self.resolution, [self.resolution] * 2
        if self.said.resize_mode == 'shortest':
            size = [int(side * length / min(picture.size)) for length in picture.size]
        resized = picture.resize(size, Image.Resampling[self.said.interpolation.upper()])
        left, top = (round((length - side) / 2) for length in size)
        middle = resized.crop((left, top, left + side, top + side)).convert('RGB')
        pixels = torch.from_numpy(np.array(middle)).permute(2, 0, 1).contiguous().float() / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.said.mean, self.said.std))
        return (pixels - mean) / std
