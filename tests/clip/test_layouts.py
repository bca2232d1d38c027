"""State dicts as other projects write them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clip.layouts import WRAPPERS, openai_layout, unwrapped
from clip.model import build_model
from tests.clip.references import hugging_face_model


def same(ours: dict, expected: dict) -> bool:
    return ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in expected)


@given(st.lists(st.sampled_from(WRAPPERS), max_size=3))
def test_any_wrapping_comes_off(tiny_state_dict, wrappers):
    wrapped = {''.join(wrappers) + name: tensor for name, tensor in tiny_state_dict.items()}
    assert same(openai_layout(wrapped), tiny_state_dict)


def test_a_prefix_of_some_names_stays():
    weights = {'module.a': torch.zeros(1), 'b': torch.zeros(1)}
    assert unwrapped(weights).keys() == weights.keys()
    assert unwrapped({}) == {}


def test_custom_text_of_openclip(tiny_state_dict):
    towers = ('positional_embedding', 'text_projection', 'token_embedding', 'ln_final', 'transformer')
    moved = {f'text.{name}' if name.startswith(towers) else name: t for name, t in tiny_state_dict.items()}
    assert 'text.token_embedding.weight' in moved
    assert same(openai_layout(moved), tiny_state_dict)


def test_temperature_of_one_number(tiny_state_dict):
    scale = tiny_state_dict['logit_scale']
    assert same(openai_layout(tiny_state_dict | {'logit_scale': scale.reshape(1)}), tiny_state_dict)


def test_hugging_face_has_every_weight():
    weights = openai_layout(hugging_face_model().state_dict())
    model = build_model(weights)
    assert model.state_dict().keys() == weights.keys()


def test_hugging_face_of_early_releases():
    """Their state dicts also have numbers that count up."""
    weights = hugging_face_model().state_dict()
    early = {f'{tower}_model.embeddings.position_ids': torch.arange(17)[None] for tower in ('text', 'vision')}
    assert same(openai_layout(weights | early), openai_layout(weights))


@pytest.mark.parametrize('letter', 'kv')
def test_hugging_face_without_some(letter):
    weights = hugging_face_model().state_dict()
    name = f'vision_model.encoder.layers.1.self_attn.{letter}_proj.bias'
    del weights[name]
    with pytest.raises(ValueError, match=rf'not a CLIPModel: {name} is missing'):
        openai_layout(weights)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('logit_bias', 'a sigmoid loss, as SigLIP'),
        ('module.logit_bias', 'a sigmoid loss, as SigLIP'),
        ('text_decoder.resblocks.0.ln_1.weight', 'a text decoder, as CoCa'),
        ('vision_model.head.probe', 'a pooling head, as SigLIP'),
        ('visual.trunk.blocks.0.attn.qkv.weight', "a ViT of timm's as its image tower, as SigLIP, EVA02"),
        ('visual.blocks.0.attn.q_proj.weight', 'an EVA image tower'),
        ('visual.attn_pool.query', 'an attentional pooling'),
        ('text.transformer.embeddings.word_embeddings.weight', 'a text tower of Hugging Face'),
        ('visual.transformer.resblocks.0.ls_1.gamma', 'layer scale'),
    ],
)
def test_other_towers_are_refused_by_name(name, message):
    with pytest.raises(ValueError, match=rf'a CLIP with {message}.*which this toolkit does not have'):
        openai_layout({name: torch.zeros(1)})
