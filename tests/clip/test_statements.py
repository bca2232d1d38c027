"""How a checkpoint's form is known, and what happens where it is not."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import clip
from clip.form import OPENAI, Form
from clip.sources import open_checkpoint
from clip.statements import given_form, read_json
from tests.clip.references import (
    hugging_face_model,
    openclip_config,
    openclip_model,
    write_hugging_face,
    write_openclip,
)
from tests.clip.test_weights import save_detectron2, save_torchscript
from tests.conftest import with_entries


@pytest.fixture
def bare(tiny_state_dict, tmp_path) -> Path:
    """A state dict of which nothing is known."""
    torch.save(tiny_state_dict, tmp_path / 'bare.pt')
    return tmp_path / 'bare.pt'


def known(path: Path | str) -> tuple[Form, str]:
    said = open_checkpoint(path).statement
    return said.form, said.known_by


def test_what_cannot_be_known_is_refused_with_the_options_that_decide(bare):
    with pytest.raises(
        ValueError,
        match=r'bare\.pt: weights do not tell .* give --activation quick_gelu\|gelu and --head-width N .*'
        r'activation, head_width.*open_clip_config\.json.*docs/backbones\.md$',
    ):
        clip.load(bare)


@pytest.mark.parametrize('wrapper', ['module.', 'model.', '_orig_mod.module.'])
def test_trainings_are_bare_too(tiny_state_dict, tmp_path, wrapper):
    """A prefix and an epoch say nothing of the activation."""
    weights = {f'{wrapper}{name}': tensor for name, tensor in tiny_state_dict.items()}
    torch.save({'epoch': 3, 'name': 'run', 'state_dict': weights, 'optimizer': {'state': {}}}, tmp_path / 'epoch_3.pt')
    with pytest.raises(ValueError, match='weights do not tell'):
        open_checkpoint(tmp_path / 'epoch_3.pt')
    net, _ = clip.load(tmp_path / 'epoch_3.pt', 'cpu', activation='gelu', head_width=32)
    assert net.form == Form('gelu', 32, 'gelu', 64)
    assert torch.equal(net.visual.proj, tiny_state_dict['visual.proj'])


def test_options_decide(bare):
    checkpoint = open_checkpoint(bare, activation='gelu', head_width=64)
    assert checkpoint.statement.form == Form('gelu', 64, 'gelu', 64)
    assert checkpoint.statement.known_by == 'the options activation and head_width'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(activation='gelu'), '--head-width N is needed, too'),
        (dict(head_width=64), r'--activation quick_gelu\|gelu is needed, too'),
        (dict(activation='relu', head_width=64), "unknown activation 'relu': choose from quick_gelu, gelu"),
        (dict(activation='gelu', head_width=0), 'the head width is 0'),
        (dict(activation='gelu', head_width=48), '128 wide cannot have heads 48 wide'),
    ],
)
def test_wrong_options(bare, options, message):
    with pytest.raises(ValueError, match=rf'bare\.pt: .*{message}'):
        clip.load(bare, **options)


def test_options_that_a_source_contradicts(tmp_path, tiny_state_dict):
    torch.save(with_entries(tiny_state_dict), tmp_path / 'm.pt')
    assert clip.load(tmp_path / 'm.pt', 'cpu', activation='quick_gelu', head_width=64)
    with pytest.raises(ValueError, match=r'its activation is quick_gelu by the entries .* and gelu was asked for'):
        clip.load(tmp_path / 'm.pt', activation='gelu')
    with pytest.raises(ValueError, match=r'its head width is 64 by .* and 80 was asked for: leave out'):
        clip.load(tmp_path / 'm.pt', head_width=80)
    assert given_form(None, None, None) is None


def test_openais_archives_have_entries(tiny_state_dict, tmp_path):
    save_torchscript(tiny_state_dict, tmp_path / 'm.pt')
    entries = "the entries input_resolution, context_length, vocab_size of OpenAI's archives"
    assert known(tmp_path / 'm.pt') == (OPENAI, entries)
    some = with_entries(tiny_state_dict)
    del some['vocab_size']
    torch.save(some, tmp_path / 'some.pt')
    with pytest.raises(ValueError, match='weights do not tell'):
        open_checkpoint(tmp_path / 'some.pt')


def test_openais_files_by_their_checksum_wherever_they_are(bare, monkeypatch):
    release = clip.weights.Release('http://nowhere/m.pt', clip.weights.file_sha256(bare))
    monkeypatch.setattr(clip.weights, 'RELEASES', clip.weights.RELEASES | {'ViT-L/14': release})
    assert known(bare) == (OPENAI, "the SHA-256 of OpenAI's ViT-L/14")


def test_pixelclips_layout(tiny_state_dict, tmp_path):
    save_detectron2(tiny_state_dict, tmp_path / 'model_final.pth')
    assert known(tmp_path / 'model_final.pth') == (OPENAI, "the layout of PixelCLIP's checkpoints")


def test_shapes():
    by_name = known('shapes')
    assert by_name == (OPENAI, 'the metadata of a CLIP trained on shapes')
    assert known(clip.weights.BUNDLED['shapes']) == by_name  # so that runs compare


def test_a_checksum_of_openclips_registry(bare, monkeypatch):
    open_clip = pytest.importorskip('open_clip')
    url = f'https://github.com/mlfoundations/open_clip/vit-{clip.weights.file_sha256(bare)[:8]}.pt'
    config = openclip_config('B/16')
    config['vision_cfg'] |= dict(layers=2, width=128, head_width=32, image_size=64)
    config['text_cfg'] |= dict(width=64, heads=1, layers=1)
    monkeypatch.setattr(open_clip, 'list_pretrained', lambda: [('ViT-B-16', 'laion400m_e32')])
    monkeypatch.setattr(open_clip, 'get_pretrained_cfg', lambda name, tag: {'url': url})
    monkeypatch.setattr(open_clip, 'get_model_config', lambda name: config)
    with pytest.raises(ValueError, match='its vocab_size is 100, and 49408 by the SHA-256 of ViT-B-16/laion400m_e32'):
        open_checkpoint(bare)


def test_a_config_beside_a_file(tmp_path):
    config = openclip_config('H/14')
    path = write_openclip(tmp_path / 'openclip', openclip_model(config), config)
    torch.save({'state_dict': safetensors.torch.load_file(path)}, path.with_name('mine.pt'))
    form = Form('gelu', 80, 'gelu', 64)
    assert known(path) == known(path.with_name('mine.pt')) == known(f'local-dir:{path.parent}')
    assert known(path) == (form, 'open_clip_config.json')
    path = write_hugging_face(tmp_path / 'hf', hugging_face_model(80, 'gelu', 14))
    assert known(path) == (form, 'config.json')


def test_a_config_of_another_model_beside_a_file(tmp_path):
    config = openclip_config('B/16')
    path = write_openclip(tmp_path, openclip_model(config), config)
    content = json.loads((tmp_path / 'open_clip_config.json').read_text())
    content['model_cfg']['vision_cfg']['layers'] = 12
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r'its vision_layers is 2, and 12 by open_clip_config\.json: that is of another'
    ):
        open_checkpoint(path)


def test_hugging_face_names_without_a_config(tmp_path):
    path = write_hugging_face(tmp_path, hugging_face_model(64, 'gelu', 16))
    (tmp_path / 'config.json').unlink()
    with pytest.raises(ValueError, match='weights do not tell'):
        open_checkpoint(path)
    assert clip.load(path, 'cpu', activation='gelu', head_width=64)


@pytest.mark.parametrize(
    'content',
    [
        *('{', '[]', '{"model_cfg": 3}', '{"vision_cfg": {"image_size": "a"}, "text_cfg": {}}'),
        *(
            '{"vision_cfg": {"image_size": 64}, "text_cfg": {"heads": 0}}',
            '{"vision_cfg": {}, "text_cfg": {"heads": "a"}}',
        ),
        *('{"vision_cfg": {"head_width": 0}, "text_cfg": {}}', '{"vision_cfg": {"patch_size": []}, "text_cfg": {}}'),
    ],
)
def test_damaged_configs(tmp_path, content):
    config = openclip_config('B/16')
    path = write_openclip(tmp_path, openclip_model(config), config)
    (tmp_path / 'open_clip_config.json').write_text(content)
    with pytest.raises(ValueError, match=r'open_clip_config\.json|OpenCLIP') as raised:
        open_checkpoint(path)
    assert '\n' not in str(raised.value)


def test_read_json(tmp_path):
    (tmp_path / 'a.json').write_bytes(b'\xff')
    with pytest.raises(ValueError, match=r'a\.json cannot be read'):
        read_json(tmp_path / 'a.json')
