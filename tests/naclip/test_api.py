"""`naclip.segment`: against the harness on the same picture, on pictures of all sizes, and what is refused."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import Resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

import clip
import naclip
import naclip.harness.segmentor
from naclip import api
from naclip.methods import find_method, method_names
from naclip.shapes import generator as shapes
from naclip.walk.vocabulary import Vocabulary, parse_classes
from tests.clip.references import openclip_config, openclip_model, write_openclip
from tests.goldens.guide_weights import dino_state_dict

CLASSES = 'cat; dog, frog; grass'
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def picture() -> Image.Image:
    pixels, _ = shapes.draw(np.random.RandomState(5), shapes.VAL_SIZE)
    return Image.fromarray(pixels)


def quadrants(picture: Image.Image) -> np.ndarray:
    """A region mask: four quarters of a picture, around a middle that is no region."""
    rows, columns = np.indices((picture.height, picture.width))
    mask = 1 + 2 * (rows > picture.height // 2) + (columns > picture.width // 2)
    mask[40:60, 60:90] = 0
    return mask


@pytest.fixture(scope='module')
def segmenter() -> naclip.Segmenter:
    return naclip.Segmenter('shapes', 'cpu')


@pytest.mark.parametrize(('method', 'pamr'), [('naclip', True), ('naclip', False), ('sclip', False)])
def test_labels_are_those_of_the_harness(tmp_path, picture, method, pamr):
    picture = picture.resize((250, 190), Image.Resampling.BICUBIC)
    picture.save(tmp_path / 'picture.png')
    (tmp_path / 'classes.txt').write_text('\n'.join(shapes.CLASSES))
    config = dict(
        type='NACLIP',
        clip_path='shapes',
        name_path=str(tmp_path / 'classes.txt'),
        device='cpu',
        method=method,
        slide_crop=64,
        slide_stride=32,
        pamr_steps=10 if pamr else 0,
        pamr_stride=(2, 5),
    )
    model = MODELS.build(config)
    data = LoadImageFromFile()(dict(img_path=str(tmp_path / 'picture.png')))
    data = Resize(scale=(2048, 96), keep_ratio=True)(data)
    sample = SegDataSample(metainfo=dict(ori_shape=(190, 250)))
    inputs = torch.from_numpy(data['img'].transpose(2, 0, 1).copy())
    [theirs] = model.test_step(dict(inputs=[inputs], data_samples=[sample]))

    mine = naclip.segment(
        tmp_path / 'picture.png', list(shapes.CLASSES), method=method, backbone='shapes', pamr=pamr, device='cpu'
    )
    assert np.array_equal(mine.labels, theirs.pred_sem_seg.data[0].numpy())
    shares = mine.scores / mine.scores.sum(axis=0)
    assert np.abs(shares - theirs.seg_logits.data.numpy()).max() < 1e-6
    assert len(np.unique(mine.labels)) > 2


def test_a_known_picture_is_understood():
    """The embedded backbone on a picture made for it: most pixels are right."""
    pixels, labels = shapes.draw(np.random.RandomState(5), shapes.VAL_SIZE)
    seen = naclip.segment(pixels, list(shapes.CLASSES), backbone='shapes', short_side=112)
    assert (seen.labels == labels).mean() > 0.8


@pytest.mark.parametrize('size', [(1, 1), (1, 400), (400, 1), (3, 2), (57, 1023)])
def test_any_size(segmenter, size):
    rng = np.random.RandomState(0)
    pixels = rng.randint(0, 256, (*size, 3)).astype(np.uint8)
    for method in ('naclip', 'pixelclip', 'clip'):
        seen = segmenter.prepare(CLASSES, method=method)(pixels)
        assert seen.labels.shape == size
        assert seen.scores.shape == (3, *size)
        assert seen.shares.sum() == pytest.approx(1)


def test_a_large_picture_is_labelled_at_its_size_in_bounded_memory(monkeypatch, segmenter, picture):
    segment = segmenter.prepare(list(shapes.CLASSES))
    small = segment(picture)
    large = picture.resize((picture.width * 8, picture.height * 8), Image.Resampling.BICUBIC)
    monkeypatch.setattr(api, 'WORKING_PIXELS', picture.width * picture.height)
    seen = segment(large)
    assert seen.labels.shape == (large.height, large.width)
    assert seen.scores.shape == small.scores.shape
    assert (seen.labels[4::8, 4::8] == small.labels).mean() > 0.9


@pytest.mark.parametrize('band', [1, 10_000, 1 << 20])
def test_enlarging_in_bands_is_interpolation(monkeypatch, segmenter, band):
    monkeypatch.setattr(api, 'BAND_BYTES', band)
    pipeline = segmenter.prepare(CLASSES, 'sky', prob_thd=0.4).pipeline
    scores = torch.rand(1, 4, 7, 11, generator=torch.Generator().manual_seed(0))
    mine = api.enlarge(pipeline.decide(scores), scores, (50, 90), pipeline)
    wide = F.interpolate(scores, (50, 90), mode='bilinear', align_corners=False)
    assert (mine == pipeline.decide(wide)).float().mean() > 0.999
    assert len(mine.unique()) == 4


def test_voted_labels_are_enlarged_as_they_are(segmenter):
    pipeline = segmenter.prepare(CLASSES, method='cliptrase').pipeline
    labels = torch.tensor([[[[0, 1], [2, 0]]]])
    mine = api.enlarge(labels, torch.zeros(1, 3, 2, 2), (6, 4), pipeline)
    assert torch.equal(mine.long(), labels.repeat_interleave(3, 2).repeat_interleave(2, 3))


def test_working_size_falls_with_the_number_of_names():
    assert api.working_pixels(59) == 1 << 20
    assert 8 * api.working_pixels(5000) * 5000 <= api.MAP_BYTES


def test_background_is_class_0_and_gets_what_nothing_fits(segmenter, picture):
    seen = segmenter.prepare('cat; dog', 'sky, grass, water, sand', prob_thd=0)(picture)
    assert seen.names == ('background', 'cat', 'dog')
    unsure = segmenter.prepare('cat; dog', 'sky, grass, water, sand', prob_thd=0.9)(picture)
    assert (unsure.labels == 0).sum() > (seen.labels == 0).sum()
    assert (unsure.labels[seen.scores.max(axis=0) < 0.9] == 0).all()
    assert not unsure.colours[0].any()


def test_synonyms_count_as_their_class(segmenter, picture):
    seen = segmenter.prepare('cat; sky, snow; grass')(picture)
    assert seen.names == ('cat', 'sky', 'grass')
    apart = segmenter.prepare('cat; sky; snow; grass')(picture)
    assert np.allclose(seen.scores[1], np.maximum(apart.scores[1], apart.scores[2]), atol=1e-6)
    merged = np.array([0, 1, 1, 2])[apart.scores.argmax(axis=0)]
    assert np.array_equal(merged, seen.labels)


def test_the_model_loads_once(monkeypatch, picture):
    naclip.segment(picture, CLASSES, backbone='shapes', device='cpu')
    monkeypatch.setattr(clip, 'load_checkpoint', lambda *_: pytest.fail('loaded again'))
    assert naclip.segment(picture, 'cat; dog', backbone='shapes', device='cpu').names == ('cat', 'dog')


@pytest.mark.parametrize('method', method_names())
def test_settings_are_those_of_the_protocol(segmenter, method):
    prepared = segmenter.prepare(CLASSES, method=method)
    settings = prepared.pipeline.settings
    whole = ('cliptrase', 'pixelclip', 'maskclip_original', 'clip_surgery', 'gem', 'cliptrase_d2')
    crops = {'clearclip': 128, 'maskclip': 128, 'proxyclip': 96, 'corrclip': 96}
    assert settings.slide_crop == (0 if method in whole else crops.get(method, 64))
    assert settings.pamr_steps == (10 if method == 'naclip' else 0)
    scales = {'cliptrase': 100, 'cliptrase_d2': 100, 'clearclip': 50, 'maskclip': 50, 'maskclip_original': 1}
    scales |= {'lposs': 1, 'lposs_plus': 1}
    assert settings.logit_scale == scales.get(method, 40)
    assert settings.input_size == ((320, 320) if method == 'pixelclip' else None)
    assert prepared.pipeline.vocabulary.synonyms == ('mean' if method == 'pixelclip' else 'best')
    sides = dict(cliptrase=224, pixelclip=640, clearclip=128, maskclip=128, maskclip_original=146, cliptrase_d2=183)
    assert prepared.short_side == (sides | dict(gem=128, clip_surgery=146, lposs=128, lposs_plus=128)).get(method, 96)
    assert prepared.squash == (method in ('gem', 'clip_surgery'))


@pytest.mark.parametrize('method', method_names())
def test_every_method_sees_the_picture(segmenter, picture, method):
    """On a tower of two blocks, with the constants that its methods have for it; a picture that is not square."""
    regions = quadrants(picture) if find_method(method).needs_regions else None
    if 'eps' in find_method(method).constants:
        method = dict(type=method, eps=0.3, min_samples=2)
    seen = segmenter.prepare(CLASSES, method=method)(picture, regions)
    assert seen.labels.shape == (picture.height, picture.width)
    assert np.isfinite(seen.scores).all()
    assert len(np.unique(seen.labels)) > 1


@pytest.mark.slow
@pytest.mark.parametrize('method', method_names())
def test_attention_of_every_method(segmenter, picture, method):
    """The patch under a pixel, in a part of the picture; the same whatever the picture's file is like."""
    regions = quadrants(picture) if find_method(method).needs_regions else None
    prepared = segmenter.prepare(CLASSES, method=method)
    found = prepared.attention(picture, 123, 81, regions)
    assert found.pixel == (123, 81)
    assert found.weights.shape == (picture.height, picture.width)
    assert found.weights.dtype == np.float32
    for box in (found.patch, found.seen):
        assert box.top <= 81 < box.bottom
        assert box.left <= 123 < box.right
    assert (found.patch.bottom - found.patch.top) * (found.patch.right - found.patch.left) < 200
    outside = found.weights.copy()
    outside[found.seen.top : found.seen.bottom, found.seen.left : found.seen.right] = 0
    assert not outside.any()
    patch = found.weights[found.patch.top : found.patch.bottom, found.patch.left : found.patch.right]
    if not find_method(method).whole:  # elsewhere windows that overlap have their mean
        assert patch == pytest.approx(found.own)
        assert found.weights.max() == pytest.approx(max(found.own, found.highest))
    assert found.own + found.cls <= found.total + 1e-6
    assert found.heat_map().width >= picture.width
    again = prepared.attention(np.asarray(picture), 123, 81, regions)
    assert np.array_equal(again.weights, found.weights)


