"""Training the embedded CLIP, a few steps of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clip import load_checkpoint
from clip.model import CLIP
from naclip import shapes
from tools.train_shapes_clip import SIZES, contrastive_loss, image_features, main, true_captions


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
    image, text = torch.nn.functional.normalize(torch.randn(2, 4, 8, generator=generator), dim=-1)
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


def test_image_features_are_the_towers_own_unless_asked_otherwise():
    torch.manual_seed(0)
    visual = CLIP(**SIZES | dict(vocab_size=10)).visual
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = image_features(visual, images, reduced=False, hide_cls=False)
        torch.testing.assert_close(plain, torch.nn.functional.normalize(visual(images), dim=-1))
        assert not torch.allclose(plain, image_features(visual, images, reduced=True, hide_cls=False))
        assert not torch.allclose(plain, image_features(visual, images, reduced=False, hide_cls=True))
