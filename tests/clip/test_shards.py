"""Weights in several files: as from one file, and refused where index and shards do not fit."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import clip
from clip import guides
from clip.sources import open_checkpoint
from clip.weights import file_sha256, read_checkpoint
from tests.clip.references import TEXTS, hugging_face_model, pictures
from tests.goldens.guide_weights import dino_state_dict

INDEX = 'model.safetensors.index.json'


@pytest.fixture(scope='module')
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `one` and `many`, as transformers writes a model into one file and into several."""
    folder = tmp_path_factory.mktemp('saved')
    model = hugging_face_model(80, 'gelu', 14)
    model.save_pretrained(folder / 'one')
    model.save_pretrained(folder / 'many', max_shard_size='1MB')
    return folder


@pytest.fixture
def many(saved: Path, tmp_path: Path) -> Path:
    """A copy of `many` to spoil."""
    return Path(shutil.copytree(saved / 'many', tmp_path / 'many'))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The index of two small shards."""
    save_file({'a': torch.zeros(2), 'b': torch.ones(2)}, tmp_path / 'first.safetensors', {'known_words': '["cat"]'})
    save_file({'c': torch.ones(3)}, tmp_path / 'second.safetensors')
    return write_index(tmp_path, {'a': 'first.safetensors', 'b': 'first.safetensors', 'c': 'second.safetensors'})


def write_index(folder: Path, files: dict[str, str]) -> Path:
    (folder / INDEX).write_text(json.dumps({'metadata': {}, 'weight_map': files}))
    return folder / INDEX


def shards_in(folder: Path) -> list[Path]:
    return sorted(folder.glob('model-*.safetensors'))


@torch.no_grad()
@pytest.mark.parametrize('form', ['folder', 'index'])
def test_as_from_one_file(saved: Path, form: str):
    many = saved / 'many' if form == 'folder' else saved / 'many' / INDEX
    assert len(shards_in(saved / 'many')) > 2
    (one, _, _), (net, _, checkpoint) = (clip.load_checkpoint(path, 'cpu') for path in (saved / 'one', many))
    assert (net.form, checkpoint.statement.known_by) == (one.form, 'config.json')
    images, tokens = pictures(56), clip.tokenize(TEXTS)
    assert torch.equal(net.encode_image(images), one.encode_image(images))
    assert torch.equal(net.encode_text(tokens), one.encode_text(tokens))
    assert checkpoint.path == saved / 'many' / INDEX


def test_one_file_comes_first_as_in_transformers(saved: Path, many: Path):
    shutil.copy(saved / 'one' / 'model.safetensors', many)
    assert open_checkpoint(many).path == many / 'model.safetensors'


def test_pickled_shards(many: Path):
    """As older versions of transformers wrote them."""
    named = json.loads((many / INDEX).read_text())['weight_map']
    expected = read_checkpoint(many / INDEX).state_dict
    for path in shards_in(many):
        torch.save(load_file(path), path.with_suffix('.bin'))
        path.unlink()
    files = {name: file.replace('.safetensors', '.bin') for name, file in named.items()}
    (many / INDEX).unlink()
    (many / 'pytorch_model.bin.index.json').write_text(json.dumps({'weight_map': files}))
    found = open_checkpoint(many)
    assert found.path.name == 'pytorch_model.bin.index.json'
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read_checkpoint(found.path).state_dict.items())


def test_a_guide(tmp_path: Path):
    hub = pytest.importorskip('huggingface_hub')
    weights = dino_state_dict(depth=2)
    hub.save_torch_state_dict(weights, tmp_path, max_shard_size='1MB')
    guide, checkpoint = guides.load_guide(tmp_path / INDEX)
    assert len(shards_in(tmp_path)) > 1
    assert checkpoint.path == tmp_path / INDEX
    assert all(torch.equal(tensor, weights[name]) for name, tensor in guide.state_dict().items())


def test_the_checksum_covers_every_shard(many: Path):
    lines = subprocess.check_output(['sha256sum', *(path.name for path in shards_in(many))], cwd=many)
    before = open_checkpoint(many).sha256
    assert before == hashlib.sha256(lines).hexdigest()
    for path in shards_in(many):
        weights = load_file(path)
        name = next(iter(weights))
        save_file(weights | {name: weights[name] + 1}, path)
        assert open_checkpoint(many).sha256 != before
        save_file(weights, path, {'format': 'pt'})
        assert open_checkpoint(many).sha256 == before


def test_what_a_checkpoint_holds(pair: Path):
    checkpoint = read_checkpoint(pair)
    assert {name: tensor.tolist() for name, tensor in checkpoint.state_dict.items()} == {
        'a': [0, 0],
        'b': [1, 1],
        'c': [1, 1, 1],
    }
    assert checkpoint.metadata == {'known_words': '["cat"]'}
    assert checkpoint.sha256 not in {file_sha256(path) for path in pair.parent.iterdir()}


def test_missing_shards_are_named(many: Path):
    first, second, *_ = shards_in(many)
    first.unlink()
    second.unlink()
    assert_refused(many, f'{INDEX} names {first.name}, {second.name}, of which there is none beside it')


def test_a_damaged_shard_is_named(many: Path):
    path = shards_in(many)[1]
    path.write_bytes(path.read_bytes()[:-1])
    assert_refused(many, f'cannot read the checkpoint {path}: truncated')


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=r'.') as raised:
        open_checkpoint(path)
    assert message in str(raised.value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ({'d': 'second.safetensors'}, 'expected d in second.safetensors, which no shard has; fetch'),
        ({'b': 'second.safetensors'}, 'expected b in second.safetensors, that is in first.safetensors; fetch'),
        ({'b': None}, 'does not name b, which is in first.safetensors; fetch'),
    ],
)
def test_an_index_of_other_shards(pair: Path, files: dict[str, str | None], message: str):
    named = json.loads(pair.read_text())['weight_map'] | files
    write_index(pair.parent, {name: file for name, file in named.items() if file})
    assert_refused(pair, message)


def test_a_tensor_in_two_shards(pair: Path):
    save_file({'c': torch.ones(3), 'b': torch.ones(2)}, pair.parent / 'second.safetensors')
    assert_refused(pair, f'{INDEX}: b is in two shards, first.safetensors and second.safetensors; expected it in one')


@pytest.mark.parametrize('file', ['../first.safetensors', '/etc/passwd', 'a/../../x', '..\\x', '', INDEX])
def test_shards_outside_the_folder(pair: Path, tmp_path: Path, file: str):
    write_index(tmp_path, {'a': 'first.safetensors', 'b': file})
    assert_refused(pair, f'names {file!r}: expected a file of weights in its own folder')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{', 'cannot be read'),
        ('[]', 'is no index of shards: expected "weight_map"'),
        ('{"weight_map": {}}', 'is no index of shards'),
        ('{"weight_map": ["a"]}', 'is no index of shards'),
        ('{"weight_map": {"a": 3}}', 'is no index of shards'),
    ],
)
def test_no_index(pair: Path, content: str, message: str):
    pair.write_text(content)
    assert_refused(pair, message)


def test_one_shard_alone(many: Path):
    path = shards_in(many)[0]
    assert_refused(path, f'is one of {len(shards_in(many))} files of one model: name the index beside them ({INDEX})')
    weights = load_file(path)
    save_file(weights, many / 'epoch-3-of-30.safetensors')  # a name of another meaning
    assert read_checkpoint(many / 'epoch-3-of-30.safetensors').state_dict.keys() == weights.keys()
