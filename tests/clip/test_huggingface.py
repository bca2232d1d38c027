"""Towers of Hugging Face transformers: equal to its CLIPModel, and refused where ours cannot be equal."""

import pytest
import torch

import clip
from clip.form import MEAN, STD, Form
from clip.huggingface import preprocessing, statement_of
from tests.clip.references import TEXTS, hugging_face_model, pictures, write_hugging_face

CONFIG = {'model_type': 'clip'}


@torch.no_grad()
@pytest.mark.parametrize('activation', ['quick_gelu', 'gelu'])
@pytest.mark.parametrize(('head_width', 'patch'), [(64, 32), (64, 16), (80, 14), (88, 14), (104, 14)])
def test_equal_to_transformers(tmp_path, head_width, patch, activation):
    reference = hugging_face_model(head_width, activation, patch)
    write_hugging_face(tmp_path, reference)
    net, _, checkpoint = clip.load_checkpoint(f'local-dir:{tmp_path}', 'cpu')
    assert net.form == Form(activation, head_width, activation, 64)
    assert checkpoint.statement.known_by == 'config.json'
    tokens = clip.tokenize(TEXTS)
    images = pictures(4 * patch)
    theirs = reference.get_image_features(pixel_values=images), reference.get_text_features(input_ids=tokens)
    theirs = [getattr(features, 'pooler_output', features) for features in theirs]
    torch.testing.assert_close(net.encode_image(images), theirs[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(net.encode_text(tokens), theirs[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(net.logit_scale, reference.logit_scale)


@torch.no_grad()
def test_texts_end_where_transformers_ends_them():
    """Padded with the end token, as its tokenizer does, and with the early configs' id of that."""
    reference = hugging_face_model()
    tokens = clip.tokenize(TEXTS)
    from clip.layouts import openai_layout
    from clip.model import build_model

    ours = build_model(openai_layout(reference.state_dict())).encode_text(tokens)
    padded = tokens.masked_fill(tokens == 0, tokens.max())
    for eos in (2, 49407):
        reference.text_model.eos_token_id = eos
        for ids in (tokens, padded):
            theirs = reference.get_text_features(input_ids=ids)
            torch.testing.assert_close(ours, getattr(theirs, 'pooler_output', theirs), rtol=0, atol=1e-5)


def test_what_a_config_leaves_out_is_as_in_transformers():
    transformers = pytest.importorskip('transformers')
    usual = transformers.CLIPConfig()
    said = statement_of(CONFIG, None)
    assert said.form == Form('quick_gelu', usual.vision_config.hidden_size // usual.vision_config.num_attention_heads)
    assert said.sizes == {
        'embed_dim': usual.projection_dim,
        'image_resolution': usual.vision_config.image_size,
        'vision_layers': usual.vision_config.num_hidden_layers,
        'vision_width': usual.vision_config.hidden_size,
        'vision_patch_size': usual.vision_config.patch_size,
        'context_length': usual.text_config.max_position_embeddings,
        'vocab_size': usual.text_config.vocab_size,
        'transformer_width': usual.text_config.hidden_size,
        'transformer_layers': usual.text_config.num_hidden_layers,
    }
    early = statement_of(CONFIG | {'text_config': None, 'vision_config_dict': {'num_attention_heads': 16}}, None)
    assert early.form.head_width == 48


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model_type': 'siglip'}, "of type 'siglip', which this toolkit does not have"),
        ({'model_type': None}, "of type 'unknown'"),
        ({'vision_config': {'hidden_act': 'gelu_pytorch_tanh'}}, "of its vision tower is 'gelu_pytorch_tanh'"),
        ({'text_config': {'hidden_act': 'relu'}}, "of its text tower is 'relu'.*known are quick_gelu, gelu"),
        ({'vision_config': {'layer_norm_eps': 1e-6}}, 'layer_norm_eps of its vision tower is 1e-06, expected 1e-05'),
        ({'text_config': {'vocab_size': 30000}}, 'a tokenizer of 30000 ids, where ours has 49408'),
        ({'text_config': {'eos_token_id': 7}}, 'read at token 7, where our tokenizer ends them with 49407'),
    ],
)
def test_other_models_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        statement_of(CONFIG | changes, None)


def test_preprocessing():
    assert preprocessing({}) == dict(mean=MEAN, std=STD, interpolation='bicubic', resize_mode='shortest')
    assert preprocessing({'size': {'shortest_edge': 224}})['resize_mode'] == 'shortest'
    other = {'size': {'height': 2, 'width': 2}, 'resample': 2, 'image_mean': [0.1] * 3, 'image_std': [0.2] * 3}
    assert preprocessing(other) == dict(mean=(0.1,) * 3, std=(0.2,) * 3, interpolation='bilinear', resize_mode='squash')
    assert preprocessing(other | {'do_normalize': False})['mean'] == (0, 0, 0)
    with pytest.raises(ValueError, match='has resample 0, expected 2 or 3'):
        preprocessing({'resample': 0})
