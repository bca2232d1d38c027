"""From names to checkpoints: folders, registries, and what is meant by a name that is none."""

import io
import sys

import pytest
import torch

import clip
from clip import sources
from clip.form import Form
from clip.sources import check_name, open_checkpoint
from tests.clip.references import openclip_config, openclip_model, write_openclip
from tests.clip.test_weights import server  # noqa: F401
from tests.conftest import with_entries


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('vit-b/16', 'did you mean ViT-B/16?'),
        ('ViT-L/14@336', 'did you mean ViT-L/14@336px?'),
        ('shape', 'did you mean shapes?'),
        ('ViT-B-16/laion2b_s34b_b88', 'did you mean ViT-B-16/laion2b_s34b_b88k?'),
        ('ViT-H-14', 'its tags are laion2b_s32b_b79k, '),
        ('someone/their-clip', 'of the hub: hf-hub:someone/their-clip'),
    ],
)
def test_what_was_meant(name, meant):
    pytest.importorskip('open_clip')
    for look in (open_checkpoint, check_name):
        with pytest.raises(ValueError, match='unknown backbone') as raised:
            look(name)
        assert meant in str(raised.value)
        assert 'local-dir:PATH' in str(raised.value)
        assert '\n' not in str(raised.value)


def test_without_open_clip(monkeypatch):
    monkeypatch.setitem(sys.modules, 'open_clip', None)
    with pytest.raises(ValueError, match=r"unknown backbone 'ViT-B-16/laion2b_s34b_b88k': choose from ViT-B/32"):
        open_checkpoint('ViT-B-16/laion2b_s34b_b88k')


@pytest.mark.parametrize('name', ['shapes', 'ViT-B/16', 'hf-hub:a/b', 'local-dir:anywhere', 'ViT-B-16/dfn2b'])
def test_names_that_may_stand_for_something(name):
    if name == 'ViT-B-16/dfn2b':
        pytest.importorskip('open_clip')
    check_name(name)


def test_other_towers_of_openclip_are_refused_before_they_are_fetched(monkeypatch):
    pytest.importorskip('open_clip')
    monkeypatch.setattr(sources.hub, 'fetch', lambda *_: pytest.fail('was fetched'))
    for name, tower in (
        ('ViT-B-16-SigLIP/webli', 'vit_base_patch16_siglip_224'),
        ('EVA02-B-16/merged2b_s8b_b131k', 'eva02_base_patch16_clip_224'),
        ('RN50/openai', 'ResNet'),
        ('coca_ViT-B-32/laion2b_s13b_b90k', 'CoCa'),
    ):
        with pytest.raises(ValueError, match=rf'backbone {name}: a CLIP with .*{tower}.*does not have'):
            open_checkpoint(name)


def test_wrong_folders(tmp_path):
    with pytest.raises(ValueError, match=r'local-dir:.*/none: there is no such folder'):
        open_checkpoint(f'local-dir:{tmp_path}/none')
    with pytest.raises(ValueError, match=r'expected open_clip_config\.json with open_clip_model\.safetensors or'):
        open_checkpoint(f'local-dir:{tmp_path}')
    with pytest.raises(ValueError, match=r'\(a folder without a config\)'):
        open_checkpoint(tmp_path)
    config = openclip_config('B/32')
    write_openclip(tmp_path, openclip_model(config), config).unlink()
    with pytest.raises(ValueError, match=r'expected open_clip_config\.json with'):
        open_checkpoint(tmp_path)


def test_a_folder_with_a_pickle(tmp_path):
    """Older repositories have these; they are read, but cannot run code."""
    config = openclip_config('B/32')
    path = write_openclip(tmp_path, openclip_model(config), config)
    torch.save({'module.' + k: v for k, v in clip.weights.read_checkpoint(path).state_dict.items()}, tmp_path / 'a')
    path.unlink()
    (tmp_path / 'a').rename(tmp_path / 'open_clip_pytorch_model.bin')
    assert clip.load(tmp_path, 'cpu')[0].form == Form('gelu', 64, 'gelu', 64)


def test_a_name_and_tag_with_an_address_alone(server, tiny_state_dict, tmp_path, monkeypatch):  # noqa: F811
    """As open_clip's registry had them before the hub."""
    open_clip = pytest.importorskip('open_clip')
    buffer = io.BytesIO()
    torch.save(tiny_state_dict, buffer)
    server.content = buffer.getvalue()
    config = openclip_config('B/16')
    entry = {'url': server.release().url, 'quick_gelu': True}
    monkeypatch.setattr(open_clip, 'get_model_config', lambda name: config)
    monkeypatch.setattr(open_clip, 'get_pretrained_cfg', lambda name, tag: entry)
    with pytest.raises(ValueError, match=r"is 2, and 49408|vocab_size is 100, and 49408 by open_clip's registry"):
        open_checkpoint('ViT-B-16/laion400m_e32', tmp_path)
    assert (tmp_path / 'tiny.pt').read_bytes() == server.content
    assert server.requests == [None]


def test_published_names_are_openais(server, tmp_path):  # noqa: F811
    said = open_checkpoint('ViT-B/16', tmp_path).statement
    assert (said.form, said.known_by) == (Form(), "the SHA-256 of OpenAI's ViT-B/16")


def test_a_file_comes_before_a_name_of_the_registry(tiny_state_dict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'ViT-B-16').mkdir()
    torch.save(with_entries(tiny_state_dict), tmp_path / 'ViT-B-16' / 'dfn2b')
    assert open_checkpoint('ViT-B-16/dfn2b').statement.known_by.startswith('the entries')
