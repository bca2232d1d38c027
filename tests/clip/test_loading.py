"""Pictures are made ready as torchvision makes them."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

import clip
from clip.form import OPENAI, Statement
from clip.loading import DTYPES, Preprocess
from clip.releases import DTYPE_NAMES


def reference(resolution: int, said: Statement) -> transforms.Compose:
    """CLIP's own chain of steps."""
    size = resolution if said.resize_mode == 'shortest' else (resolution, resolution)
    return transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode(said.interpolation)),
            transforms.CenterCrop(resolution),
            transforms.Lambda(lambda picture: picture.convert('RGB')),
            transforms.ToTensor(),
            transforms.Normalize(said.mean, said.std),
        ]
    )


@settings(max_examples=80)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.integers(1, 64),
    st.sampled_from(['RGB', 'L', 'RGBA', 'P', '1']),
    st.sampled_from(['shortest', 'squash']),
    st.sampled_from(['bicubic', 'bilinear']),
)
def test_as_torchvision(size: tuple[int, int], resolution: int, mode: str, resize_mode: str, interpolation: str):
    pixels = np.random.RandomState(sum(size)).randint(0, 256, (*size, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).convert(mode)
    said = Statement(OPENAI, 'a test', (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), interpolation, resize_mode)
    seen = Preprocess(resolution, said)(picture)
    assert seen.dtype == torch.float32
    assert seen.is_contiguous()
    torch.testing.assert_close(seen, reference(resolution, said)(picture), rtol=0, atol=0)


def test_goes_to_workers():
    """It can be pickled, which a chain with a lambda cannot."""
    _, preprocess = clip.load('shapes', 'cpu')
    picture = Image.new('RGB', (70, 50), (9, 99, 200))
    again = pickle.loads(pickle.dumps(preprocess))
    torch.testing.assert_close(again(picture), preprocess(picture), rtol=0, atol=0)


@pytest.mark.parametrize('name', DTYPE_NAMES)
def test_dtypes_are_named(name: str):
    assert clip.resolve_dtype(name, torch.device('cpu')) is DTYPES[name] is getattr(torch, name)
