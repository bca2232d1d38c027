"""From the name of a backbone to its weights, under OpenAI's names, and to what is said of them.

Weights do not tell a tower's activation and head width. A source that says them is known; any other checkpoint is
refused, unless the user says both.
"""

import os
from dataclasses import replace
from pathlib import Path

from clip import hub, huggingface, openclip, weights
from clip.convnext import has_convnext
from clip.form import ACTIVATIONS, OPENAI, Form, Statement
from clip.layouts import openai_layout
from clip.model import sizes_of
from clip.names import did_you_mean
from clip.releases import FOLDER, HINT, HUB
from clip.shards import is_index, read_index, shards_of
from clip.statements import (
    check_sizes,
    given_form,
    read_hugging_face,
    read_openclip,
    statement_beside,
    statement_in,
)
from clip.weights import Checkpoint, Release, available_models, download, read_checkpoint


def open_checkpoint(
    name_or_path: str | os.PathLike,
    download_root: str | os.PathLike | None = None,
    activation: str | None = None,
    head_width: int | None = None,
) -> Checkpoint:
    """The checkpoint of a backbone, downloaded if need be, under OpenAI's names, and with a statement.

    `activation` and `head_width` are for a file whose source cannot be told: those of both towers' blocks, and of the
    image tower's heads.

    Raises:
        ValueError: no known name, file or folder; a file that cannot be read or is not the published one; towers that
            we do not have; a source that cannot be told, or one that says another activation or head width.
        ConnectionError: the weights are not here and cannot be fetched; says from where, and where to put them.
    """
    name = os.fspath(name_or_path)
    checkpoint = find(name, download_root)
    try:
        return ready(checkpoint, given_form(activation, head_width, checkpoint.statement))
    except ValueError as error:
        raise ValueError(f'{checkpoint.path}: {error}') from None


