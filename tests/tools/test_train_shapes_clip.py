"""Training the embedded CLIP, a few steps of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.random import RandomState

from clip import load_checkpoint
from clip.model import CLIP, VisionTransformer
from naclip.methods.last_block import LastBlock
from naclip.methods.naclip import NACLIP
from naclip.shapes import generator as shapes
from tests.naclip.methods.reads import dense_tokens, patch_features
from tools.train_shapes_clip import (
    KEY_LOGIT,
    SIZES,
    View,
    at_cls,
    at_cls_reduced,
    contrastive_loss,
    embed,
    image_features,
    key_penalty,
    main,
    mean_of_patches,
    true_captions,
)


@pytest.mark.slow
def test_trains_and_writes_a_checkpoint_that_clip_reads(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / 'tiny.safetensors'
    main(['--steps', '3', '--pool', '1', '--batch', '8', '--watch', '0', '--device', 'cpu', '--out', str(out)])
    model, _, checkpoint = load_checkpoint(out, 'cpu')
    assert model.visual.input_resolution == shapes.TRAIN_SIDE
    assert json.loads(checkpoint.metadata['known_words']) == sorted(shapes.CLASSES)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert [path.name for path in tmp_path.iterdir()] == ['tiny.safetensors']


def test_loss_is_that_of_clip_but_for_captions_that_are_true_as_well():
    generator = torch.Generator().manual_seed(0)
    image, text = F.normalize(torch.randn(2, 4, 8, generator=generator), dim=-1)
    only_own = torch.eye(4, dtype=torch.bool)
    logits = 5 * image @ text.T
    rows = [-logits[i].log_softmax(0)[i] for i in range(4)]
    columns = [-logits[:, i].log_softmax(0)[i] for i in range(4)]
    expected = (sum(rows) + sum(columns)) / 8
    torch.testing.assert_close(contrastive_loss(image, text, 5.0, only_own), expected)

    also = only_own.clone()
    also[1, 2] = True  # caption 2 is true of picture 1
    without = logits.clone()
    without[1, 2] = -torch.inf
    rows[1] = -without[1].log_softmax(0)[1]
    columns[2] = -without[:, 2].log_softmax(0)[2]
    expected = (sum(rows) + sum(columns)) / 8
    torch.testing.assert_close(contrastive_loss(image, text, 5.0, also), expected)


def test_a_caption_is_true_where_all_it_names_is_present():
    present = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
    named = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 1]], bool)
    expected = [[True, True, False], [False, True, False], [True, True, True]]
    assert true_captions(present, named).tolist() == expected


@pytest.fixture(scope='module')
def visual() -> VisionTransformer:
    torch.manual_seed(0)
    return CLIP(**SIZES | dict(vocab_size=10)).visual.requires_grad_(False)


@pytest.fixture(scope='module')
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def everything() -> View:
    return View(torch.arange(64), torch.arange(64))


def test_plain_reading_is_the_towers_own(visual, images, everything):
    features, _ = image_features(visual, images, at_cls, everything, hide_cls=False)
    torch.testing.assert_close(features, F.normalize(visual(images), dim=-1))
    hidden, _ = image_features(visual, images, at_cls, everything, hide_cls=True)
    assert not torch.allclose(features, hidden)


def test_dense_reading_is_naclips(visual, images, everything):
    features, _ = image_features(visual, images, mean_of_patches, everything, hide_cls=False)
    expected = patch_features(visual, images, NACLIP()).flatten(1, 2).mean(dim=1)
    torch.testing.assert_close(features, F.normalize(expected, dim=-1))


def test_reduced_reading_has_neither_residual_nor_ffn(visual, images, everything):
    features, _ = image_features(visual, images, at_cls_reduced, everything, hide_cls=False)
    tokens, _ = dense_tokens(visual, images, LastBlock('vanilla', 'reduced'))
    torch.testing.assert_close(features, F.normalize(tokens[:, 0], dim=-1))


def test_small_pictures_lie_somewhere_on_the_grid(visual):
    seen = set()
    for seed in range(50):
        view = View.random(24, visual, RandomState(seed))
        assert view.own.tolist() == list(range(9))
        rows, columns = view.places // 8, view.places % 8
        assert (rows - rows[0]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert (columns - columns[0]).tolist() == [0, 1, 2] * 3
        assert rows.max() < 8
        seen.add(int(view.places[0]))
    assert min(seen) == 0
    assert max(seen) == 5 * 8 + 5


def test_patches_of_full_pictures_are_sometimes_dropped(visual, images):
    counts = set()
    for seed in range(20):
        view = View.random(64, visual, RandomState(seed))
        assert torch.equal(view.own, view.places)
        assert len(view.own.unique()) == len(view.own)
        tokens, _ = visual.embed(images)
        torch.testing.assert_close(embed(visual, images, view), tokens[:, view.tokens])
        counts.add(len(view.own))
    assert counts == {32, 64}


def test_key_penalty_is_zero_where_keys_are_as_asked():
    directions = torch.eye(4).repeat(1, 2)[:, :4]
    keys = torch.cat([directions, -directions]) * (KEY_LOGIT * 4**0.5) ** 0.5  # (N, d), s ‖k‖² = KEY_LOGIT, mean 0
    assert key_penalty(keys[None, None]).item() == pytest.approx(0, abs=1e-6)
    assert key_penalty(1.5 * keys[None, None]).item() == pytest.approx((1.5**2 - 1) ** 2, rel=1e-4)
    assert key_penalty(keys[None, None] + 1).item() > 0.1