def test_attention_is_the_one_of_the_window_alone(segmenter, picture):
    """What a window of the network's size has is what a picture of that size has."""
    prepared = segmenter.prepare(CLASSES, short_side=112)  # as large as the picture is
    found = prepared.attention(picture, 140, 20)
    assert found.seen == (0, 96, 64, 160)
    window = picture.crop((96, 0, 160, 64))
    alone = segmenter.prepare(CLASSES, short_side=64).attention(window, 140 - 96, 20)
    assert alone.seen == (0, 0, 64, 64)
    assert np.allclose(found.weights[:64, 96:], alone.weights, atol=1e-6)
    assert found.cls == pytest.approx(alone.cls, rel=1e-4)
    # The CLS token is left out, and the rest is as it is.
    blocks = alone.weights[4::8, 4::8]
    assert blocks.shape == (8, 8)
    assert blocks.sum() == pytest.approx(1 - alone.cls, abs=1e-5)
    assert alone.cls > 0


@pytest.mark.slow
@pytest.mark.parametrize('size', [(1, 1), (1, 400), (3, 2), (57, 90)])
@pytest.mark.parametrize('method', ['naclip', 'proxyclip', 'gem', 'lposs', 'pixelclip', 'cliptrase_d2'])
def test_attention_of_pictures_of_any_size(segmenter, size, method):
    pixels = np.random.RandomState(0).randint(0, 256, (*size, 3)).astype(np.uint8)
    prepared = segmenter.prepare(CLASSES, method=method)
    for x, y in ((0, 0), (size[1] - 1, size[0] - 1), (size[1] // 3, size[0] // 2)):
        found = prepared.attention(pixels, x, y)
        assert found.weights.shape == size
        assert np.isfinite(found.weights).all()
        assert found.patch.top <= y < found.patch.bottom
        assert found.patch.left <= x < found.patch.right


def test_attention_of_a_large_picture_is_kept_small(monkeypatch, segmenter, picture):
    prepared = segmenter.prepare(CLASSES)
    small = prepared.attention(picture, 100, 50)
    large = picture.resize((picture.width * 8, picture.height * 8), Image.Resampling.BICUBIC)
    monkeypatch.setattr(api, 'WORKING_PIXELS', picture.width * picture.height)
    found = prepared.attention(large, 8 * 100 + 4, 8 * 50 + 4)
    assert found.weights.shape == small.weights.shape
    assert np.abs(np.array(found.patch) - 8 * np.array(small.patch)).max() <= 8
    assert np.abs(np.array(found.seen) - 8 * np.array(small.seen)).max() <= 8
    assert np.abs(found.weights - small.weights).max() < 0.2 * small.own


def test_attention_that_cannot_be_shown(segmenter, picture, tmp_path):
    prepared = segmenter.prepare(CLASSES)
    for x, y in ((-1, 0), (0, -1), (160, 0), (0, 112)):
        with pytest.raises(ValueError, match=f'pixel {x}, {y} is not in the picture: it has 160 x 112'):
            prepared.attention(picture, x, y)
    (tmp_path / 'mine.py').write_text(
        'from dataclasses import dataclass\n'
        'from naclip.methods.last_block import last_block\n'
        'from naclip.methods.method import Method\n'
        'from naclip.walk.attention import Term\n\n\n'
        '@dataclass(frozen=True)\n'
        'class Mine(Method):\n'
        '    def features(self, reading, texts):\n'
        '        return reading.patches(last_block(reading, lambda q, k, v, grid: [Term(v, v)]))\n'
    )
    mine = segmenter.prepare(CLASSES, method=f'{tmp_path}/mine.py:Mine')
    assert mine(picture).labels.shape == (112, 160)
    with pytest.raises(ValueError, match=r'^there is no attention to show of method mine: .*function weights.*$'):
        mine.attention(picture, 0, 0)


def test_guide_and_regions_must_fit_the_method(segmenter, picture):
    prepared = segmenter.prepare(CLASSES, method='corrclip')
    with pytest.raises(ValueError, match=r'method corrclip needs a region mask for each picture: --regions DIR'):
        prepared(picture)
    with pytest.raises(ValueError, match=r'region mask has 3x4 pixels, expected 112x160, the size of its picture'):
        prepared(picture, np.zeros((3, 4), int))
    with pytest.raises(ValueError, match=r'region mask has shape .* expected \(height, width\) of whole numbers'):
        prepared(picture, np.zeros((112, 160)))
    with pytest.raises(ValueError, match=r'method naclip reads no region masks: leave out --regions'):
        segmenter.prepare(CLASSES)(picture, quadrants(picture))
    with pytest.raises(ValueError, match=r'method naclip reads no guide: leave out --guide'):
        segmenter.prepare(CLASSES, guide='dino_vitb8')
    with pytest.raises(ValueError, match=r"unknown guide 'dino_vitb9'"):
        segmenter.prepare(CLASSES, method='proxyclip', guide='dino_vitb9')


def test_a_guide_of_ones_own(segmenter, picture, tmp_path):
    torch.save(dino_state_dict(64, 1, 16, 64), tmp_path / 'mine.pth')
    mine = segmenter.prepare(CLASSES, method='proxyclip', guide=tmp_path / 'mine.pth')
    assert mine.pipeline.method.guide == 'mine.pth'
    assert mine.pipeline.guide.patch_size == 16
    usual = segmenter.prepare(CLASSES, method='proxyclip')
    assert usual.pipeline.method.guide == 'shapes'
    assert not np.allclose(mine(picture).scores, usual(picture).scores)


def test_regions_from_a_file(segmenter, picture, tmp_path):
    np.savez_compressed(tmp_path / 'mask.npz', instance_mask=quadrants(picture))
    prepared = segmenter.prepare(CLASSES, method='corrclip')
    from_file, from_array = prepared(picture, tmp_path / 'mask.npz'), prepared(picture, quadrants(picture))
    assert np.array_equal(from_file.labels, from_array.labels)
    for region in (1, 2, 3, 4):  # they vote
        assert len(np.unique(from_file.labels[quadrants(picture) == region])) == 1


def test_released_towers_are_read_as_in_the_benchmarks():
    for resolution in (224, 336):
        visual = clip.model.VisionTransformer(resolution, 16, 64, 1, 8)
        settings, short_side = api.settings_for(find_method('naclip'), visual, has_background=True)
        assert (settings.slide_crop, settings.slide_stride, short_side) == (224, 112, 336)
        assert settings.pamr_stride == (8, 16)
        assert settings.prob_thd == 0.1


def test_options_have_the_last_word(segmenter):
    pipeline = segmenter.prepare(CLASSES, gaussian_std=2, pamr=False).pipeline
    assert pipeline.method.gaussian_std == 2
    assert pipeline.settings.pamr_steps == 0
    assert segmenter.prepare(CLASSES, method='sclip', pamr=True).pipeline.settings.pamr_steps == 10


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(classes=''), 'there is none'),
        (dict(classes=' ;; '), 'a class has no name'),
        (dict(classes=[]), 'there is none'),
        (dict(classes='cat;;dog'), 'a class has no name'),
        (dict(classes='cat, Dog; dog'), "'dog' belongs to two classes"),
        (dict(classes='cat', background='cat'), "'cat' belongs to two classes"),
        (dict(classes='cat', background=' , '), 'a class has no name'),
        (dict(classes='cat', prob_thd=0.3), 'needs a background'),
        (dict(classes='cat', background='sky', prob_thd=3), 'prob_thd is 3'),
        (dict(classes='cat', method='magic'), 'choose from naclip'),
        (dict(classes='cat', gaussian_std=-1), 'gaussian_std is -1'),
        (dict(classes='cat', short_side=0), 'short_side is 0'),
        (dict(classes='cat ' * 90), 'needs 98 tokens'),
    ],
)
def test_refusals(segmenter, arguments, message):
    with pytest.raises(ValueError, match=message):
        segmenter.prepare(**arguments)


