"""MMSegmentation's view: building from a config, predicting, and what is refused."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from clip.form import Form
from clip.model import CLIP
from naclip.harness.segmentor import NACLIP, CLIPForSegmentation
from naclip.methods import find_method
from naclip.methods.cliptrase import CLIPtrase
from naclip.methods.sclip import SCLIP
from tests.clip.references import openclip_config, openclip_model, write_openclip
from tests.conftest import unambiguous
from tests.naclip.test_pipeline import NACLIP_MODES, SCLIP_MODES

# Every key of the published implementation's `model` dict.
PUBLISHED_KEYS = dict(
    arch='reduced',
    attn_strategy='naclip',
    gaussian_std=5.0,
    pamr_steps=10,
    pamr_stride=(8, 16),
    prob_thd=0.05,
    logit_scale=40,
    slide_stride=32,
    slide_crop=64,
)
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@pytest.fixture(scope='module')
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('cache')


@pytest.fixture
def build(checkpoint_file, voc21_file, cache_dir, monkeypatch) -> Callable[..., NACLIP]:
    """Build from a config, as a runner does; text embeddings are cached between the tests."""
    monkeypatch.setenv('NACLIP_CACHE', str(cache_dir))

    def build(**changes: object) -> NACLIP:
        config = dict(type='NACLIP', clip_path=str(checkpoint_file), name_path=str(voc21_file), device='cpu')
        return MODELS.build(config | changes)

    return build


def samples(*sizes: tuple[int, int]) -> list[SegDataSample]:
    return [SegDataSample(metainfo=dict(ori_shape=size)) for size in sizes]


def test_builds_from_published_keys(build):
    segmentor = build(**PUBLISHED_KEYS)
    assert isinstance(segmentor, NACLIP)
    settings = segmentor.pipeline.settings
    assert (settings.slide_crop, settings.slide_stride) == (64, 32)
    assert (settings.pamr_steps, settings.pamr_stride, settings.prob_thd) == (10, (8, 16), 0.05)
    assert settings.logit_scale == 40
    assert settings.area_thd is None


def test_defaults_are_those_of_the_method(build):
    segmentor = build()
    assert segmentor.pipeline.method.gaussian_std == 5.0
    assert segmentor.pipeline.method.attention == 'naclip'
    assert segmentor.pipeline.method.architecture == 'reduced'
    assert segmentor.pipeline.settings.slide_crop == 224


def test_a_method_by_name(build):
    segmentor = build(method='sclip')
    assert segmentor.pipeline.method == find_method('sclip')
    assert build(method='sclip', arch='reduced').pipeline.method == SCLIP(architecture='reduced')


def test_a_method_with_constants(build):
    method = build(method=dict(type='cliptrase', eps=0.4), slide_crop=0).pipeline.method
    assert method == CLIPtrase(eps=0.4)


def test_names_of_old(build):
    """Constants that were arguments; methods that do not have them heed them as little as ever."""
    old = dict(dbscan_eps=0.4, dbscan_min_samples=3, cls_weight=True, background=True)
    method = build(method='cliptrase', slide_crop=0, **old).pipeline.method
    assert method == CLIPtrase(eps=0.4, min_samples=3, cls_weight=True, background=True)
    assert build(**old).pipeline.method == find_method('naclip')


def test_synonyms_together(build):
    segmentor = build(synonyms='mean', slide_crop=0, input_size=[64, 64])
    assert segmentor.query_features.shape == (21, 64)
    assert segmentor.query_idx.tolist() == list(range(21))
    assert segmentor.pipeline.settings.input_size == (64, 64)


def test_sclip_by_its_own_type_name(build):
    segmentor = build(
        type='CLIPForSegmentation', pamr_steps=0, pamr_stride=(8, 16), prob_thd=0.1, logit_scale=65, slide_stride=32,
        slide_crop=64, area_thd=0.1,
    )  # fmt: skip
    assert isinstance(segmentor, CLIPForSegmentation)
    assert segmentor.pipeline.method == find_method('sclip')
    assert segmentor.pipeline.settings.area_thd == 0.1


@pytest.mark.parametrize('mode', SCLIP_MODES)
def test_sclip_type_goldens(build, golden, sclip_golden, mode):
    """`seg_logits` are class probabilities, not divided by their sum."""
    segmentor = build(type='CLIPForSegmentation', **SCLIP_MODES[mode])
    for i in range(3):
        key = f'predict/{mode}/{i}'
        size = tuple(sclip_golden[f'{key}/ori_shape'].tolist())
        (sample,) = segmentor.predict(golden[f'image_{i}'], samples(size))
        mean = sample.seg_logits.data.mean(dim=(1, 2))
        torch.testing.assert_close(mean, sclip_golden[f'{key}/probs_mean_hw'], rtol=1e-4, atol=1e-5)
        clear = unambiguous(sclip_golden, key)
        assert torch.equal(sample.pred_sem_seg.data[clear], sclip_golden[f'{key}/label'][clear].long())


def test_lists_will_do_for_strides(build):
    assert build(pamr_stride=[2, 4]).pipeline.settings.pamr_stride == (2, 4)


@pytest.mark.parametrize('mode', NACLIP_MODES)
def test_naclip_goldens(build, golden, mode, device):
    segmentor = build(device=device, dtype='float32', **NACLIP_MODES[mode])
    for i in range(3):
        assert_predicted(segmentor, golden[f'image_{i}'].to(device), golden, f'predict/{mode}/{i}', shares=True)


@pytest.mark.parametrize('mode', SCLIP_MODES)
def test_sclip_goldens(build, golden, sclip_golden, mode, device):
    segmentor = build(device=device, dtype='float32', arch='vanilla', attn_strategy='csa', **SCLIP_MODES[mode])
    for i in range(3):
        key = f'predict/{mode}/{i}'
        assert_predicted(segmentor, golden[f'image_{i}'].to(device), sclip_golden, key, shares=False)


def assert_predicted(segmentor, images, golden, key, shares):
    size = tuple(golden[f'{key}/ori_shape'].tolist())
    (sample,) = segmentor.predict(images, samples(size))
    label, clear = sample.pred_sem_seg.data.cpu(), unambiguous(golden, key)
    assert label.shape == (1, *size)
    assert torch.equal(label[clear], golden[f'{key}/label'][clear].long())
    probabilities = sample.seg_logits.data.cpu()
    assert probabilities.shape == (21, *size)
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(size))
    if shares:
        mean = probabilities.mean(dim=(1, 2))
        torch.testing.assert_close(mean, golden[f'{key}/probs_mean_hw'], rtol=1e-4, atol=1e-5)


def test_predict_without_samples(build, batch):
    segmentor = build(**PUBLISHED_KEYS)
    results = segmentor.predict(batch, None)
    assert len(results) == 3
    for result, expected in zip(results, segmentor.predict(batch, samples(*[(80, 112)] * 3)), strict=True):
        assert result.pred_sem_seg.data.shape == (1, 80, 112)
        assert result.seg_logits.data.shape == (21, 80, 112)
        assert torch.equal(result.pred_sem_seg.data, expected.pred_sem_seg.data)


def test_original_sizes_differ_within_a_batch(build, batch):
    segmentor, sizes = build(**PUBLISHED_KEYS), [(80, 112), (41, 57), (160, 200)]
    together = segmentor.predict(batch, samples(*sizes))
    for picture, size, sample in zip(batch, sizes, together, strict=True):
        (alone,) = segmentor.predict(picture[None], samples(size))
        assert sample.pred_sem_seg.data.shape == (1, *size)
        assert torch.equal(sample.pred_sem_seg.data, alone.pred_sem_seg.data)
        torch.testing.assert_close(sample.seg_logits.data, alone.seg_logits.data, rtol=1e-4, atol=1e-6)


def test_samples_are_filled_in_place(build, batch):
    given = samples((80, 112))
    given[0].set_metainfo(dict(img_path='a.jpg'))
    (result,) = build(**PUBLISHED_KEYS).predict(batch[:1], given)
    assert result is given[0]
    assert result.img_path == 'a.jpg'


@pytest.mark.parametrize('method', ['encode_decode', '_forward'])
def test_logits(build, batch, golden, method):
    segmentor = build(**PUBLISHED_KEYS)
    logits = getattr(segmentor, method)(batch)
    assert logits.shape == (3, 56, 80, 112)
    torch.testing.assert_close(
        logits[:1, :, ::4, ::4], golden['logits_every4/slide/1'], rtol=0, atol=1e-4
    )  # cosines, before PAMR
    assert torch.equal(segmentor(batch, mode='tensor'), logits)


def test_features(build, batch):
    segmentor = build(**PUBLISHED_KEYS)
    features = segmentor.extract_feat(batch)
    assert features.shape == (3, 5, 7, 64)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(3, 5, 7))
    cosines = torch.einsum('bhwc,qc->bqhw', features, segmentor.query_features)
    torch.testing.assert_close(cosines, segmentor.pipeline.similarity(batch), rtol=0, atol=1e-6)


def test_queries(build, golden):
    segmentor = build()
    torch.testing.assert_close(segmentor.query_features, golden['query_features'], rtol=0, atol=1e-4)
    assert torch.equal(segmentor.query_idx, golden['query_idx'])


def test_texts_are_encoded_once(build, monkeypatch):
    build()
    monkeypatch.setattr(CLIP, 'encode_text', lambda *_: pytest.fail('encoded again'))
    build()


def test_there_is_no_loss(build, batch):
    segmentor = build()
    for call in (segmentor.loss, lambda *data: segmentor(*data, mode='loss')):
        with pytest.raises(NotImplementedError, match='training-free'):
            call(batch, samples((80, 112)))


def test_preprocessing(build):
    """BGR bytes, as MMCV reads pictures, become RGB normalised with CLIP's statistics."""
    bgr = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 64, 70)).astype(np.uint8))
    data = build().data_preprocessor(dict(inputs=[bgr], data_samples=samples((64, 70))), training=False)
    expected = (bgr.flip(0) / 255 - MEAN) / STD
    torch.testing.assert_close(data['inputs'], expected[None], rtol=1e-5, atol=1e-5)


