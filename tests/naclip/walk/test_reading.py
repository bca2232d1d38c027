"""A reading: each block once, and what comes out is the tower's."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from clip.model import VisionTransformer, resample_by_size
from naclip.walk.reading import ConvNeXtReading, Reading, cosine
from naclip.walk.windows import NO_MARGINS, Margins


@pytest.fixture
def visual(model) -> VisionTransformer:
    return model.visual


@pytest.fixture
def block_runs(visual, monkeypatch) -> Callable[[], list[int]]:
    """The numbers of the blocks that ran whole, in order."""
    blocks, runs = list(visual.transformer.resblocks), []
    kind = type(blocks[0])
    forward = kind.forward
    monkeypatch.setattr(
        kind, 'forward', lambda self, *args: runs.append(blocks.index(self) + 1) or forward(self, *args)
    )
    return lambda: runs


@torch.no_grad()
def test_tokens_as_the_tower(visual, batch):
    reading = Reading(visual, batch)
    x, grid = visual.embed(batch)
    assert reading.grid == grid == (5, 7)
    assert reading.depth == 3
    assert torch.equal(reading.tokens(0), x)
    for layer, block in enumerate(visual.transformer.resblocks, 1):
        x = block(x)
        assert reading.block(layer) is block
        assert torch.equal(reading.tokens(layer), x)
    torch.testing.assert_close(reading.project(reading.tokens(3)[:, 0]), visual(batch))


@torch.no_grad()
def test_blocks_run_once_and_only_when_asked_for(visual, batch, block_runs):
    reading = Reading(visual, batch)
    assert block_runs() == []
    reading.qkv(2)
    assert block_runs() == [1]
    first = reading.tokens(1)
    assert reading.tokens(3) is reading.tokens(3)
    assert reading.tokens(1) is first
    assert block_runs() == [1, 3]  # half of block 2 was done before


@torch.no_grad()
def test_looking_inside_first_changes_nothing(visual, batch):
    looked, plain = Reading(visual, batch), Reading(visual, batch)
    looked.attention(1)
    looked.qkv(3)
    torch.testing.assert_close(looked.tokens(3), plain.tokens(3), rtol=0, atol=1e-6)


@torch.no_grad()
def test_inside_a_block(visual, batch):
    reading = Reading(visual, batch)
    block = visual.transformer.resblocks[1]
    normed = block.ln_1(reading.tokens(1))
    assert torch.equal(reading.normed(2), normed)
    projected = (normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).view(3, 36, 3, 2, 64)
    for i, part in enumerate(reading.qkv(2)):
        torch.testing.assert_close(part, projected[:, :, i].transpose(1, 2), rtol=1e-5, atol=1e-5)
    q, k, _ = reading.qkv(2)
    torch.testing.assert_close(reading.attention(2), torch.softmax(q @ k.mT / 8, dim=-1))


@torch.no_grad()
def test_patches_in_their_places(visual, batch):
    reading = Reading(visual, batch)
    tokens = torch.arange(36.0).expand(3, 36)[..., None]
    patches = reading.patches(tokens)
    assert patches.shape == (3, 5, 7, 1)
    assert patches[2, 3, 4, 0] == 1 + 3 * 7 + 4


@torch.no_grad()
def test_how_the_positional_embedding_gets_to_the_grid(visual, batch):
    by_scale, by_size = Reading(visual, batch), Reading(visual, batch, resample_by_size)
    assert torch.equal(by_size.tokens(0), visual.embed(batch, resample_by_size)[0])
    assert not torch.allclose(by_size.tokens(0), by_scale.tokens(0), atol=1e-3)


def test_margins_are_handed_on(visual, batch):
    assert Reading(visual, batch).margins == NO_MARGINS
    assert Reading(visual, batch, margins=Margins(1, 2, 3, 4)).margins == (1, 2, 3, 4)


def test_too_small(visual):
    with pytest.raises(ValueError, match='smaller than one 16-pixel patch'):
        Reading(visual, torch.zeros(1, 3, 15, 40))


@torch.no_grad()
def test_a_convnext_has_positions(convnext_parts):
    from clip.convnext import ConvNeXt

    visual = ConvNeXt(convnext_parts.visual.trunk, convnext_parts.visual.head)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ConvNeXtReading(visual, images).features(), visual.read(images)[1])


def test_cosine_as_the_formula():
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(2, 2, 3, 4, generator=generator)
    texts = F.normalize(torch.randn(5, 4, generator=generator), dim=-1)
    maps = cosine(features, texts)
    assert maps.shape == (2, 5, 2, 3)
    for b, y, x, q in [(0, 0, 0, 0), (1, 1, 2, 4), (0, 1, 0, 3)]:
        expected = F.cosine_similarity(features[b, y, x], texts[q], dim=0)
        torch.testing.assert_close(maps[b, q, y, x], expected)
    assert cosine(features.half(), texts).dtype == torch.float32
