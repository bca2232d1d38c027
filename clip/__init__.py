"""CLIP for dense reading: OpenAI's interface (`load`, `tokenize`, `available_models`) on towers that open up.

For example: `model, preprocess = clip.load('ViT-B/16', device='cuda')`, then
`model.encode_text(clip.tokenize(['a photo of a cat.']).to('cuda'))`.
"""

import os
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from clip.convnext import ConvNeXtCLIP, build_convnext, has_convnext
from clip.model import CLIP, build_model
from clip.tokenizer import CONTEXT_LENGTH, tokenize
from clip.weights import Checkpoint, available_models, open_checkpoint

__all__ = ['CLIP', 'CONTEXT_LENGTH', 'DTYPES', 'MEAN', 'STD', 'available_models', 'load', 'load_checkpoint', 'tokenize']

# Per-channel statistics of CLIP's training pictures, RGB in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

DTYPES = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


def load(
    name_or_path: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = 'auto',
    download_root: str | os.PathLike | None = None,
) -> tuple[CLIP | ConvNeXtCLIP, Callable[[Image.Image], Tensor]]:
    """A CLIP model in eval mode, and the preprocessing of its training pictures.

    Args:
        name_or_path: one of `available_models()`, or a checkpoint file (TorchScript archive, torch.save'd state
            dict or .safetensors).
        device: default: CUDA where there is one, else the CPU.
        dtype: 'auto' (float16 on CUDA, float32 on the CPU), 'float32', 'float16', 'bfloat16', or a torch.dtype.
        download_root: where known names are downloaded to; default ~/.cache/clip.

    Raises:
        ValueError: unknown name or dtype; a file that is damaged, or no CLIP with a ViT or (this needs
            open_clip_torch) ConvNeXt-B image tower.
        ConnectionError: the weights are not here and cannot be fetched.
    """
    model, preprocess, _ = load_checkpoint(name_or_path, device, dtype, download_root)
    return model, preprocess


def load_checkpoint(
    name_or_path: str | os.PathLike,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = 'auto',
    download_root: str | os.PathLike | None = None,
) -> tuple[CLIP | ConvNeXtCLIP, Callable[[Image.Image], Tensor], Checkpoint]:
    """As `load`, and the checkpoint it came from: file, SHA-256, metadata."""
    device = resolve_device(device)
    checkpoint = open_checkpoint(name_or_path, download_root)
    try:
        build = build_convnext if has_convnext(checkpoint.state_dict) else build_model
        model = build(checkpoint.state_dict)
    except ValueError as error:
        raise ValueError(f'{checkpoint.path}: {error}') from None
    model = model.cast(resolve_dtype(dtype, device)).to(device)
    return model, make_preprocess(model.visual.input_resolution), checkpoint


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
        raise ValueError(f'unknown device {device!r}: choose from auto, cpu, cuda, cuda:INDEX') from None
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
        raise ValueError(f'unknown dtype {dtype!r}: choose from auto, {", ".join(DTYPES)}')
    return DTYPES[dtype]


def make_preprocess(resolution: int) -> Callable[[Image.Image], Tensor]:
    """PIL picture -> normalised (3, resolution, resolution): short side resized bicubically, centre crop."""
    return transforms.Compose(
        [
            transforms.Resize(resolution, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(resolution),
            transforms.Lambda(lambda picture: picture.convert('RGB')),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
