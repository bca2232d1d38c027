"""What config.json and preprocessor_config.json of a CLIPModel of Hugging Face transformers say."""

from collections.abc import Mapping

from clip.form import ACTIVATIONS, MEAN, STD, Form, Statement
from clip.tokenizer import VOCABULARY

CONFIG, PREPROCESSOR = 'config.json', 'preprocessor_config.json'
# As transformers looks for them: in one file, or in several, which an index names.
WEIGHTS = (
    *('model.safetensors', 'model.safetensors.index.json'),
    *('pytorch_model.bin', 'pytorch_model.bin.index.json'),
)
EPS = 1e-5  # of our LayerNorms
RESAMPLE = {2: 'bilinear', 3: 'bicubic'}  # Pillow's numbers
# What a config does not say, as transformers has it.
COMMON = {'hidden_act': 'quick_gelu', 'layer_norm_eps': EPS, 'num_hidden_layers': 12, 'projection_dim': 512}
VISION = COMMON | {'hidden_size': 768, 'num_attention_heads': 12, 'image_size': 224, 'patch_size': 32}
TEXT = COMMON | {
    'hidden_size': 512,
    'num_attention_heads': 8,
    'vocab_size': VOCABULARY,
    'max_position_embeddings': 77,
    'eos_token_id': VOCABULARY - 1,
}


def statement_of(config: Mapping, preprocessor: Mapping | None, known_by: str = CONFIG) -> Statement:
    """What the config of a CLIPModel says, and that of its preprocessor, where there is one.

    Raises:
        ValueError: the model is another, or has what our towers have not; names it.
    """
    if config.get('model_type') != 'clip':
        kind = config.get('model_type') or 'unknown'
        raise ValueError(f'{CONFIG} is of a model of type {kind!r}, which this toolkit does not have; expected a CLIP')
    vision, text = (
        usual | dict(config.get(f'{part}_config') or {}) | dict(config.get(f'{part}_config_dict') or {})
        for part, usual in (('vision', VISION), ('text', TEXT))
    )
    for part, section in (('vision', vision), ('text', text)):
        if section['hidden_act'] not in ACTIVATIONS:
            raise ValueError(
                f'the activation of its {part} tower is {section["hidden_act"]!r}, which this toolkit does not have; '
                f'known are {", ".join(ACTIVATIONS)}'
            )
        if section['layer_norm_eps'] != EPS:
            raise ValueError(f'layer_norm_eps of its {part} tower is {section["layer_norm_eps"]}, expected {EPS}')
    if text['vocab_size'] != VOCABULARY:
        raise ValueError(f'it has a tokenizer of {text["vocab_size"]} ids, where ours has {VOCABULARY}')
    if text['eos_token_id'] not in (2, VOCABULARY - 1):  # 2 stands for the highest id, in early configs
        raise ValueError(
            f'its texts are read at token {text["eos_token_id"]}, where our tokenizer ends them with {VOCABULARY - 1}'
        )
    form = Form(
        vision['hidden_act'],
        vision['hidden_size'] // vision['num_attention_heads'],
        text['hidden_act'],
        text['hidden_size'] // text['num_attention_heads'],
    )
    sizes = {
        'embed_dim': config.get('projection_dim', 512),
        'image_resolution': vision['image_size'],
        'vision_layers': vision['num_hidden_layers'],
        'vision_width': vision['hidden_size'],
        'vision_patch_size': vision['patch_size'],
        'context_length': text['max_position_embeddings'],
        'vocab_size': text['vocab_size'],
        'transformer_width': text['hidden_size'],
        'transformer_layers': text['num_hidden_layers'],
    }
    return Statement(form, known_by, sizes=sizes, **preprocessing(preprocessor or {}))


def preprocessing(config: Mapping) -> dict[str, object]:
    """How pictures are made ready, as arguments of `Statement`; what a config does not say is CLIP's.

    Raises:
        ValueError: pictures are resampled in a way that we have not.
    """
    resample = config.get('resample', 3)
    if resample not in RESAMPLE:
        raise ValueError(f'{PREPROCESSOR} has resample {resample}, expected {" or ".join(map(str, RESAMPLE))}')
    size = config.get('size')
    normalised = config.get('do_normalize', True)
    return {
        'mean': tuple(config.get('image_mean') or MEAN) if normalised else (0.0, 0.0, 0.0),
        'std': tuple(config.get('image_std') or STD) if normalised else (1.0, 1.0, 1.0),
        'interpolation': RESAMPLE[resample],
        'resize_mode': 'squash' if isinstance(size, Mapping) and 'height' in size else 'shortest',
    }
