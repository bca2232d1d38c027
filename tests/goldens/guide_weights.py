"""Deterministic stand-in weights for guide towers (DINO, DINOv2, SAM's image encoder), for parity tests.

As weights.py: every tensor is drawn from NumPy's frozen legacy generator, seeded by the CRC-32 of its own name plus
`seed`, and is representable in float16. Names and shapes are those of the published .pth files, which are plain
{name: tensor} dicts. Heads and image size beyond the grid leave no trace in a state dict: a ViT of these files has
embed_dim // 64 heads, LayerNorm eps 1e-6, exact GELU, MLP ratio 4.
"""

import zlib

import numpy as np
import torch


def dino_state_dict(embed_dim=128, depth=12, patch_size=8, image_size=64, seed=0):
    """{name: float32 tensor} of a DINO ViT; embed_dim // 64 heads."""
    return _draw_all(_vit_shapes(embed_dim, depth, patch_size, image_size), seed)


def dinov2_state_dict(embed_dim=128, depth=4, patch_size=14, image_size=70, registers=4, seed=0):
    """{name: float32 tensor} of a DINOv2 ViT: LayerScale, a mask token, and registers where there are any."""
    shapes = _vit_shapes(embed_dim, depth, patch_size, image_size) | {'mask_token': (1, embed_dim)}
    if registers:
        shapes['register_tokens'] = (1, registers, embed_dim)
    for i in range(depth):
        shapes[f'blocks.{i}.ls1.gamma'] = shapes[f'blocks.{i}.ls2.gamma'] = (embed_dim,)
    return _draw_all(shapes, seed)


def sam_encoder_state_dict(
    embed_dim=128, depth=2, global_blocks=(1,), window=14, patch_size=16, image_size=1024, seed=0
):
    """{name: float32 tensor} of SAM's image encoder, `image_encoder.` left out, and without its neck.

    embed_dim // 64 heads; blocks not in `global_blocks` attend within windows of `window` x `window` patches.
    """
    grid = image_size // patch_size
    shapes = {
        'pos_embed': (1, grid, grid, embed_dim),
        'patch_embed.proj.weight': (embed_dim, 3, patch_size, patch_size),
        'patch_embed.proj.bias': (embed_dim,),
    }
    for i in range(depth):
        block, side = f'blocks.{i}', grid if i in global_blocks else window
        for layer, outs, ins in (('attn.qkv', 3, 1), ('attn.proj', 1, 1), ('mlp.lin1', 4, 1), ('mlp.lin2', 1, 4)):
            shapes[f'{block}.{layer}.weight'] = (outs * embed_dim, ins * embed_dim)
            shapes[f'{block}.{layer}.bias'] = (outs * embed_dim,)
        for layer in ('norm1', 'norm2'):
            shapes[f'{block}.{layer}.weight'] = shapes[f'{block}.{layer}.bias'] = (embed_dim,)
        for axis in 'hw':
            shapes[f'{block}.attn.rel_pos_{axis}'] = (2 * side - 1, 64)
    return _draw_all(shapes, seed)


def _vit_shapes(dim, depth, patch, size):
    shapes = {
        'cls_token': (1, 1, dim),
        'pos_embed': (1, (size // patch) ** 2 + 1, dim),
        'patch_embed.proj.weight': (dim, 3, patch, patch),
        'patch_embed.proj.bias': (dim,),
        'norm.weight': (dim,),
        'norm.bias': (dim,),
    }
    for i in range(depth):
        block = f'blocks.{i}'
        for layer, outs, ins in (('attn.qkv', 3, 1), ('attn.proj', 1, 1), ('mlp.fc1', 4, 1), ('mlp.fc2', 1, 4)):
            shapes[f'{block}.{layer}.weight'] = (outs * dim, ins * dim)
            shapes[f'{block}.{layer}.bias'] = (outs * dim,)
        for layer in ('norm1', 'norm2'):
            shapes[f'{block}.{layer}.weight'] = shapes[f'{block}.{layer}.bias'] = (dim,)
    return shapes


def _draw_all(shapes, seed):
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name, shape, seed):
    noise = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if name.endswith('gamma') or ('norm' in name and name.endswith('weight')):
        value = 1 + 0.1 * noise
    elif name.endswith('bias'):
        value = 0.05 * noise
    elif name.endswith('weight'):
        fan_in = int(np.prod(shape[1:]))
        value = (2.0 if 'qkv' in name else 1.0) * fan_in**-0.5 * noise
    elif 'rel_pos' in name:
        value = 0.1 * noise
    else:  # embeddings and tokens
        value = 0.5 * noise
    return torch.from_numpy(np.asarray(value)).half().float()
