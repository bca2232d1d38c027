"""What every method promises, for each entry of METHODS: one contract, which a new entry inherits by being there.

The tower is a stand-in of twelve blocks and small patches, so that every method has the layers and patches it needs.
Methods with a guide get a small one, those that need region masks get some of each picture's colours.
"""

import dataclasses
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clip.form import Form
from clip.guides import Guide, build_guide
from clip.model import CLIP, build_model
from naclip.methods import METHODS, build_method
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings, queries_of
from naclip.walk.gathering import Place
from naclip.walk.vocabulary import Vocabulary
from tests.goldens.guide_weights import dino_state_dict
from tests.goldens.weights import stand_in_state_dict

SIZES = dict(
    embed_dim=32,
    image_resolution=64,
    vision_layers=12,
    vision_width=64,
    patch_size=8,
    context_length=77,
    vocab_size=100,
    text_width=64,
    text_layers=1,
)
NAMES = (('background', 'wall'), ('cat',), ('dog', 'puppy'), ('grass',))
SIZE = (72, 96)  # of the pictures; 9 x 12 patches, off the native grid of 8 x 8, not square
# The sums of weights that are not 1: of two or three softmaxes, or scaled. Labels that spread have none.
TOTALS = {
    'sclip': 2,
    'cliptrase': 3,
    'cliptrase_d2': 3,
    'resclip': 2,
    'resclip_clearclip': 2,
    'resclip_sclip': 3.2,
    'lposs': None,
    'lposs_plus': None,
}
SETTINGS = dict(slide_crop=64, slide_stride=24, prob_thd=0.05)


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    return stand_in_state_dict(**SIZES)


@pytest.fixture(scope='module')
def net(weights) -> CLIP:
    return build_model(weights)


@pytest.fixture(scope='module')
def pictures() -> Tensor:
    """Three different pictures, smooth enough to have edges (3, 3, *SIZE)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(3, 3, 9, 12, generator=generator)
    return 1.5 * F.interpolate(coarse, SIZE, mode='bicubic') + 0.1 * torch.randn(3, 3, *SIZE, generator=generator)


@pytest.fixture(params=METHODS, ids=lambda method: method.name)
def method(request) -> Method:
    """An entry of METHODS. What clusters does so on these small grids, too; a graph does not tie all to all."""
    small = {'eps': 0.5, 'min_samples': 2} | ({'neighbours': 8} if request.param.whole else {})
    known = {key: value for key, value in small.items() if key in request.param.constants}
    return dataclasses.replace(request.param, **known)


def guide_for(net: CLIP) -> Guide:
    """A guide whose patches are not CLIP's, in the dtype of a CLIP."""
    return build_guide(dino_state_dict(embed_dim=64, depth=2, patch_size=7, image_size=56)).cast(net.dtype)


class Furnished(Pipeline):
    """A pipeline that makes region masks of what it sees, where its method needs them."""

    def regions_of(self, pictures: Tensor) -> Tensor | None:
        """Which channels are bright (B, H, W): 0 to 7, and an id that no 16 bits hold."""
        bright = (pictures > 0).long()
        ids = bright[:, 0] + 2 * bright[:, 1] + 4 * bright[:, 2]
        return torch.where(ids == 7, 100_000, ids) if self.method.needs_regions else None

    def read(self, windows, boxes=None, regions=None):
        return super().read(windows, boxes, self.regions_of(windows) if regions is None else regions)

    def look(self, images, regions=()):
        made = self.regions_of(images)
        return super().look(images, regions if made is None else list(made))


def build(net: CLIP, method: Method, **settings: object) -> Pipeline:
    vocabulary = Vocabulary(NAMES)
    count = len(queries_of(vocabulary, method))
    texts = F.normalize(torch.randn(count, SIZES['embed_dim'], generator=torch.Generator().manual_seed(1)), dim=-1)
    windows = dict(SETTINGS, slide_crop=0) if method.votes else SETTINGS
    return Furnished(net, method, vocabulary, texts, Settings(**windows | settings), guide_for(net))


