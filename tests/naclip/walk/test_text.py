"""Text embeddings, their cache, and prompt templates."""

import logging
import multiprocessing
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from mmseg.utils import get_predefined_templates

import clip
from clip.form import Form
from clip.model import CLIP, build_model
from clip.weights import read_checkpoint
from naclip.walk.text import (
    DEFAULT_TEMPLATES,
    cached_text_embeddings,
    default_cache_dir,
    read_templates,
    text_embeddings,
)
from tests.conftest import ROOT

NAMES = ['cat', 'person in shirt', 'television monitor']
TEMPLATES = ['a photo of a {}.', 'itap of my {}.']


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """The sizes of the batches that were encoded so far."""
    sizes: list[int] = []
    encode = CLIP.encode_text
    monkeypatch.setattr(CLIP, 'encode_text', lambda self, tokens: sizes.append(len(tokens)) or encode(self, tokens))
    return sizes


def embed(model: CLIP, cache_dir: Path, weights: str = 'abc', names=NAMES, templates=TEMPLATES) -> torch.Tensor:
    return cached_text_embeddings(model, weights, names, templates, cache_dir, progress=False)


def test_query_features_as_golden(make_model, golden, voc21, device):
    features = text_embeddings(make_model(device), voc21.names, read_templates(), progress=False)
    torch.testing.assert_close(features.cpu(), golden['query_features'], rtol=0, atol=1e-4)


def test_classes_as_pixelclip(make_model, pixelclip_golden, device):
    """Synonyms together: the mean per template first."""
    queries = [tuple(names.split(', ')) for names in pixelclip_golden['names']]
    templates = read_templates(ROOT / 'prompts' / 'pixelclip.txt')
    features = text_embeddings(make_model(device), queries, templates, progress=False)
    torch.testing.assert_close(features.cpu(), pixelclip_golden['text_features'], rtol=0, atol=1e-4)


def test_one_name_together_is_the_name(model):
    together = text_embeddings(model, [(name,) for name in NAMES], TEMPLATES, progress=False)
    assert torch.equal(together, text_embeddings(model, NAMES, TEMPLATES, progress=False))


@torch.no_grad()
@pytest.mark.parametrize('batch_size', [1, 4, 256])
def test_embeddings_by_hand(model, batch_size):
    expected = []
    for name in NAMES:
        prompts = [model.encode_text(clip.tokenize(template.replace('{}', name)))[0] for template in TEMPLATES]
        mean = sum(prompt / prompt.norm() for prompt in prompts) / len(prompts)
        expected.append(mean / mean.norm())
    features = text_embeddings(model, NAMES, TEMPLATES, batch_size, progress=False)
    torch.testing.assert_close(features, torch.stack(expected), rtol=0, atol=1e-6)
    assert features.dtype == torch.float32


def test_half_precision_is_near_float32(make_model, model, device):
    half = text_embeddings(make_model(device, torch.float16), NAMES, TEMPLATES, progress=False)
    full = text_embeddings(model, NAMES, TEMPLATES, progress=False)
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half.cpu(), full).min() > 0.999


def test_braces_in_names_are_only_text(model):
    embeddings = text_embeddings(model, ['{0} {name} {'], TEMPLATES, progress=False)
    assert embeddings.isfinite().all()


def test_too_long_name(model):
    with pytest.raises(ValueError, match=r"'a photo of a cat cat .* needs 88 tokens, the text tower reads 77"):
        text_embeddings(model, ['dog', ' '.join(['cat'] * 81)], TEMPLATES, progress=False)


def test_second_call_encodes_nothing(model, encoded, tmp_path):
    first = embed(model, tmp_path / 'deep' / 'er')
    assert sum(encoded) == len(NAMES) * len(TEMPLATES)
    encoded.clear()
    assert torch.equal(embed(model, tmp_path / 'deep' / 'er'), first)
    assert encoded == []
    assert torch.equal(text_embeddings(model, NAMES, TEMPLATES, progress=False), first)


@pytest.mark.parametrize(
    'change',
    [
        dict(weights='abd'),
        dict(names=[*NAMES, 'dog']),
        dict(names=NAMES[::-1]),
        dict(names=[tuple(NAMES)]),
        dict(names=['cat', 'person', 'in shirt television monitor']),
        dict(templates=TEMPLATES[:1]),
        dict(templates=['a photo of a {}', TEMPLATES[1]]),
    ],
)
def test_key_holds_whatever_matters(model, encoded, tmp_path, change):
    embed(model, tmp_path)
    encoded.clear()
    embed(model, tmp_path, **change)
    assert encoded
    assert len(list(tmp_path.iterdir())) == 2


def test_key_holds_the_dtype(model, make_model, encoded, tmp_path):
    embed(model, tmp_path)
    encoded.clear()
    embed(make_model(dtype=torch.bfloat16), tmp_path)
    assert encoded


