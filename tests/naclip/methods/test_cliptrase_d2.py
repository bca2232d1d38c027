"""CLIPtrase's second code base, against its goldens and literal loops.

Its goldens are pictures of one region each, with the published eps and min_samples. With those under their key
`dbscan` there would be more, and that is not what their scores show: see `test_goldens_are_of_one_region`.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import clip
from clip.model import build_model
from naclip.files import REPOSITORY
from naclip.methods.cliptrase import token_affinity
from naclip.methods.cliptrase_d2 import CLIPtraseD2, halved, products, region_means
from naclip.methods.regions import find_regions
from naclip.pipeline import Pipeline, Settings
from naclip.walk.text import read_templates, text_embeddings
from naclip.walk.vocabulary import Vocabulary
from tests.goldens.weights import stand_in_state_dict
from tests.naclip.methods import field

METHODS = {'plain': CLIPtraseD2(), 'voc': CLIPtraseD2(cls_weight=True)}
SCALE = {'plain': 1e2, 'voc': 1e4}  # exp(logit_scale), and its square: what published scores have on top of ours


@pytest.fixture(scope='module')
def golden():
    with np.load(field.GOLDENS / 'cliptrase_d2.npz') as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope='module')
def net(golden):
    return field.stand_in(str(golden['config']))


@pytest.fixture(scope='module')
def texts(golden):
    return torch.from_numpy(golden['text_features'])


@pytest.fixture(scope='module')
def build(golden, net, texts):
    """The walk; an `input_size` that is the picture's own takes maps straight to the original size."""

    def build(method, **settings):
        vocabulary = Vocabulary(tuple((str(name),) for name in golden['names']))
        return Pipeline(net, method, vocabulary, texts, Settings(slide_crop=0, logit_scale=100, **settings))

    return build


def picture(golden, i):
    rgb = torch.from_numpy(golden[f'rgb_{i}']).permute(2, 0, 1)[None] / 255
    return (rgb - torch.tensor(clip.MEAN)[:, None, None]) / torch.tensor(clip.STD)[:, None, None]


def size_of(golden, i):
    return tuple(golden[f'original_size_{i}'].tolist())


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('i', range(2))
@pytest.mark.parametrize('mode', METHODS)
@torch.no_grad()
def test_goldens(build, golden, mode, i):
    """Labels of the whole walk, and means in regions, which it does not give out."""
    image, size, method = picture(golden, i), size_of(golden, i), METHODS[mode]
    pipeline = build(method, input_size=tuple(image.shape[-2:]))
    labels, _ = pipeline(image, size)
    expected = torch.from_numpy(golden[f'{mode}/label_{i}']).long()
    ambiguous = np.unpackbits(golden[f'{mode}/ambiguous_{i}'])[: expected.numel()]
    clear = torch.from_numpy(ambiguous == 0).view(size)
    assert torch.equal(labels[0, 0][clear], expected[clear])
    reading, maps = pipeline.read(image), pipeline.logits(image, size)[0]
    regions = find_regions(token_affinity(reading)[0], reading.grid, size, method.eps, method.min_samples)
    means = SCALE[mode] * region_means(maps, regions)[:, regions]
    field.assert_near(means[:, ::8, ::8], torch.from_numpy(golden[f'{mode}/scores_every8_{i}']))


@pytest.mark.parametrize('i', range(2))
@torch.no_grad()
def test_goldens_are_of_one_region(net, golden, i):
    """Each name has one score all over the picture; the constants under `dbscan` would make several regions."""
    scores = golden[f'plain/scores_every8_{i}']
    assert np.ptp(scores, axis=(1, 2)).max() <= 1e-4 * np.abs(scores).max()
    reading = CLIPtraseD2().read(net.visual, picture(golden, i))
    affinity = token_affinity(reading)[0]
    counts = [
        int(find_regions(affinity, reading.grid, size_of(golden, i), eps, int(min_samples)).max()) + 1
        for eps, min_samples in ((CLIPtraseD2().eps, CLIPtraseD2().min_samples), golden['dbscan'])
    ]
    assert counts[0] == 1
    assert counts[1] > 1


def test_keys(golden):
    """What is not compared: `dbscan`, see above; the rest are inputs."""
    compared = ('plain/', 'voc/', 'text_features', 'templates')
    rest = {key for key in golden if not key.startswith(compared)}
    assert rest == {'names', 'dbscan', 'config', 'rgb_0', 'rgb_1', 'original_size_0', 'original_size_1'}


def test_texts(net, golden, texts):
    templates = read_templates(REPOSITORY / 'prompts' / 'vild.txt')
    assert templates == tuple(golden['templates'])
    ours = text_embeddings(net, golden['names'].tolist(), templates, progress=False)
    torch.testing.assert_close(ours, texts, rtol=0, atol=1e-4)


