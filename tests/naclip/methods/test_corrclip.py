"""CorrCLIP against its goldens, and its parts against references by hand."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from clip.model import VisionTransformer
from naclip.methods import for_tower
from naclip.methods.corrclip import (
    PADDING,
    CorrCLIP,
    allowed_pairs,
    majority,
    merged_regions,
    nearest,
    region_tokens,
    window_regions,
)
from naclip.walk.windows import Margins, cut, window_boxes
from tests.naclip.methods import guided_goldens as goldens
from tests.naclip.methods.reads import all_weights

golden, image = partial(goldens.golden, 'corrclip'), partial(goldens.image, 'corrclip')
THRESHOLDS = {'bg': 0.25, 'nobg': 0.0}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def mask(i: int):
    return golden()[f'instance_mask_{i}']


def first_reading(pipeline, i: int):
    size = tuple(image(i).shape[-2:])
    boxes = window_boxes(size, 112, 56)
    ids = pipeline.cut_regions(mask(i), image(i), boxes)[:1]
    return pipeline.read(cut(image(i), boxes[:1]), boxes[:1], ids)


@pytest.mark.parametrize('i', goldens.PICTURES)
def test_inner_values_as_golden(i):
    method = CorrCLIP()
    reading = first_reading(goldens.pipeline('corrclip', 'bg', method, goldens.dino(8)), i)
    cells = window_regions(reading.regions[0], reading.margins, reading.guide.grid)
    assert torch.equal(cells, golden()[f'window_regions/{i}'].long())
    branches = torch.cat(method.branches(reading))[:, ::3]
    goldens.assert_near(branches, golden()[f'branches_every3/{i}'], 1e-5)
    features = method.features(reading, None)[0].flatten(0, 1)[::3]
    goldens.assert_near(features, golden()[f'features_every3/{i}'], 1e-5)
    if i == 0:
        qk = (reading.guide.q + reading.guide.k)[0].flatten(0, 1)
        expected = golden()['guide/0']
        goldens.assert_near(F.normalize(qk, dim=-1), F.normalize(expected, dim=-1), 1e-5)
        goldens.assert_near(method.correlate(reading)[0][0], golden()['attention/0'], 1e-5)


def test_weights_make_the_branches():
    method = CorrCLIP()
    reading = first_reading(goldens.pipeline('corrclip', 'bg', method, goldens.dino(8)), 0)
    weights, cls = all_weights(method, reading)
    goldens.assert_near(weights, golden()['attention/0'], 1e-5)
    assert not cls.any()
    block = reading.block(12)
    for branch, x in zip(
        method.branches(reading),
        (reading.tokens(11), sum(reading.tokens(layer) for layer in range(6, 11)) / 5),
        strict=False,
    ):
        v = block.attn.qkv(block.ln_1(x))[2].transpose(1, 2).flatten(2)[:, 1:]
        v = F.interpolate(v.mT.unflatten(2, reading.grid), reading.guide.grid, mode='bilinear').flatten(2).mT
        goldens.assert_near(branch, block.attn.out_proj(weights @ v), 1e-5)


@pytest.mark.parametrize('i', goldens.PICTURES)
@pytest.mark.parametrize('mode', THRESHOLDS)
def test_predictions_as_golden(mode, i):
    pipeline = goldens.pipeline('corrclip', mode, CorrCLIP(), goldens.dino(8), prob_thd=THRESHOLDS[mode])
    size = goldens.original_size('corrclip', i)
    seen = pipeline.look(image(i), [mask(i)])
    goldens.assert_near(pipeline.merge(seen, size)[0, :, ::4, ::4], golden()[f'{mode}/cosine_every4/{i}'], 2e-5)
    labels, probabilities = pipeline.label(image(i), seen, size)
    goldens.assert_predicted('corrclip', f'{mode}/{i}', labels, probabilities)
    before = pipeline.decide(probabilities)[0, 0]
    assert (before != golden()[f'{mode}/{i}/label_before_vote'].long()).float().mean() < 1e-3


def test_padding_is_a_region_and_the_smallest_id_is_none():
    ids = torch.tensor([[3, 3, 7, 7]] * 4)
    cells = window_regions(ids, Margins(2, 2, 2, 2), (8, 8))
    assert cells[0, 0] == PADDING
    assert torch.equal(cells[2:6, 2:6], ids)
    numbers = merged_regions(cells.flatten(), torch.eye(64), 0.2).view(8, 8)  # nothing is like anything
    assert (numbers == 0).sum() == 8
    assert torch.equal(numbers == 0, cells == 3)
    assert len(numbers.unique()) == 3


def test_chains_of_regions_merge():
    """Four regions in a row, each like the next only; and two that are alike but for the sign."""
    angles = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.5, 3.14])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    numbers = merged_regions(torch.tensor([0, 1, 2, 3, 4, 9]), features, 0.2)
    assert numbers.tolist() == [0, 1, 1, 1, 1, 2]
    assert merged_regions(torch.tensor([5, 5, 9, 9, 9, 9]), features, 0.2).tolist() == [0, 0, 1, 1, 1, 1]
    assert merged_regions(torch.tensor([5] * 6), features, 0.2).tolist() == [0] * 6


def test_allowed_pairs_by_hand():
    regions = torch.tensor([0, 1, 1, 2])
    similarity = torch.tensor([[1, 0.9, 0.1, 0.8], [0.9, 1, 0.2, 0.7], [0.1, 0.2, 1, 0.9], [0.8, 0.7, 0.9, 1]])
    mean = similarity.mean()
    for i in range(4):
        for j in range(4):
            if regions[i] == 0 or regions[j] == 0:
                expected = bool(similarity[i, j] > mean)
            else:
                expected = bool(regions[i] == regions[j])
            assert bool(allowed_pairs(regions, similarity)[i, j]) == expected


def test_region_tokens_as_one_pass_with_a_mask():
    """The same as copies of CLS in front of all tokens, in one masked pass through the tower."""
    net = goldens.model()
    reading = CorrCLIP().read(net.visual, cut(image(0), window_boxes((112, 112), 112, 56)))
    cells = (torch.arange(49).view(7, 7) * 7 // 49) % 3
    tokens = reading.tokens(0)
    copies, patches = 3, 49
    mask = torch.zeros(copies + 1 + patches, copies + 1 + patches, dtype=torch.bool)
    mask[copies:, copies:] = True
    mask[:copies, copies] = True
    for region in range(copies):
        mask[region, copies + 1 :] = cells.flatten() == region
    x = torch.cat([tokens[:, :1].expand(-1, copies, -1), tokens], dim=1)
    for block in net.visual.transformer.resblocks:
        x = block(x, mask)
    goldens.assert_near(region_tokens(reading, 0, cells), x[0, :copies], 1e-5)


def test_majority_by_hand():
    regions = torch.tensor([[4, 4, 4, 8, 8, 9], [4, 4, 4, 8, 8, 9]])
    labels = torch.tensor([[0, 1, 2, 3, 5, 6], [2, 1, 2, 5, 3, 6]])
    expected = torch.tensor([[0, 1, 2, 3, 3, 6], [2, 1, 2, 3, 3, 6]])
    assert torch.equal(majority(regions, labels), expected)


def test_nearest_keeps_large_ids():
    ids = torch.tensor([[2**31 + 1, 7], [1, 2**31 + 3]])
    assert torch.equal(nearest(ids, (4, 4))[::2, ::2], ids)


def test_masks_are_required():
    pipeline = goldens.pipeline('corrclip', 'bg', CorrCLIP(), goldens.dino(8))
    with pytest.raises(ValueError, match=r'method corrclip needs a region mask for each picture .* got 0 for 1'):
        pipeline(image(0), (112, 112))
    with pytest.raises(ValueError, match=r'this reading has no region masks'):
        pipeline.similarity(image(0))


@pytest.mark.parametrize(
    ('constants', 'message'),
    [
        (dict(distance=3.0), 'distance is 3.0, expected'),
        (dict(layers=(3,)), r'layers is \(3,\), expected two'),
        (dict(multiple=0), 'multiple is 0, expected'),
    ],
)
def test_bad_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        CorrCLIP(**constants)


@pytest.mark.parametrize(('blocks', 'mean_of'), [(12, 5), (24, 12), (32, 28), (40, 36), (48, 44)])
def test_layers_of_towers(blocks: int, mean_of: int):
    """The published rule: blocks n-2-m to n-3, counted from 0, with m = 5, 12, 28 of 12, 24, 32 blocks, else n-4."""
    tower = VisionTransformer(64, 16, 64, blocks, 8)
    first, last = for_tower(CorrCLIP(), tower).layers
    assert list(range(first - 1, last)) == list(range(blocks - 2 - mean_of, blocks - 2))