def test_unknown_words_are_told_of(segmenter, caplog):
    with caplog.at_level(logging.WARNING):
        segmenter.prepare('cat; aardvark')
    assert "never seen 'aardvark'" in caplog.text


def test_outputs_fit_together(segmenter, picture):
    seen = segmenter.prepare(CLASSES)(picture)
    assert np.array_equal(np.asarray(seen.label_map()), seen.labels)
    assert seen.overlay().width > picture.width
    assert seen.heat_map(0).size[0] >= picture.width


def test_parsing():
    assert parse_classes('cat, kitten ;dog;') == (('cat', 'kitten'), ('dog',))
    assert parse_classes(['cat, kitten', ('dog', 'puppy')]) == (('cat', 'kitten'), ('dog', 'puppy'))
    assert api.vocabulary_of('a; b', ['x', 'y']) == Vocabulary((('x', 'y'), ('a',), ('b',)))


@pytest.mark.slow
def test_free_of_mmseg():
    code = (
        'import sys, naclip; naclip.segment; assert not {"mmseg", "mmcv", "mmengine"} & set(sys.modules), "MMSeg";'
        'import naclip.api, tools.segment; assert not {"mmseg", "mmcv", "mmengine"} & set(sys.modules), "MMSeg"'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, env=os.environ | {'CUDA_VISIBLE_DEVICES': ''})


