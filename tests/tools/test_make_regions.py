"""Region masks from superpixels and from a small random SAM: whole, restartable, and what is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from naclip.walk.masks import RegionMasks, read_mask
from tools.make_regions import main, painted

pytest.importorskip('skimage')


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, left in (('a.png', (200, 30, 30)), ('b.png', (20, 90, 200))):
        pixels = np.full((48, 64, 3), (240, 240, 200), np.uint8)
        pixels[:, :32] = left
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize('kind', ['felzenszwalb', 'slic'])
def test_masks_are_found_and_follow_edges(pictures, tmp_path, kind, capsys):
    out = tmp_path / 'regions'
    assert main([str(pictures), '--kind', kind, '--count', '12', '-o', str(out)]) == 0
    assert '2 region masks made, 0 were there' in capsys.readouterr().out
    masks = RegionMasks(out)
    masks.check(['a.png', 'b.png'])
    ids = masks.read(pictures / 'a.png', (48, 64)).numpy()
    assert ids.min() >= 1
    assert not set(np.unique(ids[:, :28])) & set(np.unique(ids[:, 36:]))


def test_a_stopped_run_goes_on(pictures, tmp_path, capsys):
    out = tmp_path / 'regions'
    assert main([str(pictures / 'a.png'), '-o', str(out)]) == 0
    before = (out / 'a.npz').stat().st_mtime_ns
    (out / 'b.npz').write_bytes(b'cut short')
    assert main([str(pictures), '-o', str(out)]) == 0
    assert '1 region masks made, 1 were there' in capsys.readouterr().out
    assert (out / 'a.npz').stat().st_mtime_ns == before
    assert read_mask(out / 'b.npz').shape == (48, 64)


def test_one_stem_twice(pictures, tmp_path, capsys):
    (pictures / 'a.jpg').write_bytes((pictures / 'a.png').read_bytes())
    assert main([str(pictures), '-o', str(tmp_path / 'regions')]) == 1
    error = capsys.readouterr().err
    assert 'several pictures have the stem a, by which masks are found' in error
    assert error.count('\n') == 1


@given(arrays(bool, st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(1, 6))))
def test_each_pixel_has_its_largest_mask(masks):
    ids = painted(masks)
    areas = masks.sum(axis=(1, 2))
    kept = {}
    for y, x in np.ndindex(*ids.shape):
        mine = np.flatnonzero(masks[:, y, x])
        assert (ids[y, x] == 0) == (len(mine) == 0)
        if len(mine):
            largest = areas[mine].max()
            assert largest == areas[kept.setdefault(ids[y, x], mine[areas[mine] == largest][-1])]
    assert ids.max(initial=0) <= len(masks)


def sam_folder(tmp_path, kind):
    """A checkpoint of a SAM or SAM2 with random weights, and masks of one prompt that the test can compare with."""
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    prompt = dict(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = dict(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16, iou_head_depth=2
    )
    if kind == 'sam':
        vision = dict(
            hidden_size=32, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64,
            patch_size=16, global_attn_indexes=[0], num_pos_feats=8, mlp_dim=64, window_size=0,
        )  # fmt: skip
        config = transformers.SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
        model = transformers.SamModel(config)
        processor = transformers.SamImageProcessor(
            size={'longest_edge': 64},
            pad_size={'height': 64, 'width': 64},
            mask_size={'longest_edge': 16},
            mask_pad_size={'height': 16, 'width': 16},
        )
    else:
        backbone = dict(
            hidden_size=8, image_size=[64, 64], blocks_per_stage=[1, 1, 1, 1], embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 1, 2, 2], window_size_per_stage=[4, 4, 4, 4],
            global_attention_blocks=[], window_positional_embedding_background_size=[4, 4],
        )  # fmt: skip
        vision = dict(
            backbone_config=dict(backbone, model_type='sam2_hiera_det_model'),
            backbone_channel_list=[64, 32, 16, 8],
            backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
            fpn_hidden_size=16,
        )
        config = transformers.Sam2Config(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
        )
        model = transformers.Sam2Model(config)
        processor = transformers.Sam2ImageProcessor(
            size={'height': 64, 'width': 64}, mask_size={'height': 16, 'width': 16}
        )
    folder = tmp_path / kind
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize('kind', ['sam', 'sam2'])
def test_sam_by_a_checkpoint(pictures, tmp_path, kind, capsys):
    out = tmp_path / 'regions'
    command = [str(pictures), '--kind', 'sam', '--checkpoint', str(sam_folder(tmp_path, kind)), '-o', str(out)]
    command += ['--points', '4', '--device', 'cpu']
    assert main([*command, '--quality', '-99', '--stability', '-99']) == 0
    assert '2 region masks made, 0 were there' in capsys.readouterr().out
    ids = read_mask(out / 'b.npz').numpy()
    assert ids.shape == (48, 64)
    assert ids.max() >= 1
    before = (out / 'a.npz').stat().st_mtime_ns
    (out / 'b.npz').unlink()
    assert main([*command, '--quality', '2']) == 0  # no mask is that good
    assert '1 region masks made, 1 were there' in capsys.readouterr().out
    assert not read_mask(out / 'b.npz').any()
    assert (out / 'a.npz').stat().st_mtime_ns == before


def test_sams_that_are_none(pictures, tmp_path, capsys):
    def refusal(*more):
        assert main([str(pictures), '-o', str(tmp_path / 'regions'), *more]) == 1
        error = capsys.readouterr().err
        assert error.count('\n') == 1
        return error

    assert 'needs a --checkpoint: expected a folder' in refusal('--kind', 'sam')
    assert 'is no folder with a config.json' in refusal('--kind', 'sam', '--checkpoint', 'facebook/sam-vit-base')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'config.json').write_text('{"model_type": "bert"}')
    assert 'is no SAM that transformers can read' in refusal('--kind', 'sam', '--checkpoint', str(tmp_path / 'other'))
    assert 'is for --kind sam; slic has none' in refusal('--kind', 'slic', '--checkpoint', 'x')
    assert not (tmp_path / 'regions').exists()
