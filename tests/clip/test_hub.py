"""Repositories on a hub, from a cache that has them, as after a first use; nothing is fetched."""

from pathlib import Path

import pytest

import clip
from clip import hub
from clip.sources import open_checkpoint
from tests.clip.references import (
    hugging_face_model,
    openclip_config,
    openclip_model,
    write_hugging_face,
    write_openclip,
)

pytest.importorskip('huggingface_hub')
COMMITS = ('a' * 40, 'b' * 40)


def snapshot(cache: Path, repository: str, commit: str, branch: str | None = 'main') -> Path:
    """The folder of a commit in the hub's cache, which a branch is at."""
    root = cache / f'models--{repository.replace("/", "--")}'
    if branch:
        (root / 'refs').mkdir(parents=True, exist_ok=True)
        (root / 'refs' / branch).write_text(commit)
    folder = root / 'snapshots' / commit
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The hub's cache, offline."""
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert file_download.constants is constants
    return tmp_path / 'hub'


def test_a_repository_of_openclip(cache):
    for i, commit in enumerate(COMMITS):
        config = openclip_config('B/32', quick_gelu=bool(i))
        write_openclip(snapshot(cache, 'some/clip', commit), openclip_model(config), config)
    net, _, checkpoint = clip.load_checkpoint('hf-hub:some/clip', 'cpu')
    assert (checkpoint.statement.revision, net.form.activation) == (COMMITS[1], 'quick_gelu')
    net, _, checkpoint = clip.load_checkpoint(f'hf-hub:some/clip@{COMMITS[0]}', 'cpu')
    assert (checkpoint.statement.revision, net.form.activation) == (COMMITS[0], 'gelu')
    assert checkpoint.path.parent.name == COMMITS[0]


def test_a_repository_of_hugging_face(cache):
    folder = snapshot(cache, 'some/model', COMMITS[0])
    write_hugging_face(folder, hugging_face_model(80, 'gelu', 14), {'image_mean': [0.5] * 3, 'image_std': [0.25] * 3})
    net, _, checkpoint = clip.load_checkpoint('hf-hub:some/model', 'cpu')
    assert (net.form.head_width, checkpoint.statement.mean, checkpoint.statement.std) == (80, (0.5,) * 3, (0.25,) * 3)
    assert checkpoint.statement.revision == COMMITS[0]


def write_shards(folder: Path) -> list[Path]:
    """A model of Hugging Face's in a folder, in several files; returns these."""
    hugging_face_model(80, 'gelu', 14).save_pretrained(folder, max_shard_size='1MB')
    (folder / 'preprocessor_config.json').write_text('{}')
    return sorted(folder.glob('model-*.safetensors'))


def test_weights_in_several_files(cache):
    """Of the commit that the index is of, whatever others have."""
    write_shards(snapshot(cache, 'some/model', COMMITS[0]))
    for path in write_shards(snapshot(cache, 'some/model', COMMITS[1])):
        path.write_bytes(b'of another commit')
    checkpoint = open_checkpoint(f'hf-hub:some/model@{COMMITS[0]}')
    assert checkpoint.path.name == 'model.safetensors.index.json'
    assert checkpoint.path.parent.name == checkpoint.statement.revision == COMMITS[0]
    assert checkpoint.sha256 == open_checkpoint(checkpoint.path).sha256


def test_every_file_is_asked_for_at_one_commit(tmp_path, monkeypatch):
    """As online, where a branch may move on between two files."""
    import huggingface_hub
    from huggingface_hub import errors

    folder = snapshot(tmp_path, 'some/model', COMMITS[0])
    shards = [path.name for path in write_shards(folder)]
    asked = []

    def download(repository, name, revision, **_):
        if not (folder / name).is_file():
            raise errors.EntryNotFoundError('404')
        asked.append((repository, name, revision))
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    assert open_checkpoint('hf-hub:some/model').statement.revision == COMMITS[0]
    expected = ['preprocessor_config.json', 'model.safetensors.index.json', *shards]
    assert asked == [
        ('some/model', 'config.json', None),
        *[('some/model', name, COMMITS[0]) for name in expected],
    ]
    (folder / shards[1]).unlink()
    with pytest.raises(ValueError, match=rf'hf-hub:some/model: .* names {shards[1]}, which is not there at a{{40}}'):
        open_checkpoint('hf-hub:some/model')


