"""What OpenCLIP says of its models: open_clip_config.json, and the registry of names and tags in open_clip_torch."""

from collections.abc import Mapping
from dataclasses import dataclass

from clip.convnext import FORM as CONVNEXT_FORM
from clip.convnext import TRUNKS
from clip.form import HEAD_WIDTH, Form, Statement
from clip.tokenizer import VOCABULARY

CONFIG = 'open_clip_config.json'
WEIGHTS = ('open_clip_model.safetensors', 'open_clip_pytorch_model.bin', 'open_clip_pytorch_model.safetensors')
# Settings that change what a tower computes, with the only value that ours know.
_BLOCKS: Mapping[str, object] = {
    'ls_init_value': None,
    'final_ln_after_pool': False,
    'act_kwargs': None,
    'norm_kwargs': None,
    'block_type': None,
    'qk_norm': False,
    'scaled_cosine_attn': False,
    'scale_heads': False,
    'scale_attn_inner': False,
    'scale_attn': False,
    'scale_fc': False,
}
ONLY: Mapping[str, Mapping[str, object]] = {
    'vision_cfg': _BLOCKS
    | {
        'attentional_pool': False,
        'no_ln_pre': False,
        'pool_type': 'tok',
        'global_average_pool': False,
        'input_patchnorm': False,
    },
    'text_cfg': _BLOCKS
    | {
        'hf_model_name': None,
        'hf_tokenizer_name': None,
        'tokenizer_mode': None,
        'tokenizer_kwargs': None,
        'embed_cls': False,
        'no_causal_mask': False,
        'pool_type': 'argmax',
        'proj_bias': False,
        'proj_type': 'linear',
    },
}
# Settings that say what the weights tell, or what matters in training alone.
FREE: Mapping[str, tuple[str, ...]] = {
    'vision_cfg': (
        *('layers', 'width', 'head_width', 'mlp_ratio', 'patch_size', 'image_size', 'patch_dropout', 'pos_embed_type'),
        *('attn_pooler_queries', 'attn_pooler_heads', 'output_tokens'),
        *('timm_model_name', 'timm_model_pretrained', 'timm_pool', 'timm_proj', 'timm_proj_bias', 'timm_drop'),
        'timm_drop_path',
    ),
    'text_cfg': (
        *('context_length', 'vocab_size', 'width', 'heads', 'layers', 'mlp_ratio', 'pad_id', 'eos_id', 'output_tokens'),
        *('hf_model_pretrained', 'hf_proj_type', 'hf_pooler_type'),
    ),
    '': (
        *('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu', 'custom_text', 'init_logit_scale', 'output_dict'),
        *('nonscalar_logit_scale', 'cast_dtype', 'init_logit_bias', 'multimodal_cfg'),
    ),
}