@pytest.mark.slow
def test_the_package_is_light_until_used():
    code = 'import sys, naclip.cli; assert "torch" not in sys.modules; from naclip import segment; naclip.nothing'
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert "AttributeError: module 'naclip' has no attribute 'nothing'" in result.stderr


def test_pictures_are_normalised_as_the_source_says_unless_the_protocol_does(tmp_path):
    config = openclip_config('B/16')
    said = dict(mean=[0.5, 0.4, 0.3], std=[0.25, 0.2, 0.1])
    (tmp_path / 'template.txt').write_text('{}\n')
    write_openclip(tmp_path, openclip_model(config), config, said)
    segmenter = naclip.Segmenter(tmp_path, 'cpu')
    for method, mean in (('naclip', (0.5, 0.4, 0.3)), ('maskclip_original', (0.485, 0.456, 0.406))):
        prepared = segmenter.prepare('cat; dog', method=method, templates=tmp_path / 'template.txt')
        assert prepared.normalisation[0] == mean


def test_the_form_of_a_bare_file(tmp_path, picture, state_dict):
    safetensors.torch.save_file(state_dict, tmp_path / 'bare.safetensors')
    (tmp_path / 'template.txt').write_text('{}\n')
    options = dict(backbone=tmp_path / 'bare.safetensors', device='cpu', templates=tmp_path / 'template.txt')
    with pytest.raises(ValueError, match='weights do not tell their activation'):
        naclip.segment(picture, 'cat; dog', **options)
    seen = [
        naclip.segment(picture, 'cat; dog', **options, activation=activation, head_width=64)
        for activation in ('gelu', 'quick_gelu')
    ]
    assert not np.allclose(seen[0].scores, seen[1].scores)
