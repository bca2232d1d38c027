"""Deterministic stand-in CLIP weights for parity tests.

Every tensor of an OpenAI-layout CLIP state dict is drawn from NumPy's frozen
legacy generator, seeded by the tensor's own name, so that a test can rebuild
exactly the weights under which the golden outputs beside this file were taken
without storing them. Values are representable in float16, so a loader that
passes through float16, as OpenAI's does, changes nothing.
"""

import zlib

import numpy as np
import torch


def stand_in_state_dict(
    embed_dim,
    image_resolution,
    vision_layers,
    vision_width,
    patch_size,
    context_length,
    vocab_size,
    text_width,
    text_layers,
    seed=0,
):
    """Return {name: float32 tensor} for a CLIP with a ViT image tower.

    Argument order follows the CLIP constructor; heads are width // 64.
    """
    grid = image_resolution // patch_size
    shapes = {
        'positional_embedding': (context_length, text_width),
        'text_projection': (text_width, embed_dim),
        'logit_scale': (),
        'token_embedding.weight': (vocab_size, text_width),
        'ln_final.weight': (text_width,),
        'ln_final.bias': (text_width,),
        'visual.class_embedding': (vision_width,),
        'visual.positional_embedding': (grid * grid + 1, vision_width),
        'visual.proj': (vision_width, embed_dim),
        'visual.conv1.weight': (vision_width, 3, patch_size, patch_size),
    }
    for prefix, width in (('visual.ln_pre', vision_width), ('visual.ln_post', vision_width)):
        shapes[f'{prefix}.weight'] = shapes[f'{prefix}.bias'] = (width,)
    for prefix, width, layers in (
        ('visual.transformer', vision_width, vision_layers),
        ('transformer', text_width, text_layers),
    ):
        for i in range(layers):
            block = f'{prefix}.resblocks.{i}'
            shapes |= {
                f'{block}.attn.in_proj_weight': (3 * width, width),
                f'{block}.attn.in_proj_bias': (3 * width,),
                f'{block}.attn.out_proj.weight': (width, width),
                f'{block}.attn.out_proj.bias': (width,),
                f'{block}.ln_1.weight': (width,),
                f'{block}.ln_1.bias': (width,),
                f'{block}.mlp.c_fc.weight': (4 * width, width),
                f'{block}.mlp.c_fc.bias': (4 * width,),
                f'{block}.mlp.c_proj.weight': (width, 4 * width),
                f'{block}.mlp.c_proj.bias': (width,),
                f'{block}.ln_2.weight': (width,),
                f'{block}.ln_2.bias': (width,),
            }
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name, shape, seed):
    if name == 'logit_scale':
        return torch.tensor(np.log(100.0), dtype=torch.float32)
    noise = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    if '.ln_' in name or name.startswith('ln_final'):
        value = 1 + 0.1 * noise if name.endswith('weight') else 0.1 * noise
    elif name.endswith('bias'):
        value = 0.05 * noise
    elif name == 'token_embedding.weight':
        value = 0.5 * noise
    elif name.endswith('in_proj_weight'):
        value = 2.0 * shape[-1] ** -0.5 * noise
    elif name in ('visual.proj', 'text_projection'):
        value = shape[0] ** -0.5 * noise
    elif name == 'visual.conv1.weight':
        value = (3 * shape[-1] ** 2) ** -0.5 * noise
    elif len(shape) >= 2 and 'embedding' not in name:
        value = shape[-1] ** -0.5 * noise
    else:
        value = 0.5 * noise
    return torch.from_numpy(np.asarray(value)).half().float()