def find(name: str, root: str | os.PathLike | None) -> Checkpoint:
    """The checkpoint that a name stands for, with a statement if its source makes one.

    Raises: as `open_checkpoint`.
    """
    if name in weights.BUNDLED:
        checkpoint = read_checkpoint(weights.BUNDLED[name])
        return replace(checkpoint, statement=statement_in(checkpoint) or Statement(OPENAI, f'the name {name}'))
    if name in weights.RELEASES:
        return published(name, root)
    if name.startswith(HUB):
        return from_hub(name.removeprefix(HUB))
    if name.startswith(FOLDER):
        return from_folder(Path(name.removeprefix(FOLDER)).expanduser())
    path = Path(name).expanduser()
    if path.is_file():
        return from_file(path)
    if is_folder(path):
        return from_folder(path)
    registry = openclip.registry()
    if name in registry:
        return from_registry(*registry[name], root)
    raise ValueError(unknown_backbone(name, [*available_models(), *registry]))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder with a config of OpenCLIP or Hugging Face."""
    return any((path / config).is_file() for config in (openclip.CONFIG, huggingface.CONFIG))


def check_name(name: str) -> None:
    """Make sure that a name may stand for a backbone, before anything is read or fetched.

    Raises:
        ValueError: it stands for none; lists what there is.
    """
    path = Path(name).expanduser()
    known = name in available_models() or name.startswith((FOLDER, HUB)) or path.is_file() or is_folder(path)
    if not known and name not in (registry := openclip.registry()):
        raise ValueError(unknown_backbone(name, [*available_models(), *registry]))


def unknown_backbone(name: str, choices: list[str]) -> str:
    """The message for a name that stands for no backbone."""
    meant = did_you_mean(name, choices)
    tags = [choice for choice in choices if choice.startswith(f'{name}/')]
    if tags:
        meant = f'; its tags are {", ".join(tag.partition("/")[2] for tag in tags[:8])}'
    elif not meant and name.count('/') == 1 and Path(name).suffix == '':
        meant = f'; of the hub: {HUB}{name}'
    here = ' (a folder without a config)' if name and Path(name).expanduser().is_dir() else ''
    return f'unknown backbone {name!r}{here}: choose from {", ".join(available_models())}; or {HINT}{meant}'


def published(name: str, root: str | os.PathLike | None) -> Checkpoint:
    """OpenAI's file of a name.

    Raises:
        ValueError: another file lies in its place.
    """
    release = weights.RELEASES[name]
    checkpoint = read_checkpoint(download(release, root))
    if checkpoint.sha256 != release.sha256:
        raise ValueError(
            f'{checkpoint.path} is not the published {name}: its SHA-256 is {checkpoint.sha256}, expected '
            f'{release.sha256}; remove the file to download it again'
        )
    return replace(checkpoint, statement=Statement(OPENAI, f"the SHA-256 of OpenAI's {name}"))


def from_file(path: Path) -> Checkpoint:
    """The checkpoint in a file; its statement is what can be told from the file, or from a config beside it."""
    checkpoint = read_checkpoint(path)
    try:
        return replace(checkpoint, statement=statement_in(checkpoint) or statement_beside(checkpoint))
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None


def from_folder(folder: Path) -> Checkpoint:
    """The checkpoint in a folder of OpenCLIP or Hugging Face, beside its config.

    Raises:
        ValueError: there is no config, or no weights; says what was expected.
    """
    if not folder.is_dir():
        raise ValueError(f'backbone {FOLDER}{folder}: there is no such folder')
    for config, names in ((openclip.CONFIG, openclip.WEIGHTS), (huggingface.CONFIG, huggingface.WEIGHTS)):
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if (folder / config).is_file() and found:
            said = (
                read_openclip(folder / config)
                if config == openclip.CONFIG
                else read_hugging_face(folder / config, folder / huggingface.PREPROCESSOR)
            )
            return replace(read_checkpoint(found), statement=said)
    raise ValueError(
        f'backbone {FOLDER}{folder}: expected {openclip.CONFIG} with {" or ".join(openclip.WEIGHTS)}, or '
        f'{huggingface.CONFIG} with {" or ".join(huggingface.WEIGHTS)}'
    )


def from_hub(asked: str) -> Checkpoint:
    """The checkpoint of a repository on the hub, 'ORG/NAME' or 'ORG/NAME@REVISION'; all its files of one commit.

    Raises:
        ValueError: no such repository, or one without a config or weights.
        ConnectionError: it is not in the cache and cannot be fetched.
    """
    repository, _, revision = asked.partition('@')
    config = hub.fetch(repository, [openclip.CONFIG, huggingface.CONFIG], revision or None)
    if config is None:
        raise ValueError(f'{HUB}{asked} is no CLIP: it has neither {openclip.CONFIG} nor {huggingface.CONFIG}')
    commit, cache = hub.commit_of(config), hub.cache_of(config)
    if config.name == openclip.CONFIG:
        said, names = read_openclip(config), openclip.WEIGHTS
    else:
        said = read_hugging_face(config, hub.fetch(repository, [huggingface.PREPROCESSOR], commit, cache))
        names = huggingface.WEIGHTS
    path = hub.fetch(repository, names, commit, cache)
    if path is None:
        raise ValueError(f'{HUB}{asked} has no weights: expected {" or ".join(names)}')
    if is_index(path):
        fetch_shards(repository, path, commit, cache)
    return replace(read_checkpoint(path), statement=replace(said, revision=commit))


def fetch_shards(repository: str, index: Path, commit: str | None, cache: Path | None) -> None:
    """Fetch all files that an index of a repository names, of the index's commit; they come to lie beside it.

    Raises:
        ValueError: it is no index, or the repository has not what it names.
        ConnectionError: one is not in the cache and cannot be fetched.
    """
    for shard in shards_of(read_index(index)):
        if hub.fetch(repository, [shard], commit, cache) is None:
            raise ValueError(f'{HUB}{repository}: {index.name} names {shard}, which is not there at {commit}')


def from_registry(name: str, tag: str, root: str | os.PathLike | None) -> Checkpoint:
    """The checkpoint of a name and tag of OpenCLIP: from the hub where it is there, else from its address.

    Raises:
        ValueError: its towers are others than ours.
        ConnectionError: it is not here and cannot be fetched.
    """
    try:
        entry = openclip.entry(name, tag)
    except ValueError as error:
        raise ValueError(f'backbone {name}/{tag}: {error}') from None
    if entry.hub:
        repository, _, file = entry.hub.rpartition('/')
        names = openclip.WEIGHTS if not file else (f'{file.rpartition(".")[0]}.safetensors', file)
        path = hub.fetch(repository, names)
        if path is None:
            raise ValueError(f'{HUB}{repository} has none of {", ".join(names)}')
        return replace(read_checkpoint(path), statement=replace(entry.statement, revision=hub.commit_of(path)))
    path = download(Release(entry.url, openclip.checksum_in(entry.url)), root)
    return replace(read_checkpoint(path), statement=entry.statement)


def ready(checkpoint: Checkpoint, given: Form | None) -> Checkpoint:
    """A checkpoint under OpenAI's names, with a statement that fits it.

    Raises:
        ValueError: towers that we do not have; no statement and no form given; or a statement of other towers.
    """
    state_dict = openai_layout(checkpoint.state_dict)
    convnext = has_convnext(state_dict)
    sizes = {} if convnext else sizes_of(state_dict)
    said = checkpoint.statement or (given and Statement(given, 'the options activation and head_width'))
    if said is None:
        raise ValueError(
            'weights do not tell their activation and head width, and the source of these cannot be told: give '
            f'--activation {"|".join(ACTIVATIONS)} and --head-width N (in Python and configs activation, head_width), '
            f'or put the {openclip.CONFIG} that goes with them beside them; see docs/backbones.md'
        )
    if said.sizes and not convnext:
        check_sizes(sizes, said.sizes, said.known_by)
    return replace(checkpoint, state_dict=state_dict, statement=said)