def test_a_shard_that_is_not_in_the_cache(cache):
    shards = write_shards(snapshot(cache, 'some/model', COMMITS[0]))
    shards[1].unlink()
    with pytest.raises(ConnectionError, match=rf'hf-hub:some/model@a{{40}}: cannot fetch {shards[1].name}'):
        open_checkpoint('hf-hub:some/model')


def test_an_index_of_files_elsewhere_fetches_nothing(cache):
    folder = snapshot(cache, 'some/model', COMMITS[0])
    write_shards(folder)
    (folder / 'model.safetensors.index.json').write_text('{"weight_map": {"a": "../../../b.safetensors"}}')
    with pytest.raises(ValueError, match=r'expected a file of weights in its own folder'):
        open_checkpoint('hf-hub:some/model')


def test_a_file_that_a_repository_is_known_not_to_have(cache):
    """Without a note that there is no preprocessor, its statistics are unknown: nothing is taken for granted."""
    folder = snapshot(cache, 'some/model', COMMITS[0])
    write_hugging_face(folder, hugging_face_model())
    with pytest.raises(ConnectionError, match=r'cannot fetch preprocessor_config\.json'):
        open_checkpoint('hf-hub:some/model')
    note = folder.parents[1] / '.no_exist' / COMMITS[0] / 'preprocessor_config.json'
    note.parent.mkdir(parents=True)
    note.touch()
    assert open_checkpoint('hf-hub:some/model').statement.mean == clip.MEAN


def test_a_name_and_tag_of_openclip(cache, monkeypatch):
    open_clip = pytest.importorskip('open_clip')
    config = openclip_config('B/16')
    monkeypatch.setattr(open_clip, 'get_model_config', lambda name: config)
    entry = open_clip.get_pretrained_cfg('ViT-B-16', 'laion2b_s34b_b88k')
    repository = entry['hf_hub'].rpartition('/')[0]
    write_openclip(snapshot(cache, repository, COMMITS[0]), openclip_model(config), config)
    checkpoint = open_checkpoint('ViT-B-16/laion2b_s34b_b88k')
    assert checkpoint.statement.form.activation == 'gelu'
    assert checkpoint.statement.known_by == "open_clip's registry: ViT-B-16/laion2b_s34b_b88k"
    assert checkpoint.statement.revision == COMMITS[0]


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        ('hf-hub:not/there', ConnectionError, r'hf-hub:not/there: cannot fetch .* local-dir:PATH$'),
        ('hf-hub:some/clip@v9', ConnectionError, r'hf-hub:some/clip@v9: cannot fetch'),
        ('hf-hub:a/b/c', ValueError, r'hf-hub:a/b/c: no such repository.*expected hf-hub:ORG/NAME'),
        ('hf-hub:', ValueError, r'expected hf-hub:ORG/NAME'),
    ],
)
def test_what_is_not_there(cache, name, error, message):
    with pytest.raises(error, match=message) as raised:
        open_checkpoint(name)
    assert '\n' not in str(raised.value)


def test_without_weights(cache):
    config = openclip_config('B/32')
    folder = snapshot(cache, 'some/clip', COMMITS[0])
    write_openclip(folder, openclip_model(config), config).unlink()
    with pytest.raises(ConnectionError, match=r'cannot fetch open_clip_model\.safetensors or open_clip_pytorch_model'):
        open_checkpoint('hf-hub:some/clip')


def test_online_errors_are_told(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def answer(error):
        def download(*_, **__):
            raise error

        monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)

    answer(errors.EntryNotFoundError('404'))
    assert hub.fetch('some/clip', ['config.json']) is None
    with pytest.raises(ValueError, match=r'hf-hub:some/clip is no CLIP: it has neither open_clip_config\.json nor'):
        open_checkpoint('hf-hub:some/clip')
    answer(OSError('disk full\nsecond line'))
    with pytest.raises(ConnectionError, match=r'cannot fetch config.json \(disk full\)'):
        hub.fetch('some/clip', ['config.json'])


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
    with pytest.raises(ValueError, match=r'hf-hub:some/clip needs huggingface_hub .*: pip install huggingface_hub$'):
        open_checkpoint('hf-hub:some/clip')


def test_commit_of_a_file():
    assert hub.commit_of(Path('/hub/models--a--b/snapshots/abc/model.safetensors')) == 'abc'
    assert hub.commit_of(Path('/home/me/model.safetensors')) is None