@pytest.mark.parametrize('size', [(64, 96), (150, 128), (33, 70)])
def test_halved_as_literal_loops(size):
    """Padded with zeros at the end, each pixel is the mean of four."""
    images = noise(1, 3, *size)
    padded = torch.zeros(1, 3, -(-size[0] // 32) * 32, -(-size[1] // 32) * 32)
    padded[:, :, : size[0], : size[1]] = images
    half = halved(images)
    assert half.shape == (1, 3, padded.shape[2] // 2, padded.shape[3] // 2)
    for y in range(0, half.shape[2], 3):
        for x in range(0, half.shape[3], 3):
            square = padded[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            torch.testing.assert_close(half[0, :, y, x], square.mean(dim=(1, 2)), rtol=0, atol=1e-6)


def test_products_as_literal_loops():
    features, texts = noise(2, 3, 4, 5), F.normalize(noise(6, 5, seed=1), dim=-1)
    maps = products(features, texts)
    for b, q, y, x in np.ndindex(2, 6, 3, 4):
        expected = sum(float(features[b, y, x, c] * texts[q, c]) for c in range(5))
        assert abs(float(maps[b, q, y, x]) - expected) < 1e-5


@pytest.mark.parametrize('size', [(5, 7), (8, 3)])
def test_region_means_as_literal_loops(size):
    maps, regions = noise(4, *size), torch.randint(0, 3, size, generator=torch.Generator().manual_seed(0)) * 2
    means = region_means(maps, regions)
    assert means.shape == (4, 5)
    for q in range(4):
        for region in range(5):
            inside = [float(maps[q, y, x]) for y, x in np.ndindex(size) if regions[y, x] == region]
            assert abs(float(means[q, region]) - (sum(inside) / len(inside) if inside else 0)) < 1e-6


def test_means_of_large_regions_keep_their_digits():
    maps = torch.full((1, 2048, 2048), 0.1)
    assert abs(float(region_means(maps, torch.zeros(2048, 2048, dtype=torch.long))) - 0.1) < 1e-5


@torch.no_grad()
def test_cls_weight(net, texts, golden):
    reading = CLIPtraseD2().read(net.visual, picture(golden, 1))
    cls = CLIPtraseD2().tokens(reading)[0, 0] @ texts.T  # (Q,)
    plain, weighted = (method.maps(reading, texts) for method in METHODS.values())
    torch.testing.assert_close(weighted, plain * cls[:, None, None], rtol=1e-5, atol=1e-4)


def several_regions(net, golden):
    """A method, a reading and its picture's regions, of which there are several."""
    method = CLIPtraseD2(eps=0.4, min_samples=2)
    reading = method.read(net.visual, picture(golden, 1))
    return method, reading, find_regions(token_affinity(reading)[0], reading.grid, (45, 38), 0.4, 2)


@torch.no_grad()
def test_each_region_has_the_class_of_its_highest_mean(net, golden):
    """Names 1 and 2 are class 1; labels do not matter."""
    method, reading, regions = several_regions(net, golden)
    maps, query_idx = noise(1, 4, 45, 38), torch.tensor([0, 1, 1, 2])
    maps[0, 2] += 0.5 * (regions == 1)
    maps[0, 3] += 0.5 * (regions == 2)
    labels = torch.randint(0, 3, (1, 1, 45, 38), generator=torch.Generator().manual_seed(0))
    voted = method.vote(reading, labels, maps, query_idx)
    assert voted.shape == labels.shape
    for region in range(int(regions.max()) + 1):
        means = [maps[0, q][regions == region].mean() for q in range(4)]
        assert voted[0, 0][regions == region].unique().tolist() == [int(query_idx[int(np.argmax(means))])]
    assert voted.unique().numel() > 1


@torch.no_grad()
def test_without_a_cluster_the_labels_stand(build, golden):
    image = picture(golden, 1)
    pipeline = build(CLIPtraseD2(eps=1e-3, min_samples=2), input_size=(150, 128))
    labels, probabilities = pipeline(image, size_of(golden, 1))
    assert torch.equal(labels, probabilities.argmax(dim=1, keepdim=True))
    assert labels.unique().numel() > 1


@torch.no_grad()
def test_batch_as_singles(build):
    batch = torch.rand(2, 3, 70, 100, generator=torch.Generator().manual_seed(0))
    pipeline = build(CLIPtraseD2(eps=0.4, min_samples=2))
    torch.testing.assert_close(
        pipeline.similarity(batch), torch.cat([pipeline.similarity(batch[i : i + 1]) for i in range(2)])
    )
    assert pipeline.similarity(batch).shape == (2, 9, 3, 4)
    together, _ = pipeline(batch, (70, 100))
    assert torch.equal(together, torch.cat([pipeline(batch[i : i + 1], (70, 100))[0] for i in range(2)]))


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
@pytest.mark.parametrize('mode', METHODS)
@torch.no_grad()
def test_half_precision(net, golden, texts, mode, dtype, tolerance):
    half = build_model(stand_in_state_dict(**json.loads(str(golden['config'])))).cast(dtype).visual
    method, image = METHODS[mode], picture(golden, 0)
    maps = method.maps(method.read(half, image), texts)
    assert maps.dtype == torch.float32
    field.assert_near(maps, method.maps(method.read(net.visual, image), texts), tolerance)


@pytest.mark.parametrize('constants', [{'eps': 0.0}, {'min_samples': 0}, {'eps': float('nan')}])
def test_bad_constants(constants):
    with pytest.raises(ValueError, match='expected > 0 and >= 1'):
        CLIPtraseD2(**constants)


def test_published_as():
    method = CLIPtraseD2()
    assert (method.name, method.protocol, method.votes) == ('cliptrase_d2', 'cliptrase_d2', True)
    assert (method.attention, method.architecture, method.eps, method.min_samples) == ('qkv', 'vanilla', 1.1, 7)
