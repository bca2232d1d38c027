"""What is said of a checkpoint's towers: by the file, by a config beside it, or by the user.

Weights do not tell a tower's activation and head width, and with others than it was trained with a tower computes
another function without any sign of it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clip import huggingface, openclip, weights
from clip.convnext import FORM as CONVNEXT_FORM
from clip.convnext import has_convnext
from clip.form import ACTIVATIONS, OPENAI, Form, Statement
from clip.layouts import is_hugging_face, unwrapped
from clip.model import OPENAI_ENTRIES
from clip.weights import Checkpoint


def statement_in(checkpoint: Checkpoint) -> Statement | None:
    """What a file says of itself, by its SHA-256, its layout, its entries or its metadata."""
    for name, release in weights.RELEASES.items():
        if checkpoint.sha256 == release.sha256:
            return Statement(OPENAI, f"the SHA-256 of OpenAI's {name}")
    names = unwrapped(checkpoint.state_dict)
    if checkpoint.pixelclip:
        form = CONVNEXT_FORM if has_convnext(names) else OPENAI
        return Statement(form, "the layout of PixelCLIP's checkpoints")
    if all(entry in names for entry in OPENAI_ENTRIES):
        return Statement(OPENAI, f"the entries {', '.join(OPENAI_ENTRIES)} of OpenAI's archives")
    if 'known_words' in checkpoint.metadata:  # as tools/train_shapes_clip.py writes it
        return Statement(OPENAI, 'the metadata of a CLIP trained on shapes')
    return None


def statement_beside(checkpoint: Checkpoint) -> Statement | None:
    """What a config beside a file says of it, or open_clip's registry of its SHA-256; else what all of its kind are."""
    folder = checkpoint.path.parent
    if is_hugging_face(unwrapped(checkpoint.state_dict)):
        if (folder / huggingface.CONFIG).is_file():
            return read_hugging_face(folder / huggingface.CONFIG, folder / huggingface.PREPROCESSOR)
    elif (folder / openclip.CONFIG).is_file():
        return read_openclip(folder / openclip.CONFIG)
    if found := openclip.by_checksum(checkpoint.sha256):
        said = openclip.entry(*found).statement
        return replace(said, known_by=f"the SHA-256 of {'/'.join(found)} in open_clip's registry")
    if has_convnext(unwrapped(checkpoint.state_dict)):
        return Statement(CONVNEXT_FORM, "the layout of OpenCLIP's ConvNeXt")
    return None


def read_openclip(path: Path) -> Statement:
    """What an open_clip_config.json says.

    Raises:
        ValueError: it cannot be read, or is of towers that we do not have.
    """
    config = read_json(path)
    model = config.get('model_cfg', config)
    try:
        return openclip.statement_of(model, config.get('preprocess_cfg') or {}, openclip.CONFIG)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    except (TypeError, ZeroDivisionError, AttributeError, IndexError) as error:
        raise ValueError(f'{path} is no config of OpenCLIP: {error}') from error


def read_hugging_face(path: Path, preprocessor: Path | None) -> Statement:
    """What a config.json says, and the preprocessor_config.json, if that is there.

    Raises:
        ValueError: one cannot be read, or is of a model that we do not have.
    """
    beside = read_json(preprocessor) if preprocessor and preprocessor.is_file() else None
    config = read_json(path)
    try:
        return huggingface.statement_of(config, beside)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    except (TypeError, ZeroDivisionError, AttributeError, IndexError) as error:
        raise ValueError(f'{path} is no config of a CLIPModel: {error}') from error


def read_json(path: Path) -> Mapping:
    """A JSON file with an object in it.

    Raises:
        ValueError: it is none.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} cannot be read: {error}') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} has a {type(content).__name__}, expected an object')
    return content


def given_form(activation: str | None, head_width: int | None, said: Statement | None) -> Form | None:
    """The form that a user gives for a source that says none; None where none is given.

    Raises:
        ValueError: a value that there is not, or another than the source says.
    """
    if activation is None and head_width is None:
        return None
    if said:
        for option, given, known in (
            ('activation', activation, said.form.activation),
            ('head width', head_width, said.form.head_width),
        ):
            if given is not None and given != known:
                raise ValueError(
                    f'its {option} is {known} by {said.known_by}, and {given} was asked for: leave out --activation '
                    'and --head-width'
                )
        return None
    form = Form(activation or OPENAI.activation, OPENAI.head_width if head_width is None else head_width)
    if activation is None or head_width is None:
        missing = '--head-width N' if head_width is None else f'--activation {"|".join(ACTIVATIONS)}'
        raise ValueError(f'its source cannot be told, so {missing} is needed, too')
    return replace(form, text_activation=activation)


def check_sizes(found: Mapping[str, int], said: Mapping[str, int | None], known_by: str) -> None:
    """Make sure that a source speaks of these weights.

    Raises:
        ValueError: sizes differ; says which.
    """
    for name, size in said.items():
        expected = size
        if name == 'image_resolution':  # pixels beyond the last whole patch are never seen
            expected = size // found['vision_patch_size'] * found['vision_patch_size']
        if size is not None and found[name] != expected:
            raise ValueError(f'its {name} is {found[name]}, and {size} by {known_by}: that is of another model')