def statement_of(model: Mapping, preprocess: Mapping, known_by: str, quick_gelu: bool | None = None) -> Statement:
    """What a model config of OpenCLIP's says; `quick_gelu` is said of the weights, and counts before the config.

    Raises:
        ValueError: the towers are others than ours, or the config is none; names what we do not have.
    """
    if not all(isinstance(model.get(key), Mapping) for key in ('vision_cfg', 'text_cfg')):
        raise ValueError('no model config of OpenCLIP: it has no vision_cfg and text_cfg')
    refuse_others(model)
    vision, text = model['vision_cfg'], model['text_cfg']
    activation = 'quick_gelu' if (model.get('quick_gelu') if quick_gelu is None else quick_gelu) else 'gelu'
    width, heads = text.get('width', 512), text.get('heads', 8)
    side = vision.get('image_size', 224)
    sides = set(side) if isinstance(side, list | tuple) else {side}
    if len(sides) > 1:
        raise ValueError(f'its image tower is made for pictures of {side} pixels, expected squares')
    (side,) = sides
    sizes = {
        'embed_dim': model.get('embed_dim'),
        'image_resolution': side,
        'context_length': text.get('context_length', 77),
        'vocab_size': text.get('vocab_size', 49408),
        'transformer_width': width,
        'transformer_layers': text.get('layers', 12),
    }
    if vision.get('timm_model_name'):
        form = Form(CONVNEXT_FORM.activation, HEAD_WIDTH, activation, width // heads)
    else:
        form = Form(activation, vision.get('head_width', HEAD_WIDTH), activation, width // heads)
        patch = vision.get('patch_size', 16)
        sizes |= {
            'vision_layers': vision.get('layers', 12),
            'vision_width': vision.get('width', 768),
            'vision_patch_size': patch[0] if isinstance(patch, list | tuple) else patch,
        }
    known = {key: tuple(preprocess[key]) for key in ('mean', 'std') if preprocess.get(key)}
    known |= {key: preprocess[key] for key in ('interpolation', 'resize_mode') if preprocess.get(key)}
    return Statement(form, known_by, sizes=sizes, **known)


def refuse_others(model: Mapping) -> None:
    """Make sure that a model config is of towers that we have.

    Raises:
        ValueError: it is not; says which tower, setting or tokenizer is missing here.
    """
    vision, text = model['vision_cfg'], model['text_cfg']
    timm = vision.get('timm_model_name')
    why = None
    if 'init_logit_bias' in model:
        why = f'a sigmoid loss, as SigLIP{f" (image tower {timm})" if timm else ""}'
    elif 'multimodal_cfg' in model:
        why = 'a text decoder, as CoCa'
    elif timm and timm not in TRUNKS.values():
        why = f"timm's {timm} as its image tower"
    elif isinstance(vision.get('layers'), list | tuple):
        why = 'a ResNet image tower'
    elif text.get('hf_model_name'):
        why = f'the text tower {text["hf_model_name"]} of Hugging Face transformers'
    elif text.get('hf_tokenizer_name'):
        why = f'the tokenizer {text["hf_tokenizer_name"]}'
    elif text.get('vocab_size', VOCABULARY) != VOCABULARY:
        why = f'a tokenizer of {text["vocab_size"]} ids, where ours has {VOCABULARY}'
    for part in ('vision_cfg', 'text_cfg', ''):
        section = model[part] if part else model
        for key, value in section.items():
            only = ONLY.get(part, {})
            if why is None and key not in FREE[part] and not (key in only and (value or None) == (only[key] or None)):
                why = f'{f"{part}." if part else ""}{key} = {value!r}'
    if why:
        raise ValueError(f'a CLIP with {why}, which this toolkit does not have; use a plain ViT')


@dataclass(frozen=True)
class Entry:
    """A model and tag of open_clip's registry: what it says, and where its weights are."""

    statement: Statement
    hub: str  # 'ORG/NAME/FILE' or 'ORG/NAME/', where the weights are on a hub
    url: str


def registry() -> dict[str, tuple[str, str]]:
    """The names and tags that the installed open_clip_torch knows, by 'NAME/TAG'; none where it is not installed."""
    try:
        import open_clip
    except ImportError:
        return {}
    return {f'{name}/{tag}': (name, tag) for name, tag in open_clip.list_pretrained()}


def entry(name: str, tag: str) -> Entry:
    """What open_clip's registry says of a name and tag that are in it.

    Whether a tower has QuickGELU belongs to the tag, that is, to the weights; a name alone may stand for both.

    Raises:
        ValueError: the towers are others than ours.
    """
    import open_clip

    config, weights = open_clip.get_model_config(name), open_clip.get_pretrained_cfg(name, tag)
    quick_gelu = bool(weights.get('quick_gelu') or config.get('quick_gelu'))
    said = statement_of(config, weights, f"open_clip's registry: {name}/{tag}", quick_gelu)
    return Entry(said, weights.get('hf_hub', ''), weights.get('url', ''))


def by_checksum(sha256: str) -> tuple[str, str] | None:
    """The name and tag of a file whose address in open_clip's registry ends with the beginning of its SHA-256."""
    try:
        import open_clip
    except ImportError:
        return None
    for name, tag in open_clip.list_pretrained():
        checksum = checksum_in(open_clip.get_pretrained_cfg(name, tag).get('url', ''))
        if checksum and sha256.startswith(checksum):
            return name, tag
    return None


def checksum_in(url: str) -> str:
    """The SHA-256, or its first eight digits, that an address of OpenAI's or OpenCLIP's has in it; '' without one."""
    folder, _, file = url.rpartition('/')
    if 'openaipublic' in url:
        return folder.rpartition('/')[2]
    return file.rpartition('.')[0].rpartition('-')[2] if 'mlfoundations' in url else ''
