"""DINO in training: what it sees, the tokens it gives (against timm's), and files."""

import pytest
import torch

from naclip.training.dino import as_dino_sees, dino_tokens, frozen_dino, load_dino
from tests.goldens.guide_weights import dino_state_dict
from tests.naclip.training.golden import assert_near, golden, pictures


def weights() -> dict[str, torch.Tensor]:
    return dino_state_dict(depth=2, patch_size=16)


def test_tokens_are_timms():
    timm = pytest.importorskip('timm')
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=128, depth=2, num_heads=2, num_classes=0, global_pool=''
    ).eval()
    other.load_state_dict(weights())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = dino_tokens(frozen_dino(weights()), images)
        theirs = other(as_dino_sees(images))[:, 1:]
    assert ours.shape == (2, 4, 4, 128)
    torch.testing.assert_close(ours.flatten(1, 2), theirs, rtol=1e-4, atol=1e-4)


def test_pictures_off_the_native_grid():
    with torch.no_grad():
        tokens = dino_tokens(frozen_dino(weights()), torch.randn(1, 3, 90, 117))
    assert tokens.shape == (1, 6, 7, 128)  # the nearest whole patches


def test_what_it_sees():
    seen = as_dino_sees(pictures('in/images'))
    assert tuple(seen.shape) == tuple(golden()['dino/seen_shape'].tolist())
    assert_near(seen[..., ::8, ::8], 'dino/seen_every8', 2e-5)


def test_files(tmp_path):
    path = tmp_path / 'dino.pth'
    torch.save(weights() | {'head.mlp.0.weight': torch.zeros(1), 'fc.bias': torch.zeros(1)}, path)
    loaded = load_dino(path)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(dino_tokens(loaded, images), dino_tokens(frozen_dino(weights()), images))
    assert not loaded.training
    assert not [p for p in loaded.parameters() if p.requires_grad]


def test_the_published_name_is_downloaded_once(tmp_path, monkeypatch):
    calls = []

    def fetch(url, part):
        calls.append(url)
        torch.save(weights(), part)

    monkeypatch.setattr('clip.weights._fetch', fetch)
    for _ in range(2):
        assert load_dino(download_root=tmp_path).patch_size == 16
    assert [url.rsplit('/', 1)[-1] for url in calls] == ['dino_deitsmall16_pretrain.pth']


def test_other_files_are_refused(tmp_path, tiny_state_dict):
    with pytest.raises(ValueError, match=r'unknown guide .*none\.pth'):
        load_dino(tmp_path / 'none.pth')
    torch.save(tiny_state_dict, tmp_path / 'clip.pth')
    with pytest.raises(ValueError, match=r"clip\.pth: not a DINO or DINOv2 ViT.*; expected dino_vits16's file"):
        load_dino(tmp_path / 'clip.pth')