def test_pictures_are_normalised_as_the_source_says_unless_the_config_does(build, tmp_path):
    config = openclip_config('B/16')
    said = dict(mean=[0.5, 0.4, 0.3], std=[0.25, 0.2, 0.1])
    backbone = str(write_openclip(tmp_path, openclip_model(config), config, said))
    grey = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    for arguments, mean, std in (
        ({}, said['mean'], said['std']),
        (dict(mean=(0.1, 0.2, 0.3)), (0.1, 0.2, 0.3), said['std']),
    ):
        segmentor = build(clip_path=backbone, **arguments)
        assert segmentor.normalisation == (tuple(mean), tuple(std))
        data = segmentor.data_preprocessor(dict(inputs=[grey], data_samples=samples((64, 64))), training=False)
        expected = (torch.tensor(100 / 255) - torch.tensor(mean)) / torch.tensor(std)
        torch.testing.assert_close(data['inputs'][0, :, 0, 0], expected, rtol=1e-5, atol=1e-5)


def test_the_form_of_a_bare_file(build, state_dict, tmp_path):
    safetensors.torch.save_file(state_dict, tmp_path / 'bare.safetensors')
    bare = str(tmp_path / 'bare.safetensors')
    with pytest.raises(ValueError, match='weights do not tell their activation'):
        build(clip_path=bare)
    segmentor = build(clip_path=bare, activation='gelu', head_width=32)
    assert segmentor.pipeline.net.form == Form('gelu', 32, 'gelu')


