"""LPOSS and LPOSS+ against their goldens, and their parts against references by hand."""

from functools import cache, partial

import pytest
import torch
from torch import nn

from clip import MEAN, STD
from clip.model import build_model
from naclip.methods.label_spreading import patch_graph, patch_response, positions
from naclip.methods.lposs import LPOSS, LPOSSPlus
from naclip.walk.gathering import Place
from naclip.walk.windows import cut, window_boxes
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import guided_goldens as goldens

golden = partial(goldens.golden, 'lposs')
CASES = [('quickgelu', mode, i) for mode in ('bg', 'nobg') for i in range(3)] + [('gelu', 'nobg', 0)]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@cache
def exact_gelu():
    """The stand-in CLIP with exact GELU in its image tower, as OpenCLIP's laion2B towers have it."""
    net = build_model(stand_in_state_dict(*goldens.SIZES))
    for block in net.visual.transformer.resblocks:
        block.mlp.gelu = nn.GELU()
    return net


def image(i: int):
    picture = golden()[f'picture_{i}'].permute(2, 0, 1)[None].float() / 255
    return (picture - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def pipeline(method, activation: str, mode: str):
    net = exact_gelu() if activation == 'gelu' else None
    texts = f'{activation}/{mode}'
    built = goldens.pipeline('lposs', texts, method, goldens.dino(16), net, logit_scale=1.0)
    if mode == 'bg':
        built = type(built)(
            built.net,
            method,
            goldens.vocabulary([0, 0, 0, 1, 2, 3, 4]),
            built.query_features,
            built.settings,
            built.guide,
        )
    return built


def reading_of(built, i: int):
    boxes = window_boxes(tuple(image(i).shape[-2:]), int(golden()['crop']), int(golden()['stride']))
    return built.read(cut(image(i), boxes), boxes)


@pytest.mark.parametrize('i', goldens.PICTURES)
def test_graph_as_golden(i):
    reading = reading_of(pipeline(LPOSS(), 'quickgelu', 'bg'), i)
    assert [[b.top, b.bottom, b.left, b.right] for b in reading.boxes] == golden()[f'windows/{i}'].tolist()
    unit = nn.functional.normalize(reading.guide.v.flatten(0, 2), dim=-1)
    goldens.assert_near(unit, golden()[f'guide/{i}'], 1e-5)
    places = positions(reading.boxes, reading.guide.grid, 16)
    graph = patch_graph(unit, places, int(golden()['k']), 0.01).to_dense()
    goldens.assert_near(graph.float(), golden()[f'graph/{i}'], 1e-5)


@pytest.mark.parametrize(('activation', 'mode', 'i'), CASES)
def test_inner_values_as_golden(activation, mode, i):
    method = LPOSS(neighbours=int(golden()['k']))
    built = pipeline(method, activation, mode)
    reading = reading_of(built, i)
    cosines = method.features(reading, None) @ built.query_features.T
    goldens.assert_near(cosines.flatten(0, 2), golden()[f'{activation}/{mode}/cosine/{i}'], 1e-5)
    solution = method.maps(reading, built.query_features).movedim(1, -1).flatten(0, 2)
    goldens.assert_near(solution, golden()[f'{activation}/{mode}/solution/{i}'], 1e-5)


@pytest.mark.parametrize('kind', [LPOSS, LPOSSPlus])
@pytest.mark.parametrize(('activation', 'mode', 'i'), CASES)
def test_predictions_as_golden(kind, activation, mode, i):
    built = pipeline(kind(neighbours=int(golden()['k'])), activation, mode)
    size = goldens.original_size('lposs', i)
    key = f'{activation}/{mode}/{"lposs" if kind is LPOSS else "lposs+"}/{i}'
    maps = built.logits(image(i), size)
    goldens.assert_near(maps[0, :, ::4, ::4], golden()[f'{key}/maps_every4'], 2e-5)
    mean = golden()[f'{key}/maps_mean_hw'].float()
    assert (maps[0].mean(dim=(1, 2)) - mean).abs().max() < 1e-5 * golden()[f'{key}/maps_every4'].abs().max()
    labels, _ = built(image(i), size)
    goldens.assert_labels('lposs', key, labels)


@pytest.mark.parametrize(('window', 'row', 'column'), [(0, 0, 0), (1, 2, 1)])
def test_weights_make_the_maps(window, row, column):
    """For each name those of the graph make its map of its scores; what is told is their mean over names."""
    built = pipeline(LPOSS(neighbours=40), 'quickgelu', 'bg')
    reading, method = reading_of(built, 1), built.method
    scores = method.features(reading, None) @ built.query_features.T  # (windows, h, w, Q)
    unit = nn.functional.normalize(reading.guide.v.flatten(0, 2), dim=-1)
    graph = patch_graph(unit, positions(reading.boxes, reading.guide.grid, 16), 40, 0.01)
    h, w = reading.guide.grid
    of_names = patch_response(graph, scores.flatten(0, 2), 0.95, 10, (window * h + row) * w + column)
    maps = method.maps(reading, built.query_features)
    expected = maps[window, :, row, column]
    torch.testing.assert_close((of_names * scores.flatten(0, 2)).sum(dim=0).float(), expected, rtol=1e-5, atol=1e-6)
    patches, cls = method.weights(reading, built.query_features, Place(window, row, column))
    assert cls == 0
    torch.testing.assert_close(patches.flatten().double(), of_names.mean(dim=1), rtol=1e-5, atol=1e-7)


def test_weights_in_a_batch_of_pictures():
    built = pipeline(LPOSS(neighbours=40), 'quickgelu', 'bg')
    pictures = torch.cat([image(1), image(1).flip(-1)])
    boxes = window_boxes(tuple(image(1).shape[-2:]), int(golden()['crop']), int(golden()['stride']))
    of_both = built.method.weights(
        built.read(cut(pictures, boxes), boxes), built.query_features, Place(len(boxes) + 1, 1, 2)
    ).patches
    alone = built.method.weights(
        built.read(cut(pictures[1:], boxes), boxes), built.query_features, Place(1, 1, 2)
    ).patches
    assert not of_both[: len(boxes)].any()
    goldens.assert_near(of_both[len(boxes) :], alone, 1e-4)


def test_batch_equals_singles():
    built = pipeline(LPOSSPlus(neighbours=40), 'quickgelu', 'bg')
    pictures = torch.cat([image(1), image(1).flip(-1), 0.5 * image(1)])
    together = built.logits(pictures, (72, 96))
    for i in range(3):
        goldens.assert_near(together[i : i + 1], built.logits(pictures[i : i + 1], (72, 96)), 1e-6)


@pytest.mark.parametrize(
    ('kind', 'constants', 'message'),
    [
        (LPOSS, dict(alpha=1.0), 'alpha is 1.0, expected'),
        (LPOSS, dict(decay=-1.0), 'decay is -1.0, expected'),
        (LPOSS, dict(neighbours=0), 'neighbours is 0, expected'),
        (LPOSSPlus, dict(reach=0), 'reach is 0, expected'),
        (LPOSSPlus, dict(tau=0.0), 'tau is 0.0, expected'),
    ],
)
def test_bad_constants(kind, constants, message):
    with pytest.raises(ValueError, match=message):
        kind(**constants)
