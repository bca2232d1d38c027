"""The whole walk, against the goldens; and what does not depend on how pictures are batched."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clip.convnext import ConvNeXt
from naclip.methods import find_method
from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings, check_weights
from tests.conftest import unambiguous
from tests.naclip.walk.test_attention import FORMS

SLIDE = dict(slide_crop=64, slide_stride=32)
NACLIP_MODES = {
    'slide': SLIDE,
    'whole': dict(slide_crop=0),
    'slide_pamr': dict(SLIDE, pamr_steps=10, prob_thd=0.05),
    'whole_pamr_thd': dict(slide_crop=0, pamr_steps=10, prob_thd=0.05),
}
SCLIP_MODES = {
    'plain': SLIDE,
    'voc21': dict(SLIDE, logit_scale=65.0, area_thd=0.1, prob_thd=0.1),
    'context60': dict(SLIDE, logit_scale=50.0, prob_thd=0.1),
}


@pytest.fixture
def build(make_model, golden, voc21) -> Callable[..., Pipeline]:
    def build(
        device='cpu', dtype=torch.float32, attn: str = 'naclip', arch: str = 'reduced', **settings: object
    ) -> Pipeline:
        net, method = make_model(device, dtype), LastBlock(attn, arch)
        return Pipeline(net, method, voc21, golden['query_features'], Settings(**settings)).to(device)

    return build


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('mode', NACLIP_MODES)
def test_naclip_goldens(build, golden, mode, i, device):
    key = f'predict/{mode}/{i}'
    pipeline, images = build(device, **NACLIP_MODES[mode]), golden[f'image_{i}'].to(device)
    logits = pipeline.logits(images)
    if f'logits_every4/{mode}/{i}' in golden:
        expected = golden[f'logits_every4/{mode}/{i}']
        torch.testing.assert_close(logits[:, :, ::4, ::4].cpu(), expected, rtol=0, atol=1e-4)
    labels, probabilities = pipeline(images, tuple(golden[f'{key}/ori_shape'].tolist()))
    shares = probabilities / probabilities.sum(dim=1, keepdim=True)
    assert_predicted(golden, key, labels, shares)


@pytest.mark.parametrize('i', range(3))
@pytest.mark.parametrize('mode', SCLIP_MODES)
def test_sclip_goldens(build, golden, sclip_golden, mode, i, device):
    key = f'predict/{mode}/{i}'
    pipeline = build(device, attn='csa', arch='vanilla', **SCLIP_MODES[mode])
    labels, probabilities = pipeline(golden[f'image_{i}'].to(device), tuple(sclip_golden[f'{key}/ori_shape'].tolist()))
    assert_predicted(sclip_golden, key, labels, probabilities)


def assert_predicted(golden, key, labels, probabilities):
    mean = probabilities[0].mean(dim=(1, 2)).cpu()
    torch.testing.assert_close(mean, golden[f'{key}/probs_mean_hw'], rtol=1e-4, atol=1e-5)
    clear, expected = unambiguous(golden, key), golden[f'{key}/label']
    assert clear.float().mean() > 0.98
    assert torch.equal(labels[0].cpu()[clear], expected[clear].long())


@pytest.mark.parametrize('arch', ['reduced', 'vanilla', 'cls_residual'])
@pytest.mark.parametrize('attn', FORMS)
def test_batch_equals_singles(build, batch, attn, arch):
    pipeline = build(attn=attn, arch=arch, pamr_steps=2, prob_thd=0.05, area_thd=0.05, **SLIDE)
    labels, probabilities = pipeline(batch, (70, 99))
    for i, picture in enumerate(batch):
        label, probability = pipeline(picture[None], (70, 99))
        torch.testing.assert_close(probabilities[i : i + 1], probability, rtol=1e-4, atol=1e-6)
        assert torch.equal(labels[i : i + 1], label)


@pytest.mark.parametrize('mode', NACLIP_MODES)
def test_batch_equals_singles_in_every_mode(build, batch, mode, device):
    pipeline, images = build(device, **NACLIP_MODES[mode]), batch.to(device)
    logits, (labels, _) = pipeline.logits(images), pipeline(images, (100, 90))
    # CUDA picks its kernels by the batch, and so its order of summation; near ties may then go the other way.
    tolerance, same = (2e-6, 1.0) if device.type == 'cpu' else (1e-5, 0.999)
    for i in range(len(images)):
        alone = images[i : i + 1]
        torch.testing.assert_close(logits[i : i + 1], pipeline.logits(alone), rtol=0, atol=tolerance)
        assert (labels[i : i + 1] == pipeline(alone, (100, 90))[0]).float().mean() >= same


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('mode', NACLIP_MODES)
def test_half_precision_labels(build, golden, mode, dtype, device):
    """Reduced precision moves few labels: at most 2% in float16, 5% in bfloat16, of all three pictures."""
    full, half = build(device, **NACLIP_MODES[mode]), build(device, dtype, **NACLIP_MODES[mode])
    same, pixels = 0, 0
    for i in range(3):
        picture = golden[f'image_{i}'].to(device)
        labels = [pipeline(picture, tuple(picture.shape[-2:]))[0] for pipeline in (full, half)]
        same += int((labels[0] == labels[1]).sum())
        pixels += labels[0].numel()
    assert same / pixels >= (0.98 if dtype == torch.float16 else 0.95)


def test_stages_by_hand(build, golden):
    """Cosines, upsampled to the window, averaged, resized: one window, no refinement."""
    pipeline, images = build(slide_crop=0, logit_scale=30.0), golden['image_2']
    features = pipeline.patch_features(images)
    cosines = torch.stack([(features * query).sum(dim=-1) for query in golden['query_features']], dim=1)
    torch.testing.assert_close(pipeline.similarity(images), cosines, rtol=0, atol=1e-6)
    logits = F.interpolate(cosines, (70, 101), mode='bilinear', align_corners=False)
    torch.testing.assert_close(pipeline.logits(images), logits, rtol=0, atol=1e-6)
    scores = torch.softmax(30 * F.interpolate(logits, (50, 60), mode='bilinear', align_corners=False), dim=1)
    classes = [scores[:, [q for q, c in enumerate(golden['query_idx']) if c == k]].amax(dim=1) for k in range(21)]
    torch.testing.assert_close(pipeline(images, (50, 60))[1], torch.stack(classes, dim=1), rtol=1e-4, atol=1e-6)


def test_refinement_sees_the_resized_picture(build, golden):
    """PAMR runs at the requested size, on a picture resized to it; not at the size that the tower saw."""
    images = golden['image_1']
    small = F.interpolate(images, (40, 56), mode='bilinear', align_corners=False)
    plain, refined = build(slide_crop=0), build(slide_crop=0, pamr_steps=3, pamr_stride=(1, 3))
    resized = F.interpolate(plain.logits(images), (40, 56), mode='bilinear', align_corners=False)
    expected = refined.probabilities_(refined.refine_(small, resized.clone()))
    torch.testing.assert_close(refined.probabilities_(refined.refine_(images, resized.clone())), expected)
    torch.testing.assert_close(refined(images, (40, 56))[1], expected)
    assert not torch.allclose(expected, plain.probabilities_(resized), atol=1e-4)


def test_what_was_seen_serves_any_number_of_sizes(build, golden):
    pipeline, images = build(pamr_steps=2, **SLIDE), golden['image_1']
    seen = pipeline.look(images)
    for size in ((80, 112), (40, 50), (80, 112)):
        logits = pipeline.merge(seen, size)
        torch.testing.assert_close(logits, pipeline.logits(images, size), rtol=0, atol=0)
        labels = pipeline.decide(pipeline.probabilities_(pipeline.refine_(images, logits)))
        assert torch.equal(labels, pipeline(images, size)[0])


def test_no_gradients_are_kept(build, golden):
    labels, probabilities = build(**SLIDE)(golden['image_0'], (64, 64))
    assert not labels.requires_grad
    assert not probabilities.requires_grad


def test_settings_defaults():
    settings = Settings()
    assert (settings.slide_crop, settings.slide_stride) == (224, 112)
    assert (settings.pamr_steps, settings.pamr_stride) == (0, (8, 16))
    assert (settings.logit_scale, settings.prob_thd, settings.area_thd) == (40.0, 0.0, None)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(slide_crop=-1), 'slide_crop -1'),
        (dict(slide_crop=100, slide_stride=101), 'slide_stride 101: expected crop 0'),
        (dict(slide_stride=0), 'slide_stride 0'),
        (dict(pamr_steps=-1), 'pamr_steps -1'),
        (dict(pamr_stride=()), 'pamr_stride'),
        (dict(pamr_stride=(8, 0)), 'pamr_stride'),
        (dict(logit_scale=0), 'logit_scale is 0, expected > 0'),
        (dict(logit_scale=float('nan')), 'logit_scale is nan'),
        (dict(logit_scale=float('inf')), 'logit_scale is inf'),
        (dict(prob_thd=-0.1), 'prob_thd is -0.1, expected a number from 0 to 1'),
        (dict(prob_thd=1.1), 'prob_thd is 1.1'),
        (dict(prob_thd=None), 'prob_thd is None'),
        (dict(prob_thd=float('nan')), 'prob_thd is nan'),
        (dict(area_thd=2), 'area_thd is 2'),
        (dict(input_size=(320, 320)), 'input_size .* with slide_crop 224: expected'),
        (dict(input_size=(320, 0), slide_crop=0), 'input_size'),
        (dict(input_size=(320,), slide_crop=0), 'input_size'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


@torch.no_grad()
@pytest.mark.parametrize('pixel', [(0, 0), (79, 111), (40, 30), (23, 100)])
def test_the_weights_of_a_patch_are_those_in_its_window(build, batch, pixel):
    pipeline = build(**SLIDE)
    placed = pipeline.gathered(batch[:1], pixel, (80, 112))
    [box] = placed.boxes
    assert box in pipeline.boxes((80, 112))
    reading = pipeline.read(batch[:1, :, box.top : box.bottom, box.left : box.right])
    row, column = (pixel[0] - box.top) // 16, (pixel[1] - box.left) // 16
    assert placed.place == (0, row, column)
    expected = pipeline.method.weights(reading, pipeline.query_features, placed.place)
    assert torch.equal(placed.gathered.patches, expected.patches)
    assert placed.patch((80, 112)) == tuple(
        first + 16 * cell for cell in (0, 1) for first, cell in ((box.top, row + cell), (box.left, column + cell))
    )


def test_a_convnext_has_no_weights(model, convnext_parts):
    visual = ConvNeXt(convnext_parts.visual.trunk, convnext_parts.visual.head)
    with pytest.raises(ValueError, match='there is no attention to show: a ConvNeXt gathers by convolutions, expected'):
        check_weights(visual, find_method('pixelclip'))
    check_weights(model.visual, find_method('pixelclip'))


def test_a_method_that_does_not_say_its_weights(build, batch):
    class Silent(Method):
        pass

    pipeline = build(**SLIDE)
    pipeline.method = Silent()
    with pytest.raises(ValueError, match=r'^there is no attention to show of method silent: .* a function weights .*$'):
        pipeline.gathered(batch[:1], (0, 0), (80, 112))