def test_from_bytes_to_labels(build):
    bgr = torch.from_numpy(np.random.RandomState(0).randint(0, 256, (3, 64, 70)).astype(np.uint8))
    segmentor = build(**PUBLISHED_KEYS)
    (result,) = segmentor.test_step(dict(inputs=[bgr], data_samples=samples((32, 35))))
    (expected,) = segmentor.predict(((bgr.flip(0) / 255 - MEAN) / STD)[None], samples((32, 35)))
    assert (result.pred_sem_seg.data == expected.pred_sem_seg.data).float().mean() > 0.999


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(arch='big'), ValueError, "'big': choose from reduced, vanilla"),
        (dict(attn_strategy='qk'), ValueError, "'qk': choose from naclip, nonly, gav, kk, csa, vanilla"),
        (dict(method='sam'), ValueError, "'sam': choose from naclip, sclip, cliptrase"),
        (dict(method=dict(type='naclip', eps=0.3)), ValueError, "naclip has no constant 'eps': .* gaussian_std"),
        (dict(method=dict(type='cliptrase', eps=-1)), ValueError, 'eps -1'),
        (dict(dbscan=0.3), TypeError, 'NACLIP takes no dbscan'),
        (dict(gaussian_std=0), ValueError, 'gaussian_std is 0, expected a number > 0'),
        (dict(gaussian_std=-1.0), ValueError, 'gaussian_std is -1.0'),
        (dict(logit_scale=0), ValueError, 'logit_scale is 0, expected > 0'),
        (dict(logit_scale=-40), ValueError, 'logit_scale is -40'),
        (dict(prob_thd=1.5), ValueError, 'prob_thd is 1.5, expected a number from 0 to 1'),
        (dict(area_thd=-1), ValueError, 'area_thd is -1'),
        (dict(slide_crop=112, slide_stride=224), ValueError, 'slide_crop 112 and slide_stride 224: expected'),
        (dict(pamr_steps=-1), ValueError, 'pamr_steps -1'),
        (dict(pamr_stride=()), ValueError, 'pamr_stride'),
        (dict(input_size=(64, 64)), ValueError, 'input_size'),
        (dict(method='cliptrase'), ValueError, 'set slide_crop=0'),
        (dict(synonyms='worst'), ValueError, 'choose from best, mean, joined'),
        (dict(dtype='half'), ValueError, 'choose from auto, float32, float16, bfloat16'),
        (dict(clip_path='ViT-B/8'), ValueError, "'ViT-B/8'.*ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px"),
        (dict(name_path='none.txt'), FileNotFoundError, 'none.txt'),
        (dict(templates='none.txt'), FileNotFoundError, 'none.txt'),
    ],
)
def test_bad_arguments(build, arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)


