"""State dicts as other projects write them, under OpenAI's names.

D tower width; C joint width.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

WRAPPERS = ('module.', '_orig_mod.', 'model.', 'clip_model.', 'clip.')  # what training puts before all names
# Names that are in no tower we have -> what has them, in words.
FOREIGN: Mapping[str, str] = {
    r'logit_bias$': 'a sigmoid loss, as SigLIP',
    r'text_decoder\.': 'a text decoder, as CoCa',
    r'text_model\.head\.|vision_model\.head\.': 'a pooling head, as SigLIP',
    r'visual\.attn_pool\.': 'an attentional pooling, as CoCa',
    r'visual\.trunk\.blocks\.': "a ViT of timm's as its image tower, as SigLIP, EVA02 or ViTamin",
    r'visual\.blocks\.': 'an EVA image tower',
    r'visual\.image_encoder\.|image_encoder\.': 'a MobileCLIP image tower',
    r'visual\.stages\.|visual\.layers\.': 'a hierarchical image tower',
    r'text\.transformer\.(embeddings|encoder|word_embedding|shared)': 'a text tower of Hugging Face transformers',
    r'bert\.': 'a BERT text tower',
    r'.*\.resblocks\.\d+\.(ls_1|ls_2)\.': 'layer scale in its blocks',
    r'.*\.resblocks\.\d+\.(attn\.ln_q|ln_attn|attn\.logit_scale|mlp\.ln)': 'attention blocks of another kind',
}
# Hugging Face's names of a CLIPModel -> OpenAI's.
HUGGING_FACE: Mapping[str, str] = {
    r'text_model\.embeddings\.token_embedding\.weight': 'token_embedding.weight',
    r'text_model\.embeddings\.position_embedding\.weight': 'positional_embedding',
    r'text_model\.final_layer_norm\.(weight|bias)': r'ln_final.\1',
    r'vision_model\.embeddings\.class_embedding': 'visual.class_embedding',
    r'vision_model\.embeddings\.patch_embedding\.weight': 'visual.conv1.weight',
    r'vision_model\.embeddings\.position_embedding\.weight': 'visual.positional_embedding',
    r'vision_model\.pre_layrnorm\.(weight|bias)': r'visual.ln_pre.\1',
    r'vision_model\.post_layernorm\.(weight|bias)': r'visual.ln_post.\1',
    r'(text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)': r'\1 \2 attn.out_proj.\3',
    r'(text|vision)_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)': r'\1 \2 ln_\3.\4',
    r'(text|vision)_model\.encoder\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)': r'\1 \2 mlp.c_fc.\3',
    r'(text|vision)_model\.encoder\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)': r'\1 \2 mlp.c_proj.\3',
}
TURNED = {'text_projection.weight': 'text_projection', 'visual_projection.weight': 'visual.proj'}  # (C, D), not (D, C)
PROJECTION = re.compile(r'(text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)')
BLOCKS = {'text': 'transformer.resblocks', 'vision': 'visual.transformer.resblocks'}


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what data-parallel training, compilation or a model around it put before all names."""
    weights = {str(name): tensor for name, tensor in weights.items()}
    while prefix := next((p for p in WRAPPERS if weights and all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


def is_hugging_face(weights: Mapping[str, Tensor]) -> bool:
    """Whether names are those of a CLIPModel of Hugging Face transformers."""
    return any(name.startswith('vision_model.') for name in weights)


def refuse_foreign(weights: Mapping[str, Tensor]) -> None:
    """Make sure that nothing in a state dict tells of a tower that we do not have.

    Raises:
        ValueError: it does; says of which.
    """
    for pattern, what in FOREIGN.items():
        found = next((name for name in weights if re.match(pattern, name)), None)
        if found:
            raise ValueError(
                f'a CLIP with {what} ({found}), which this toolkit does not have; use one with a plain ViT'
            )


def openai_layout(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of OpenCLIP, Hugging Face or a training under OpenAI's names; anything unknown keeps its name.

    Raises:
        ValueError: it is of a tower that we do not have, or queries, keys and values are not all there.
    """
    weights = unwrapped(weights)
    refuse_foreign(weights)
    if is_hugging_face(weights):
        weights = from_hugging_face(weights)
    elif 'text.token_embedding.weight' in weights:  # OpenCLIP's CustomTextCLIP
        weights = {name.removeprefix('text.'): tensor for name, tensor in weights.items()}
    scale = weights.get('logit_scale')
    if scale is not None and scale.numel() == 1:
        weights['logit_scale'] = scale.reshape(())
    return weights


def from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a CLIPModel under OpenAI's names: queries, keys and values together, projections turned.

    Raises:
        ValueError: queries, keys and values are not all there.
    """
    result = {}
    for name, tensor in weights.items():
        if name.endswith('.position_ids') or re.search(r'\.self_attn\.[kv]_proj\.', name):
            continue  # numbers that count up; and those that go with the queries
        if match := PROJECTION.fullmatch(name):
            parts = [name.replace('q_proj', f'{letter}_proj') for letter in 'qkv']
            if missing := [part for part in parts if part not in weights]:
                raise ValueError(f'not a CLIPModel: {missing[0]} is missing')
            joined = torch.cat([weights[part] for part in parts])
            result[f'{BLOCKS[match[1]]}.{match[2]}.attn.in_proj_{match[3]}'] = joined
        elif name in TURNED:
            result[TURNED[name]] = tensor.T.contiguous()
        else:
            result[_renamed(name)] = tensor
    return result


def _renamed(name: str) -> str:
    for pattern, ours in HUGGING_FACE.items():
        if match := re.fullmatch(pattern, name):
            tower, *rest = match.expand(ours).split(' ')
            return '.'.join([BLOCKS[tower], *rest]) if rest else tower
    return name
