"""Goldens of the field's methods (tests/goldens/field_*.npz) and the pipelines that must reproduce them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clip.model import CLIP, build_model
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings
from naclip.walk.vocabulary import Vocabulary
from tests.goldens.weights import stand_in_state_dict

GOLDENS = Path(__file__).parents[2] / 'goldens'
SETTINGS = ('slide_crop', 'slide_stride', 'pamr_steps', 'logit_scale', 'prob_thd', 'area_thd')


@cache
def golden(name: str) -> dict[str, Tensor | np.ndarray]:
    """All that a golden file holds; texts stay arrays."""
    with np.load(GOLDENS / f'field_{name}.npz') as file:
        arrays = {key: file[key] for key in file.files}
    return {key: array if array.dtype.kind == 'U' else torch.from_numpy(array) for key, array in arrays.items()}


@cache
def settings(name: str) -> dict:
    """What a golden file says of itself."""
    return json.loads(str(golden(name)['settings']))


@cache
def stand_in(sizes: str) -> CLIP:
    return build_model(stand_in_state_dict(**json.loads(sizes)))


def model(name: str) -> CLIP:
    """The stand-in CLIP of a golden file, on the CPU in float32; shared, so tests leave it as it is."""
    return stand_in(json.dumps(settings(name)['tower']))


def cast_model(name: str, dtype: torch.dtype) -> CLIP:
    """The stand-in CLIP of a golden file in another dtype, made anew."""
    return build_model(stand_in_state_dict(**settings(name)['tower'])).cast(dtype)


def image(name: str, i: int) -> Tensor:
    """A normalised picture (1, 3, H, W)."""
    return golden(name)[f'image_{i}'].float()


def texts(name: str, vocabulary: str) -> Tensor:
    """The text embeddings (Q, C) of one of the golden file's vocabularies."""
    return golden(name)[f'vocab/{vocabulary}/query_features']


def classes(name: str, vocabulary: str) -> Vocabulary:
    """One of the golden file's vocabularies."""
    lines = str(golden(name)[f'vocab/{vocabulary}/lines']).splitlines()
    found = Vocabulary(tuple(tuple(part.strip() for part in line.split(',')) for line in lines))
    assert list(found.query_idx) == golden(name)[f'vocab/{vocabulary}/query_idx'].tolist()
    return found


def pipeline(
    name: str, method: Method, vocabulary: str, companions: Tensor | None = None, **options: object
) -> Pipeline:
    """The walk with a method; `options` are those of `naclip.pipeline.Settings`.

    `companions` are the text embeddings of the method's, if it has any.
    """
    embeddings = texts(name, vocabulary)
    if companions is not None:
        embeddings = torch.cat([embeddings, companions])
    return Pipeline(model(name), method, classes(name, vocabulary), embeddings, Settings(**options))


def mode_pipeline(name: str, mode: str, method: Method) -> Pipeline:
    """The walk under the settings of one of the golden file's modes; constants of the method are the caller's."""
    of_mode = settings(name)['modes'][mode]
    options = {key: of_mode[key] for key in SETTINGS if key in of_mode}
    return pipeline(name, method, of_mode['vocab'], **options)


def original_size(name: str, i: int) -> tuple[int, int]:
    """The size (H, W) that predictions of picture i have."""
    return tuple(settings(name)['ori_shape'][i])


def assert_near(ours: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within `tolerance` of the largest expected magnitude."""
    assert ours.shape == expected.shape
    assert ours.isfinite().all()
    assert (ours - expected).abs().max() <= tolerance * expected.abs().max()


def assert_predicted(name: str, key: str, labels: Tensor, probabilities: Tensor, tolerance: float = 1e-4) -> None:
    """Class probabilities (1, K, H, W) within `tolerance`, and no other label where the golden is not ambiguous."""
    file = golden(name)
    expected = file[f'{key}/label'].long()
    torch.testing.assert_close(
        probabilities[0, :, ::4, ::4], file[f'{key}/probs_every4'].float(), rtol=0, atol=tolerance
    )
    torch.testing.assert_close(
        probabilities[0].mean(dim=(1, 2)), file[f'{key}/probs_mean_hw'].float(), rtol=0, atol=tolerance
    )
    ambiguous = np.unpackbits(file[f'{key}/ambiguous'].numpy())[: expected.numel()]
    clear = torch.from_numpy(ambiguous == 0).view(expected.shape)
    assert torch.equal(labels[0, 0][clear], expected[clear])
