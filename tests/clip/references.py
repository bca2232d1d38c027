"""Small towers of other libraries, built at random, as files with their configs."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

TEXTS = ['a cat', '', 'a photo of a very nice dog on the grass, in the sun, beside two other dogs', 'sky.']
# Shapes of ViT-B/32, B/16, L/14, H/14, g/14 and bigG/14, made smaller: patches, heads and FFNs are theirs.
SHAPES = {
    'B/32': dict(patch_size=32, head_width=64),
    'B/16': dict(patch_size=16, head_width=64),
    'L/14': dict(patch_size=14, head_width=64),
    'H/14': dict(patch_size=14, head_width=80),
    'g/14': dict(patch_size=14, head_width=88, mlp_ratio=4.3637),
    'bigG/14': dict(patch_size=14, head_width=104, mlp_ratio=4.9231),
}


def shake(model: nn.Module) -> nn.Module:
    """A model in which nothing stays 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def pictures(side: int) -> Tensor:
    """(2, 3, side, side)"""
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def openclip_config(shape: str, quick_gelu: bool = False, layers: int = 2) -> dict:
    """A model config of OpenCLIP's."""
    vision = dict(SHAPES[shape], layers=layers)
    vision |= dict(width=2 * vision['head_width'], image_size=4 * vision['patch_size'])
    text = dict(context_length=77, vocab_size=49408, width=128, heads=2, layers=2)
    return dict(embed_dim=64, quick_gelu=quick_gelu, vision_cfg=vision, text_cfg=text)


def openclip_model(config: dict) -> nn.Module:
    open_clip = pytest.importorskip('open_clip')
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shake(open_clip.CLIP(**config))


def write_openclip(folder: Path, model: nn.Module, config: dict, preprocess: dict | None = None) -> Path:
    """As a repository of OpenCLIP's; returns the file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'open_clip_model.safetensors'
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    content = dict(model_cfg=config, preprocess_cfg=preprocess or {})
    (folder / 'open_clip_config.json').write_text(json.dumps(content))
    return path


def hugging_face_model(head_width: int = 64, activation: str = 'quick_gelu', patch: int = 16) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    shared = dict(num_hidden_layers=2, num_attention_heads=2, hidden_act=activation, projection_dim=64)
    vision = dict(
        shared, hidden_size=2 * head_width, intermediate_size=8 * head_width, image_size=4 * patch, patch_size=patch
    )
    text = dict(shared, hidden_size=128, intermediate_size=512)
    config = transformers.CLIPConfig(projection_dim=64, vision_config=vision, text_config=text)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return shake(transformers.CLIPModel(config))


def write_hugging_face(folder: Path, model: nn.Module, preprocessor: dict | None = None) -> Path:
    """As a repository of Hugging Face's; returns the file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'model.safetensors'
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    (folder / 'config.json').write_text(json.dumps(model.config.to_dict(), default=str))
    if preprocessor:
        (folder / 'preprocessor_config.json').write_text(json.dumps(preprocessor))
    return path