def test_labels_and_probabilities(net, method, pictures):
    labels, probabilities = build(net, method)(pictures, (50, 61))
    assert (labels.shape, labels.dtype) == ((3, 1, 50, 61), torch.int64)
    assert probabilities.shape == (3, len(NAMES), 50, 61)
    assert int(labels.min()) >= 0
    assert int(labels.max()) < len(NAMES)
    assert probabilities.isfinite().all()
    assert len(labels.unique()) > 1


def test_batch_equals_singles(net, method, pictures):
    pipeline = build(net, method)
    labels, probabilities = pipeline(pictures, (50, 61))
    for i in range(3):
        label, probability = pipeline(pictures[i : i + 1], (50, 61))
        torch.testing.assert_close(probabilities[i : i + 1], probability, rtol=1e-3, atol=1e-5)
        assert (labels[i : i + 1] == label).float().mean() > 0.999


def test_windows_do_not_know_each_other(net, method, pictures):
    """Maps of a batch are those of its members, whatever else is in it."""
    pipeline = build(net, method)
    windows = pictures[:, :, :64, :64]
    together = pipeline.similarity(windows)
    for order in ([2, 0, 1], [1, 1, 0]):
        torch.testing.assert_close(pipeline.similarity(windows[order]), together[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('size', [(64, 64), (48, 88), (104, 56), (77, 69)])
def test_any_grid(net, method, pictures, size):
    """Square and not, native and not, with sides that are no multiple of the patch."""
    picture = F.interpolate(pictures[:1], size, mode='bilinear')
    maps = build(net, method).similarity(picture)
    assert maps.shape[:2] == (1, 6)
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    labels, _ = build(net, method, slide_crop=0)(picture, size)
    assert labels.shape == (1, 1, *size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('form', 'patch'), [(Form('gelu', 80, 'gelu'), 14), (Form('quick_gelu', 88), 14), (Form('gelu', 32, 'gelu'), 16)]
)
def test_towers_of_other_forms(method, pictures, form, patch):
    """They are read, and what is read depends on their heads."""
    width = 2 * form.head_width
    weights = stand_in_state_dict(**SIZES | dict(vision_width=width, patch_size=patch, image_resolution=6 * patch))
    picture = F.interpolate(pictures[:1], (6 * patch, 7 * patch), mode='bilinear')
    maps, others = (
        build(build_model(weights, used), method).similarity(picture)
        for used in (form, replace(form, head_width=form.head_width // 2))
    )
    assert maps.shape[:2] == (1, 6)
    assert maps.isfinite().all()
    assert (maps - others).abs().max() > 1e-4


def test_one_name(net, method, pictures):
    vocabulary = Vocabulary((('cat',),))
    texts = F.normalize(torch.randn(1 + len(method.companions), 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    pipeline = Furnished(net, method, vocabulary, texts, Settings(slide_crop=0), guide_for(net))
    labels, probabilities = pipeline(pictures[:1], (40, 50))
    assert probabilities.shape == (1, 1, 40, 50)
    assert probabilities.isfinite().all()
    assert (labels == 0).all()


def test_a_picture_of_one_colour(net, method):
    """Nothing divides by zero where all patches are alike but for their places."""
    labels, probabilities = build(net, method)(torch.zeros(1, 3, *SIZE), SIZE)
    assert probabilities.isfinite().all()
    assert labels.shape == (1, 1, *SIZE)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(weights, net, method, pictures, dtype):
    half = build_model(weights).cast(dtype)
    full_labels, _ = build(net, method)(pictures, SIZE)
    labels, probabilities = build(half, method)(pictures, SIZE)
    assert probabilities.dtype == torch.float32
    assert probabilities.isfinite().all()
    assert (labels == full_labels).float().mean() > (0.9 if dtype == torch.float16 else 0.6)


def test_the_same_again(net, method, pictures):
    pipeline = build(net, method)
    first, second = (pipeline(pictures, SIZE) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_no_gradient_is_kept(net, method, pictures):
    pipeline = build(net, method)
    labels, probabilities = pipeline(pictures[:1], SIZE)
    assert not labels.requires_grad
    assert not probabilities.requires_grad
    assert not pipeline.similarity(pictures[:1]).requires_grad


@torch.no_grad()
def test_the_reading_is_not_changed(net, method, pictures):
    """Others may read it after: whatever was read stays what it was, and so do the pictures."""
    pipeline = build(net, method)
    windows = pictures[:, :, :64, :64].clone()
    reading = pipeline.read(windows)
    before = {layer: reading.tokens(layer).clone() for layer in range(reading.depth + 1)}
    parts = {layer: [part.clone() for part in reading.qkv(layer)] for layer in range(1, reading.depth + 1)}
    first = method.maps(reading, pipeline.query_features)
    assert torch.equal(method.maps(reading, pipeline.query_features), first)
    assert torch.equal(windows, pictures[:, :, :64, :64])
    for layer, tokens in before.items():
        assert torch.equal(reading.tokens(layer), tokens)
    for layer, expected in parts.items():
        for part, same in zip(reading.qkv(layer), expected, strict=True):
            assert torch.equal(part, same)


@torch.no_grad()
def test_who_reads_first_does_not_matter(net, method, pictures):
    """A reading that somebody has looked into gives the maps of a fresh one."""
    pipeline = build(net, method)
    fresh, used = (pipeline.read(pictures) for _ in range(2))
    used.attention(used.depth)
    used.attention(2)
    maps = method.maps(fresh, pipeline.query_features)
    torch.testing.assert_close(method.maps(used, pipeline.query_features), maps, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_weights(weights, method, pictures, dtype):
    """Each patch gathers from all patches of its window, whatever is beside it; a window of any kind."""
    pipeline = build(build_model(weights).cast(dtype), method)
    assert method.has_weights
    reading = pipeline.read(pictures[:, :, :64, :90])
    h, w = method.patch_grid(reading)
    for place in (Place(0, 0, 0), Place(1, h - 1, 1), Place(2, 1, w - 1)):
        patches, cls = found = method.weights(reading, pipeline.query_features, place)
        assert (patches.shape, patches.dtype) == ((3, h, w), torch.float32)
        assert patches.isfinite().all()
        others = [i for i in range(3) if i != place.window]
        assert not patches[others].any()
        total = TOTALS.get(method.name, 1)
        if total is not None:
            assert patches.min() >= 0
            assert cls >= 0
            assert found.total == pytest.approx(total, rel=1e-4 if dtype == torch.float32 else 1e-2)
        alone = pipeline.read(pictures[place.window, None, :, :64, :90])
        same = method.weights(alone, pipeline.query_features, place._replace(window=0))
        if dtype == torch.float32:
            torch.testing.assert_close(patches[place.window], same.patches[0], rtol=1e-3, atol=1e-5)
            assert cls == pytest.approx(same.cls, rel=1e-3, abs=1e-6)


def test_the_patch_under_a_pixel(net, method, pictures):
    """Where its maps have a pixel, in windows that overlap, and with what is put around them."""
    pipeline = build(net, method)
    picture, size = pictures[:1], (2 * SIZE[0], 2 * SIZE[1])
    regions = () if (made := pipeline.regions_of(picture)) is None else list(made)
    for pixel in ((0, 0), (143, 191), (70, 101), (37, 150)):
        placed = pipeline.gathered(picture, pixel, size, regions)
        for box in (placed.patch(size), placed.seen(size)):
            assert box.top <= pixel[0] < box.bottom
            assert box.left <= pixel[1] < box.right
        at_size = placed.at_size(size)
        assert at_size.shape == size
        seen = placed.seen(size)
        at_size[seen.top : seen.bottom, seen.left : seen.right] = 0
        assert not at_size.any()
        assert (seen == (0, 0, *size)) == (method.whole or method.votes)


def test_the_tower_is_not_changed(net, method, pictures):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modules = [type(module) for module in net.modules()]
    build(net, method)(pictures[:1], SIZE)
    assert [type(module) for module in net.modules()] == modules
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_its_repr_says_all_its_numbers_depend_on(method):
    assert repr(method) == f'{type(method).__name__}({", ".join(f"{k}={v!r}" for k, v in method.constants.items())})'
    assert {field.name for field in dataclasses.fields(method)} == set(method.constants)


def test_it_comes_back_from_a_record(method):
    """Name and constants, as results.json has them, make the same method."""
    import json

    record = json.loads(json.dumps(method.constants))
    again = build_method(dict(type=method.name, **record))
    assert again == method
    assert hash(again) == hash(method)
