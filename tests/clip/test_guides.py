"""DINO and DINOv2 ViTs: against timm's on random weights; loading, by name and by file; what is refused."""

import pytest
import torch
from safetensors.torch import save_file

from clip import guides
from clip.guides import Guide, GuideSizes, available_guides, build_guide, load_guide
from tests.goldens.guide_weights import dino_state_dict, dinov2_state_dict

timm = pytest.importorskip('timm')


def of_timm(weights, patch_size, native, **options):
    """timm's ViT with the weights of a checkpoint in the published layout."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    depth = len({name.split('.')[1] for name in weights if name.startswith('blocks.')})
    width = weights['cls_token'].shape[-1]
    tower = VisionTransformer(
        img_size=native,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=width // 64,
        num_classes=0,
        global_pool='',
        **options,
    ).eval()
    tower.load_state_dict(checkpoint_filter_fn(dict(weights), tower))
    return tower


@pytest.mark.parametrize('patch_size', [8, 16])
@torch.no_grad()
def test_dino_as_timm(patch_size):
    weights = dino_state_dict(depth=3, patch_size=patch_size)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = of_timm(weights, patch_size, 64)(images)
    torch.testing.assert_close(build_guide(weights)(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('registers', [0, 4])
@torch.no_grad()
def test_dinov2_as_timm(registers):
    weights = dinov2_state_dict(registers=registers)
    images = torch.randn(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    options = dict(init_values=1.0, reg_tokens=registers, no_embed_class=registers > 0)
    tower = of_timm(weights, 14, 70, **options)
    torch.testing.assert_close(build_guide(weights)(images), tower(images), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_positions_off_the_native_grid():
    """Towers with registers resample to a size, antialiased; the others with scale factors; both by hand."""
    from torch.nn.functional import interpolate

    dino, v2, plain = (
        build_guide(weights)
        for weights in (dino_state_dict(depth=1), dinov2_state_dict(depth=1), dinov2_state_dict(depth=1, registers=0))
    )
    for guide, size in ((dino, (56, 112)), (plain, (98, 56)), (v2, (98, 56))):
        g, p = guide.native_grid, guide.patch_size
        grid = (size[0] // p, size[1] // p)
        patches = guide.pos_embed[:, 1:].reshape(1, g, g, -1).permute(0, 3, 1, 2)
        if guide.registers:
            expected = interpolate(patches, size=grid, mode='bicubic', antialias=True)
        else:
            scale = ((grid[0] + 0.1) / g, (grid[1] + 0.1) / g)
            expected = interpolate(patches, scale_factor=scale, mode='bicubic')
        ours = guide.position(size, grid)
        torch.testing.assert_close(ours[0, 1:], expected[0].flatten(1).T, rtol=1e-5, atol=1e-5)
        assert torch.equal(ours[:, 0], guide.pos_embed[:, 0])


def test_positions_are_kept_only_for_square_pictures_of_the_native_grid():
    guide = build_guide(dino_state_dict(depth=1))
    assert guide.position((64, 64), (8, 8)) is guide.pos_embed
    assert guide.position((69, 69), (8, 8)) is guide.pos_embed
    assert not torch.equal(guide.position((64, 69), (8, 8)), guide.pos_embed)
    assert guide.position((32, 128), (4, 16)).shape == guide.pos_embed.shape


@torch.no_grad()
def test_a_remainder_is_dropped():
    guide = build_guide(dino_state_dict(depth=2))
    images = torch.randn(1, 3, 70, 61)
    tokens, grid = guide.embed(images)
    assert grid == (8, 7)
    assert tokens.shape == (1, 57, 128)
    assert torch.equal(tokens, guide.embed(images[..., :64, :56])[0])


def test_smaller_than_a_patch():
    with pytest.raises(ValueError, match=r'5x40 pixels is smaller than one 8-pixel patch of the guide'):
        build_guide(dino_state_dict(depth=1)).embed(torch.zeros(1, 3, 5, 40))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_file_by_path(tmp_path, suffix):
    path = tmp_path / f'guide{suffix}'
    weights = dinov2_state_dict(depth=1)
    save_file(weights, path) if suffix == '.safetensors' else torch.save(weights, path)
    guide, checkpoint = load_guide(path, dtype=torch.bfloat16)
    assert guide.dtype == torch.bfloat16
    assert guide.norm.weight.dtype == torch.float32
    assert not guide.training
    assert checkpoint.sha256 == guides.read_checkpoint(path).sha256
    assert torch.equal(guide.register_tokens.float(), weights['register_tokens'].bfloat16().float())


def test_known_names_are_downloaded_once(tmp_path, monkeypatch, caplog):
    calls = []

    def fetch(url, part):
        calls.append(url)
        torch.save(dino_state_dict(depth=1), part)

    monkeypatch.setattr('clip.weights._fetch', fetch)
    for _ in range(2):
        guide, checkpoint = load_guide('dino_vitb8', download_root=tmp_path)
    assert calls == ['https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth']
    assert checkpoint.path == tmp_path / 'dino_vitbase8_pretrain.pth'
    assert guide.patch_size == 8
    assert f'gives no SHA-256 to check; that of {checkpoint.path} is {checkpoint.sha256}' in caplog.text


def test_a_download_that_has_changed_since_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('clip.weights._fetch', lambda url, part: torch.save(dino_state_dict(depth=1), part))
    _, checkpoint = load_guide('dino_vitb8', download_root=tmp_path)
    assert checkpoint.path.with_suffix('.sha256').read_text().strip() == checkpoint.sha256
    torch.save(dino_state_dict(depth=1, seed=1), checkpoint.path)
    with pytest.raises(ValueError, match=r'vitbase8_pretrain\.pth has changed since it was downloaded') as error:
        load_guide('dino_vitb8', download_root=tmp_path)
    assert '\n' not in str(error.value)


def test_what_cannot_be_reached(tmp_path, monkeypatch):
    def fetch(url, part):
        raise OSError('no route')

    monkeypatch.setattr('clip.weights._fetch', fetch)
    with pytest.raises(ConnectionError, match=r'cannot download https://dl\.fbai.*put it at .*vitbase16_pretrain\.pth'):
        load_guide('dino_vitb16', download_root=tmp_path)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown guide 'dino': neither a checkpoint file nor one of dino_vits16, "):
        load_guide('dino')
    for name, meant in (('dino_vitb61', 'dino_vitb16'), ('DINOv2_ViTB14', 'dinov2_vitb14'), ('shape', 'shapes')):
        with pytest.raises(ValueError, match=rf'; did you mean {meant}\?$'):
            load_guide(name)
    assert {'dino_vitb8', 'dino_vitb16', 'dinov2_vitb14_reg', 'shapes'} <= set(available_guides())


class Evil:
    def __reduce__(self):
        return print, ('code was run',)


def test_pickles_run_no_code(tmp_path, capsys):
    torch.save({'cls_token': Evil()}, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match=r'cannot read the checkpoint .*evil\.pth'):
        load_guide(tmp_path / 'evil.pth')
    assert 'code was run' not in capsys.readouterr().out


def without(name):
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without('patch_embed.proj.weight'), r"'patch_embed\.proj\.weight' is missing"),
        (without('blocks.0.attn.qkv.bias'), r'blocks\.0\.attn\.qkv\.bias is missing'),
        (lambda w: w | {'head.weight': torch.zeros(1)}, r'head\.weight is not part of it'),
        (lambda w: w | {'norm.bias': torch.zeros(1)}, r'norm\.bias has shape \(1,\), expected \(128,\)'),
        (lambda w: w | {'pos_embed': torch.zeros(1, 64, 128)}, r'it has 63 positions, expected a square'),
        (lambda w: w | {'blocks.0.mlp.w12.weight': torch.zeros(1)}, r'SwiGLU, as ViT-g has'),
    ],
)
def test_guides_of_the_wrong_kind(tmp_path, change, message):
    torch.save(change(dino_state_dict(depth=1)), tmp_path / 'wrong.pth')
    with pytest.raises(ValueError, match=rf'guide .*wrong\.pth: not a DINO or DINOv2 ViT.*{message}') as error:
        load_guide(tmp_path / 'wrong.pth')
    assert '\n' not in str(error.value)


def test_a_clip_is_no_guide(tiny_state_dict, tmp_path):
    torch.save(tiny_state_dict, tmp_path / 'clip.pth')
    with pytest.raises(ValueError, match=r"not a DINO or DINOv2 ViT: 'patch_embed\.proj\.weight' is missing"):
        load_guide(tmp_path / 'clip.pth')


def test_a_fresh_guide_has_the_published_names():
    assert set(Guide(GuideSizes(128, 12, 8, 8)).state_dict()) == set(dino_state_dict())
    assert set(Guide(GuideSizes(128, 4, 14, 5, 4)).state_dict()) == set(dinov2_state_dict())
    assert set(Guide(GuideSizes(128, 4, 14, 5, 0)).state_dict()) == set(dinov2_state_dict(registers=0))