@pytest.fixture
def closed_checkpoint(state_dict, tmp_path) -> str:
    """A checkpoint whose text tower has seen four words only."""
    path = tmp_path / 'closed.safetensors'
    safetensors.torch.save_file(state_dict, path, metadata={'known_words': '["red", "circle", "square", "background"]'})
    return str(path)


def build_with_names(build, tmp_path, checkpoint: str, names: str) -> NACLIP:
    (tmp_path / 'names.txt').write_text(names)
    (tmp_path / 'prompts.txt').write_text('a {}.\n')
    return build(clip_path=checkpoint, name_path=str(tmp_path / 'names.txt'), templates=str(tmp_path / 'prompts.txt'))


def test_unknown_words_are_named(build, tmp_path, closed_checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        build_with_names(build, tmp_path, closed_checkpoint, 'background\nred circle, Square\nred cat\ndog\n')
    (record,) = caplog.records
    message = record.getMessage()
    assert "names.txt: the backbone has never seen 'red cat', 'dog'" in message
    assert message.endswith('background, circle, red, square')


@pytest.mark.parametrize('closed', [True, False])
def test_no_warning_without_reason(build, tmp_path, closed_checkpoint, checkpoint_file, caplog, closed):
    checkpoint, names = (closed_checkpoint, 'red circle\n') if closed else (str(checkpoint_file), 'dog\n')
    with caplog.at_level(logging.WARNING):
        build_with_names(build, tmp_path, checkpoint, names)
    assert not caplog.records


@pytest.mark.cuda
def test_everything_is_on_cuda(build):
    segmentor = build(device=None)
    assert {tensor.device.type for tensor in (*segmentor.parameters(), *segmentor.buffers())} == {'cuda'}
    assert segmentor.pipeline.net.dtype == torch.float16
