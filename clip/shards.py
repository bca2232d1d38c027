"""Weights in several files, shards: an index, as of Hugging Face, says which tensor is in which of them."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

INDEX = '.index.json'  # how the name of an index ends
SHARD = re.compile(r'-(\d{5})-of-(\d{5})\.(safetensors|bin)$')  # how the name of a shard ends


def is_index(path: Path) -> bool:
    """Whether a path is that of an index of shards, by its name."""
    return path.name.endswith(INDEX)


def refuse_shard(path: Path) -> None:
    """Make sure that a file is not one of several.

    Raises:
        ValueError: it is, by its name.
    """
    match = SHARD.search(path.name)
    if match and int(match[2]) > 1:
        raise ValueError(
            f'{path} is one of {int(match[2])} files of one model: name the index beside them '
            f'({path.name[: match.start()]}.{match[3]}{INDEX}), or their folder'
        )


def read_index(path: Path) -> dict[str, str]:
    """The file of each tensor, by the tensor's name, as an index says.

    Raises:
        ValueError: the index cannot be read or is none, or a file is not in its folder.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path} cannot be read: {error}') from error
    files = content.get('weight_map') if isinstance(content, Mapping) else None
    if not isinstance(files, Mapping) or not files or not all(isinstance(file, str) for file in files.values()):
        raise ValueError(f'{path} is no index of shards: expected "weight_map", an object with a file for each tensor')
    for file in shards_of(files):
        place = PurePosixPath(file)
        if not file or place.is_absolute() or '..' in place.parts or '\\' in file or is_index(Path(file)):
            raise ValueError(f'{path} names {file!r}: expected a file of weights in its own folder')
    return dict(files)


def shards_of(files: Mapping[str, str]) -> list[str]:
    """The files that an index names, each once, sorted."""
    return sorted(set(files.values()))


def missing_shards(folder: Path, shards: Iterable[str]) -> list[str]:
    """Those of some files that are not in a folder."""
    return [shard for shard in shards if not (folder / shard).is_file()]


def check_shards(index: Path, files: Mapping[str, str], found: Mapping[str, Iterable[str]]) -> None:
    """Make sure that every tensor is where the index says, and nowhere else; `found` has the tensors of each shard.

    Raises:
        ValueError: a tensor is in two shards, in none, in another, or in one without being in the index; names it.
    """
    places: dict[str, str] = {}
    for shard, names in found.items():
        for name in names:
            if name in places:
                raise ValueError(f'{index}: {name} is in two shards, {places[name]} and {shard}; expected it in one')
            places[name] = shard
    for name, shard in files.items():
        if places.get(name) != shard:
            where = f'that is in {places[name]}' if name in places else 'which no shard has'
            raise ValueError(f'{index}: expected {name} in {shard}, {where}; fetch index and shards again')
    if unknown := [name for name in places if name not in files]:
        raise ValueError(
            f'{index} does not name {unknown[0]}, which is in {places[unknown[0]]}; fetch index and shards again'
        )


def sha256_of_shards(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for all: of the lines 'SHA256  FILE', sorted by file, which `sha256sum` writes of the shards."""
    lines = (f'{hashes[file]}  {file}\n' for file in sorted(hashes))
    return hashlib.sha256(''.join(lines).encode()).hexdigest()
