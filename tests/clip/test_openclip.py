"""Towers of OpenCLIP: equal to open_clip_torch's, and refused where ours cannot be equal."""

import copy

import pytest
import torch

import clip
from clip import openclip
from clip.form import Form
from tests.clip.references import SHAPES, TEXTS, openclip_config, openclip_model, pictures, write_openclip

open_clip = pytest.importorskip('open_clip')


@torch.no_grad()
@pytest.mark.parametrize('quick_gelu', [False, True], ids=['gelu', 'quick_gelu'])
@pytest.mark.parametrize('shape', SHAPES)
def test_equal_to_open_clip(tmp_path, shape, quick_gelu):
    config = openclip_config(shape, quick_gelu)
    reference = openclip_model(config)
    write_openclip(tmp_path, reference, config)
    net, _, checkpoint = clip.load_checkpoint(f'local-dir:{tmp_path}', 'cpu')
    activation = 'quick_gelu' if quick_gelu else 'gelu'
    assert net.form == Form(activation, SHAPES[shape]['head_width'], activation, 64)
    assert checkpoint.statement.known_by == 'open_clip_config.json'
    images = pictures(config['vision_cfg']['image_size'])
    torch.testing.assert_close(net.encode_image(images), reference.encode_image(images), rtol=0, atol=1e-5)
    tokens = open_clip.get_tokenizer('ViT-B-32')(TEXTS)  # theirs, and ours
    assert torch.equal(tokens, clip.tokenize(TEXTS))
    torch.testing.assert_close(net.encode_text(tokens), reference.encode_text(tokens), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('shape', ['B/16', 'H/14'])
def test_patches_as_open_clip(tmp_path, shape):
    """Before the projection, which open_clip leaves out for them."""
    config = openclip_config(shape)
    reference = openclip_model(config)
    write_openclip(tmp_path, reference, config)
    visual = clip.load(tmp_path, 'cpu')[0].visual
    reference.visual.output_tokens = True
    images = pictures(visual.input_resolution)
    tokens, _ = visual.embed(images)
    ours = visual.project(visual.transformer(tokens))[:, 1:]
    torch.testing.assert_close(ours, reference.visual(images)[1] @ reference.visual.proj, rtol=0, atol=1e-5)


def test_the_wrong_form_would_show(tmp_path):
    """Else the tests above would prove nothing."""
    config = openclip_config('B/16')
    reference = openclip_model(config)
    write_openclip(tmp_path, reference, config | {'quick_gelu': True})
    images = pictures(64)
    with torch.no_grad():
        ours = clip.load(tmp_path, 'cpu')[0].encode_image(images)
        assert (ours - reference.encode_image(images)).abs().max() > 1e-3


def test_pictures_are_made_ready_as_the_config_says(tmp_path):
    config = openclip_config('B/32')
    preprocess = dict(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7], interpolation='bilinear', resize_mode='squash')
    write_openclip(tmp_path, openclip_model(config), config, preprocess)
    _, ours, checkpoint = clip.load_checkpoint(tmp_path, 'cpu')
    said = checkpoint.statement
    assert (said.mean, said.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (said.interpolation, said.resize_mode) == ('bilinear', 'squash')
    noise = torch.randint(0, 256, (90, 200, 3), generator=torch.Generator().manual_seed(0)).numpy().astype('uint8')
    theirs = open_clip.image_transform(128, is_train=False, **preprocess)
    from PIL import Image

    torch.testing.assert_close(ours(Image.fromarray(noise)), theirs(Image.fromarray(noise)), rtol=0, atol=1e-6)


def said(**changes: object):
    config = openclip_config('B/16')
    for key, value in changes.items():
        part, _, name = key.rpartition('__')
        (config[part] if part else config)[name] = value
    return openclip.statement_of(config, {}, 'a test')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(init_logit_bias=-10), 'a sigmoid loss, as SigLIP,'),
        (
            dict(init_logit_bias=-10, vision_cfg__timm_model_name='vit_base_siglip'),
            'a sigmoid.* .image tower vit_base_si',
        ),
        (dict(multimodal_cfg={}), 'a text decoder, as CoCa'),
        (dict(vision_cfg__timm_model_name='eva02_base_patch16_clip_224'), "timm's eva02_base_patch16_clip_224"),
        (dict(vision_cfg__layers=[3, 4, 6, 3]), 'a ResNet image tower'),
        (dict(text_cfg__hf_model_name='roberta-base'), 'the text tower roberta-base'),
        (dict(text_cfg__hf_tokenizer_name='bert-base-uncased'), 'the tokenizer bert-base-uncased'),
        (dict(text_cfg__vocab_size=32000), 'a tokenizer of 32000 ids, where ours has 49408'),
        (dict(vision_cfg__no_ln_pre=True), 'vision_cfg.no_ln_pre = True'),
        (dict(vision_cfg__norm_kwargs={'eps': 1e-6}), 'vision_cfg.norm_kwargs'),
        (dict(vision_cfg__pool_type='avg'), "vision_cfg.pool_type = 'avg'"),
        (dict(text_cfg__no_causal_mask=True), 'text_cfg.no_causal_mask = True'),
        (dict(text_cfg__pool_type='last'), "text_cfg.pool_type = 'last'"),
        (dict(vision_cfg__rope=True), 'vision_cfg.rope = True'),
        (dict(novelty=3), 'novelty = 3'),
    ],
)
def test_other_towers_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=rf'a CLIP with {message}.*which this toolkit does not have; use a plain ViT$'):
        said(**changes)


