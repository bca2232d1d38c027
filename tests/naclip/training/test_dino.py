"""DINO's ViT-S/16: against timm's, what it sees, and files."""

import pytest
import torch

from clip.weights import Release
from naclip.training import dino as module
from naclip.training.dino import DINO, as_dino_sees, build_dino, load_dino
from tests.naclip.training.golden import assert_near, golden, pictures


@pytest.fixture(scope='module')
def tower() -> DINO:
    torch.manual_seed(0)
    tower = DINO(128, 16, 17, 2)
    for parameter in tower.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return tower.eval()


def test_it_is_timms(tower):
    timm = pytest.importorskip('timm')
    other = timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=128, depth=2, num_heads=2, num_classes=0, global_pool=''
    ).eval()
    other.load_state_dict(tower.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(tower(images).flatten(1, 2), other(images)[:, 1:], rtol=1e-4, atol=1e-4)


def test_pictures_off_the_native_grid(tower):
    with torch.no_grad():
        tokens = tower(torch.randn(1, 3, 96, 112))
    assert tokens.shape == (1, 6, 7, 128)


def test_what_it_sees():
    seen = as_dino_sees(pictures('in/images'))
    assert tuple(seen.shape) == tuple(golden()['dino/seen_shape'].tolist())
    assert_near(seen[..., ::8, ::8], 'dino/seen_every8', 2e-5)


def test_files(tower, tmp_path, monkeypatch):
    path = tmp_path / 'dino.pth'
    torch.save(tower.state_dict() | {'head.mlp.0.weight': torch.zeros(1)}, path)
    loaded = load_dino(path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(images), tower(images))
    assert not [p for p in loaded.parameters() if p.requires_grad]

    # The download under its name: whatever arrives first is kept to.
    def fetch(release: Release, root):
        (root / release.file_name).write_bytes(path.read_bytes())

    monkeypatch.setattr(module, 'download', fetch)
    load_dino(download_root=tmp_path)
    load_dino(download_root=tmp_path)
    (tmp_path / 'dino_deitsmall16_pretrain.pth').write_bytes(b'other')
    with pytest.raises(ValueError, match='has changed since it was downloaded'):
        load_dino(download_root=tmp_path)


def test_other_files_are_refused(tmp_path, tiny_state_dict):
    with pytest.raises(FileNotFoundError, match='no such file'):
        load_dino(tmp_path / 'none.pth')
    with pytest.raises(ValueError, match="not a checkpoint of DINO's ViT"):
        build_dino(tiny_state_dict, 'clip.pth')
