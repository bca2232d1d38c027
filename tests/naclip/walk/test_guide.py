"""The second tower's reading: lazy, once, on the same pixels; and its input."""

import pytest
import torch

from clip import MEAN, STD
from clip.guides import IMAGENET_MEAN, IMAGENET_STD, build_guide
from naclip.methods.naclip import NACLIP
from naclip.methods.proxyclip import ProxyCLIP
from naclip.pipeline import Pipeline, Settings
from naclip.walk.guide import GuideReading, guide_input
from naclip.walk.reading import Reading
from naclip.walk.vocabulary import Vocabulary
from naclip.walk.windows import Margins, Window
from tests.goldens.guide_weights import dino_state_dict, dinov2_state_dict


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture
def guide():
    return build_guide(dino_state_dict(64, 2, 8, 64))


def test_input_is_normalised_anew():
    pixels = torch.rand(2, 3, 4, 5)
    mean, std, other_mean, other_std = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, STD, IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(guide_input((pixels - mean) / std), (pixels - other_mean) / other_std)


@pytest.mark.parametrize('registers', [None, 0, 4])
def test_parts_and_tokens_are_those_of_the_tower(registers):
    weights = dino_state_dict(64, 2, 8, 64) if registers is None else dinov2_state_dict(64, 2, 14, 70, registers)
    tower = build_guide(weights)
    windows = torch.randn(2, 3, 70, 56)
    reading = GuideReading(tower, windows)
    h, w = reading.grid
    special = 1 + (registers or 0)
    expected = tower(guide_input(windows))[:, special:]
    torch.testing.assert_close(reading.tokens.flatten(1, 2), expected)
    x, _ = tower.embed(guide_input(windows))
    qkv = tower.blocks[1].attn.qkv(tower.blocks[1].norm1(tower.blocks[0](x)))[:, special:]
    for part, mine in zip(qkv.split(64, dim=-1), (reading.q, reading.k, reading.v), strict=True):
        assert mine.shape == (2, h, w, 64)
        torch.testing.assert_close(mine.flatten(1, 2), part)


def test_each_block_runs_once_and_only_when_asked(guide):
    calls = []
    for i, block in enumerate(guide.blocks):
        block.norm1.register_forward_hook(lambda *_, i=i: calls.append(i))
    reading = GuideReading(guide, torch.randn(1, 3, 64, 64))
    assert calls == []
    _ = reading.v, reading.q
    assert calls == [0, 1]
    _ = reading.tokens, reading.tokens
    assert calls == [0, 1]


def test_a_method_without_a_guide_pays_nothing(model, guide):
    guide.forward = guide.embed = lambda *_: pytest.fail('the guide ran')
    texts = torch.nn.functional.normalize(torch.randn(2, 64), dim=-1)
    pipeline = Pipeline(model, NACLIP(), Vocabulary((('a',), ('b',))), texts, Settings(), guide)
    assert pipeline.guide is None
    pipeline(torch.randn(1, 3, 64, 64), (64, 64))
    with pytest.raises(ValueError, match=r'method proxyclip reads guide dino_vitb8, and the pipeline was given none'):
        Pipeline(model, ProxyCLIP(), Vocabulary((('a',), ('b',))), texts, Settings())


def test_what_is_not_attached(model):
    reading = Reading(model.visual, torch.zeros(2, 3, 64, 80), margins=Margins(2, 3, 4, 5))
    assert reading.boxes == [Window(0, 0, 59, 71)]
    with pytest.raises(ValueError, match='this reading has no guide'):
        _ = reading.guide
    with pytest.raises(ValueError, match='this reading has no region masks'):
        _ = reading.regions