def test_wrong_configs():
    with pytest.raises(ValueError, match=r'expected squares'):
        said(vision_cfg__image_size=[224, 336])
    with pytest.raises(ValueError, match='no model config of OpenCLIP'):
        openclip.statement_of({'vision_cfg': 3}, {}, 'a test')
    assert said(vision_cfg__image_size=[64, 64]).sizes['image_resolution'] == 64
    assert said(vision_cfg__pool_type='tok', vision_cfg__patch_dropout=0.5, text_cfg__proj_bias=False)


def test_the_registry_says_the_form_of_each_of_its_weights():
    """As open_clip itself builds them, whichever of two names a tag is asked under."""
    forms = {}
    for key, (name, tag) in openclip.registry().items():
        try:
            forms[key] = openclip.entry(name, tag).statement.form
        except ValueError as error:
            assert 'this toolkit does not have' in str(error)  # noqa: PT017
            continue
        quick = open_clip.get_pretrained_cfg(name, tag).get('quick_gelu', False)
        assert (forms[key].text_activation == 'quick_gelu') == quick
        assert name.startswith(('ViT', 'convnext_base'))
    assert forms['ViT-B-16/laion2b_s34b_b88k'] == Form('gelu', 64, 'gelu', 64)
    assert forms['ViT-B-16/dfn2b'] == forms['ViT-B-16-quickgelu/dfn2b'] == Form('quick_gelu', 64, 'quick_gelu', 64)
    assert forms['ViT-L-14/datacomp_xl_s13b_b90k'] == Form('gelu', 64, 'gelu', 64)
    assert forms['ViT-B-32/metaclip_400m'] == Form('quick_gelu', 64, 'quick_gelu', 64)
    assert forms['ViT-H-14/laion2b_s32b_b79k'] == Form('gelu', 80, 'gelu', 64)
    assert forms['ViT-g-14/laion2b_s12b_b42k'].head_width == 88
    assert forms['ViT-bigG-14/laion2b_s39b_b160k'].head_width == 104
    assert not [key for key in forms if key.startswith(('RN', 'EVA', 'coca', 'ViT-B-16-SigLIP', 'roberta'))]


def test_checksums_in_addresses():
    address = 'https://github.com/mlfoundations/open_clip/releases/download/v0.2/vit_b_16-laion400m_e32-55e67d44.pt'
    assert openclip.checksum_in(address) == '55e67d44'
    release = clip.weights.RELEASES['ViT-B/16']
    assert openclip.checksum_in(release.url) == release.sha256
    assert openclip.checksum_in('https://elsewhere/b16_400m.pt') == openclip.checksum_in('') == ''
    assert openclip.by_checksum('55e67d44' + '0' * 56) == ('ViT-B-16', 'laion400m_e32')
    assert openclip.by_checksum('f' * 64) is None


def test_without_open_clip(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'open_clip', None)
    assert openclip.registry() == {}
    assert openclip.by_checksum('55e67d44' + '0' * 56) is None


def test_a_convnext_has_the_size_that_its_config_says(convnext_parts, tmp_path):
    """The weights of 256 and of 320 pixels look the same."""
    config = openclip_config('B/16')
    config = copy.deepcopy(config) | {'quick_gelu': False}
    config['vision_cfg'] = dict(timm_model_name='test_convnext2', timm_pool='', timm_proj='linear', image_size=256)
    config['text_cfg'] = dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2)
    path = write_openclip(tmp_path, convnext_parts, config)
    assert clip.load(path, 'cpu')[0].visual.input_resolution == 256
    (tmp_path / 'open_clip_config.json').unlink()
    assert clip.load(path, 'cpu')[0].visual.input_resolution == 320