def test_key_holds_the_form(model, state_dict, encoded, tmp_path):
    embed(model, tmp_path)
    encoded.clear()
    embed(build_model(state_dict, Form('gelu', 64, 'gelu')), tmp_path)
    assert encoded


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: path.write_bytes(b''),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b'garbage' * 99),
        lambda path: path.write_bytes(path.read_bytes()[:-400] + b'\xff' * 400),
        lambda path: safetensors.torch.save_file({'embeddings': torch.ones(2, 64) / 8}, path),
        lambda path: safetensors.torch.save_file({'embeddings': torch.zeros(3, 64)}, path),
        lambda path: safetensors.torch.save_file({'other': torch.ones(3, 64) / 8}, path),
    ],
    ids=['empty', 'truncated', 'header-only', 'garbage', 'nan', 'wrong-shape', 'zeros', 'wrong-key'],
)
def test_damaged_cache_is_replaced(model, encoded, tmp_path, caplog, damage):
    expected = embed(model, tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)
    encoded.clear()
    assert torch.equal(embed(model, tmp_path), expected)
    assert encoded
    assert str(path) in caplog.text
    assert 'damaged' in caplog.text
    caplog.clear()
    encoded.clear()
    assert torch.equal(embed(model, tmp_path), expected)
    assert encoded == []
    assert not caplog.records


def test_files_are_replaced_whole(model, tmp_path):
    """Who has the old file open goes on reading it: a file is never written over."""
    embed(model, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b'old')
    with path.open('rb') as reader:
        embed(model, tmp_path)
        assert reader.read() == b'old'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('folder', ['file', 'file/deeper', 'x' * 300], ids=['file', 'below-a-file', 'long-name'])
def test_unusable_folder_only_warns(model, tmp_path, caplog, folder):
    (tmp_path / 'file').write_text('in the way')
    expected = text_embeddings(model, NAMES, TEMPLATES, progress=False)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(embed(model, tmp_path / folder), expected)
    assert 'not cached' in caplog.text


def test_full_disk_only_warns_and_leaves_nothing(model, tmp_path, caplog, monkeypatch):
    def full(*_args: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('naclip.walk.text.save_file', full)
    assert embed(model, tmp_path).shape == (3, 64)
    assert 'No space left' in caplog.text
    assert list(tmp_path.iterdir()) == []


def race(checkpoint: Path, cache_dir: Path, barrier, results) -> None:
    """What each of the racing processes does."""
    torch.set_num_threads(1)
    model = build_model(read_checkpoint(checkpoint).state_dict)
    for count in range(1, 9):
        barrier.wait(timeout=100)
        results.put((count, embed(model, cache_dir, names=['cat'] * count).tolist()))


@pytest.mark.slow
def test_racing_processes_leave_valid_files(model, checkpoint_file, encoded, tmp_path):
    context = multiprocessing.get_context('spawn')
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=race, args=(checkpoint_file, tmp_path, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    raced = [results.get(timeout=100) for _ in range(16)]
    for process in processes:
        process.join(timeout=100)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 8
    for count, embeddings in raced:
        assert torch.equal(embed(model, tmp_path, names=['cat'] * count), torch.tensor(embeddings))
    assert encoded == []


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        (dict(NACLIP_CACHE='/a', XDG_CACHE_HOME='/b', HOME='/c'), '/a'),
        (dict(XDG_CACHE_HOME='/b', HOME='/c'), '/b/naclip'),
        (dict(XDG_CACHE_HOME='', HOME='/c'), '/c/.cache/naclip'),
        (dict(HOME='/c'), '/c/.cache/naclip'),
    ],
)
def test_default_cache_dir(monkeypatch, environment, expected):
    for name in ('NACLIP_CACHE', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_cache_dir() == Path(expected)


def test_cache_lies_in_the_default_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv('NACLIP_CACHE', str(tmp_path))
    embed(model, None)
    assert len(list((tmp_path / 'text').iterdir())) == 1


def test_default_templates():
    templates = read_templates()
    assert len(templates) == 80
    assert list(templates) == get_predefined_templates('imagenet')
    assert DEFAULT_TEMPLATES.name == 'imagenet.txt'


def test_templates_with_bom_crlf_and_blank_lines(tmp_path):
    path = tmp_path / 'prompts.txt'
    path.write_bytes('\ufeffa {}.\r\n\r\n  the {}  \r\n\r\n'.encode())
    assert read_templates(path) == ('a {}.', 'the {}')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'is empty'),
        (' \n\n', 'is empty'),
        ('a {}.\na photo.\n', "'a photo.' must have '{}' once"),
        ('{} and {}\n', "'{} and {}' must have '{}' once"),
        ('a {name}.\n', "'a {name}.' must have '{}' once"),
    ],
)
def test_unusable_templates(tmp_path, content, message):
    path = tmp_path / 'prompts.txt'
    path.write_text(content)
    with pytest.raises(ValueError, match=rf'prompts\.txt.*{message}'):
        read_templates(path)


def test_missing_templates(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.txt does not exist'):
        read_templates(tmp_path / 'none.txt')
