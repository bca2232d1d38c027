"""What weights do not tell: which values there are, and how wrong ones are told."""

import pytest
import torch
from torch import nn

from clip.form import ACTIVATIONS, OPENAI, Form, Statement
from clip.model import ACTIVATIONS as MODULES
from clip.model import CLIP, QuickGELU, build_model
from tests.conftest import TOWER
from tests.goldens.weights import stand_in_state_dict


def heads(tower: nn.Module) -> set[int]:
    return {block.attn.heads for block in tower.transformer.resblocks}


def test_every_activation_has_a_module():
    assert tuple(MODULES) == ACTIVATIONS


def test_a_model_has_the_form_it_is_given():
    weights = stand_in_state_dict(**TOWER | dict(vocab_size=100, vision_width=160, text_width=96))
    model = build_model(weights, Form('gelu', 80, 'quick_gelu', 32))
    assert heads(model.visual) == {2}
    assert heads(model) == {3}
    assert {type(block.mlp.gelu) for block in model.visual.transformer.resblocks} == {nn.GELU}
    assert {type(block.mlp.gelu) for block in model.transformer.resblocks} == {QuickGELU}
    assert model.form == Form('gelu', 80, 'quick_gelu', 32)
    with pytest.raises(ValueError, match=r'160 wide cannot have heads 64 wide \(--head-width\)'):
        build_model(weights)


def test_the_form_changes_what_a_tower_computes(tiny_state_dict):
    """That is why it may not be guessed."""
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    openai, others = build_model(tiny_state_dict), [Form('gelu', 64, 'gelu'), Form('quick_gelu', 32)]
    with torch.no_grad():
        expected = openai.encode_image(image)
        for form in others:
            assert (build_model(tiny_state_dict, form).encode_image(image) - expected).abs().max() > 1e-3


def test_ffns_may_have_another_width(tiny_state_dict):
    """ViT-g/14 and bigG/14 do not have four times the tower's."""
    narrow = {name: tensor[:300] for name, tensor in tiny_state_dict.items() if 'visual' in name and '.c_fc.' in name}
    narrow |= {
        name: tensor[:, :300]
        for name, tensor in tiny_state_dict.items()
        if 'visual' in name and name.endswith('.c_proj.weight')
    }
    model = build_model(tiny_state_dict | narrow)
    assert {block.mlp.c_fc.out_features for block in model.visual.transformer.resblocks} == {300}
    assert {block.mlp.c_fc.out_features for block in model.transformer.resblocks} == {256}
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 64)


@pytest.mark.parametrize(
    ('blocks', 'width', 'patch', 'title'),
    [
        (12, 768, 16, 'ViT-B/16'),
        (24, 1024, 14, 'ViT-L/14'),
        (32, 1280, 14, 'ViT-H/14'),
        (3, 128, 16, 'a ViT of 3 blocks, 128 wide, patch 16'),
    ],
)
def test_title(blocks, width, patch, title):
    with torch.device('meta'):
        visual = CLIP(64, 4 * patch, blocks, width, patch, 77, 100, 64, 1, form=Form('gelu', 1)).visual
    assert visual.title == title


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('relu',), "unknown activation 'relu': choose from quick_gelu, gelu"),
        (('gelu', 64, 'tanh'), "unknown activation 'tanh'"),
        (('gelu', 0), 'the head width is 0, expected a whole number above 0'),
        (('gelu', 64.0), 'the head width is 64.0'),
    ],
)
def test_wrong_forms(arguments, message):
    with pytest.raises(ValueError, match=message):
        Form(*arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(interpolation='nearest'), "interpolation 'nearest', known are bicubic, bilinear"),
        (dict(resize_mode='longest'), "resize mode 'longest', known are shortest, squash"),
        (dict(mean=(0.5,)), r'its mean is \[0.5\], expected three numbers'),
        (dict(std=(1.0, 0.0, 1.0)), 'its std is .*, expected three numbers above 0'),
    ],
)
def test_wrong_statements(arguments, message):
    with pytest.raises(ValueError, match=message):
        Statement(OPENAI, 'a test', **arguments)
