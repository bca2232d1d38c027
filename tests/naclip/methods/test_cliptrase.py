"""CLIPtrase: affinity, regions, votes, against the goldens; regions alone in test_regions.py."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from naclip.methods.cliptrase import CLIPtrase, token_affinity
from naclip.methods.last_block import LastBlock
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings
from naclip.walk.reading import Reading
from naclip.walk.text import read_templates, text_embeddings
from naclip.walk.vocabulary import Vocabulary
from tests.naclip.methods.field import assert_near
from tests.naclip.methods.reads import dense_tokens


@torch.no_grad()
@pytest.mark.parametrize('i', range(2))
def test_tokens_and_affinity(deep_model, cliptrase_golden, i):
    images = cliptrase_golden[f'image_{i}']
    tokens, grid = dense_tokens(deep_model.visual, images, CLIPtrase())
    assert_near(F.normalize(tokens, dim=-1), cliptrase_golden[f'visual_{i}'])
    assert_near(token_affinity(Reading(deep_model.visual, images)), cliptrase_golden[f'attn_{i}'])
    assert grid == (8, 8)


@torch.no_grad()
def test_other_shapes(deep_model, cliptrase_golden):
    images = cliptrase_golden['rect/image']
    tokens, grid = dense_tokens(deep_model.visual, images, CLIPtrase())
    assert_near(tokens, cliptrase_golden['rect/features'])
    assert_near(token_affinity(Reading(deep_model.visual, images)), cliptrase_golden['rect/attn'])
    assert grid == (5, 7)


@torch.no_grad()
def test_affinity_of_a_batch_is_that_of_singles(model, batch):
    together = token_affinity(Reading(model.visual, batch))
    singles = torch.cat([token_affinity(Reading(model.visual, picture[None])) for picture in batch])
    torch.testing.assert_close(together, singles, rtol=0, atol=2e-6)


@pytest.fixture(scope='module')
def cliptrase(deep_model, cliptrase_golden) -> Callable[..., Pipeline]:
    """CLIPtrase with the goldens' vocabulary, with or without a background class in front."""
    labels, background = (tuple(cliptrase_golden[key].tolist()) for key in ('labels', 'background'))
    features = text_embeddings(deep_model, [*background, *labels], read_templates(), progress=False)

    def build(
        with_background: bool = False, prob_thd: float = 0.0, method: Method | None = None, **constants: object
    ) -> Pipeline:
        classes = (background,) * with_background + tuple((name,) for name in labels)
        queries = features if with_background else features[len(background) :]
        method = method or CLIPtrase(**dict(eps=0.3, min_samples=2) | constants)
        settings = Settings(slide_crop=0, logit_scale=100, prob_thd=prob_thd)
        return Pipeline(deep_model, method, Vocabulary(classes), queries, settings)

    return build


@pytest.mark.parametrize('i', range(2))
@pytest.mark.parametrize(
    ('setting', 'options'),
    [('PC59', {}), ('VOC20', dict(cls_weight=True)), ('VOC21', dict(with_background=True, background=True))],
)
def test_cliptrase_goldens(cliptrase, cliptrase_golden, setting, options, i):
    labels, _ = cliptrase(**options)(cliptrase_golden[f'image_{i}'], (128, 128))
    if setting == 'VOC21':  # there background is the last class
        labels = (labels - 1) % 21
    assert torch.equal(labels[0, 0], cliptrase_golden[f'{setting}/pred_{i}'].long())


def test_regions_of_a_batch_are_those_of_singles(cliptrase, cliptrase_golden):
    pipeline = cliptrase()
    images = torch.cat([cliptrase_golden['image_0'], cliptrase_golden['image_1']])
    together, _ = pipeline(images, (100, 90))
    for i in range(2):
        assert torch.equal(together[i : i + 1], pipeline(images[i : i + 1], (100, 90))[0])


@pytest.mark.parametrize(('background', 'expected'), [(False, 0), (True, 6)])
def test_background_loses_ties(cliptrase, cliptrase_golden, monkeypatch, background, expected):
    """One region of two pixels: one is background's second name, the other the sixth class's only one."""
    monkeypatch.setattr('naclip.methods.cliptrase.find_regions', lambda *_: torch.zeros(1, 2, dtype=torch.int64))
    pipeline = cliptrase(with_background=True, background=background)
    maps = torch.zeros(1, 24, 1, 2)
    maps[0, 1, 0, 0] = maps[0, 4 + 5, 0, 1] = 1
    labels = torch.tensor([[[[0, 6]]]])
    reading = pipeline.read(cliptrase_golden['image_0'])
    assert pipeline.method.vote(reading, labels, maps, pipeline.query_idx).tolist() == [[[[expected, expected]]]]


def test_a_label_that_is_not_the_best_name_counts_as_its_first_name(cliptrase, cliptrase_golden, monkeypatch):
    """prob_thd made background of two of three pixels: that is what their region becomes."""
    monkeypatch.setattr('naclip.methods.cliptrase.find_regions', lambda *_: torch.zeros(1, 3, dtype=torch.int64))
    pipeline = cliptrase(with_background=True)
    maps = torch.zeros(1, 24, 1, 3)
    maps[0, 9] = 1
    reading = pipeline.read(cliptrase_golden['image_0'])
    voted = pipeline.method.vote(reading, torch.tensor([[[[0, 0, 6]]]]), maps, pipeline.query_idx)
    assert voted.tolist() == [[[[0, 0, 0]]]]


def test_without_a_cluster_pixels_keep_their_labels(cliptrase, cliptrase_golden):
    image = cliptrase_golden['image_0']
    alone, scattered, voting = (
        cliptrase(prob_thd=0.05, **options)(image, (128, 128))[0]
        for options in (dict(method=LastBlock('qkv', 'vanilla')), dict(eps=1e-6, min_samples=50), {})
    )
    assert torch.equal(scattered, alone)
    assert not torch.equal(voting, alone)


def test_the_first_blocks_run_once(cliptrase, cliptrase_golden, monkeypatch):
    pipeline = cliptrase()
    runs = []
    block = type(pipeline.net.visual.transformer.resblocks[0])
    forward = block.forward
    monkeypatch.setattr(block, 'forward', lambda self, *args: runs.append(self) or forward(self, *args))
    pipeline(cliptrase_golden['image_0'], (128, 128))
    assert len(runs) == len(set(map(id, runs))) == 11


def test_votes_need_whole_pictures(cliptrase):
    pipeline = cliptrase()
    for settings in (Settings(), Settings(slide_crop=0, area_thd=0.1)):
        with pytest.raises(ValueError, match='set slide_crop=0, area_thd=None'):
            Pipeline(pipeline.net, pipeline.method, pipeline.vocabulary, pipeline.query_features, settings)
