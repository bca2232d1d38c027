"""Files of weights: verified downloads, and the three formats CLIP comes in."""

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import safetensors
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from clip.folders import with_spare
from clip.form import Statement
from clip.releases import BUNDLED, DEFAULT_DOWNLOAD_ROOT, RELEASES, Release, available_models
from clip.shards import check_shards, is_index, missing_shards, read_index, refuse_shard, sha256_of_shards, shards_of
from clip.torchscript import read_torchscript

__all__ = [
    'BUNDLED',
    'DEFAULT_DOWNLOAD_ROOT',
    'RELEASES',
    'Checkpoint',
    'Release',
    'available_models',
    'download',
    'file_sha256',
    'known_words',
    'read_checkpoint',
]

CHUNK = 1 << 20  # bytes read at a time when downloading or hashing


# Where a detectron2 checkpoint of PixelCLIP keeps the CLIP that it trained, among teacher, head and prompts.
PIXELCLIP_PREFIX = 'sem_seg_head.predictor.clip_model.'


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: tensors by name, its string metadata, and where it came from."""

    state_dict: Mapping[str, Tensor]
    path: Path  # the file; of several, their index
    sha256: str  # of the file; of several, as `clip.shards.sha256_of_shards` has it
    metadata: Mapping[str, str] = field(default_factory=dict)
    pixelclip: bool = False  # whether it was the CLIP in a checkpoint of PixelCLIP's training
    statement: Statement | None = None  # what the weights do not tell; None where nobody has looked


def download(release: Release, root: str | os.PathLike | None = None) -> Path:
    """Fetch a release into `root` once; resumes what an earlier try left, and checks the SHA-256.

    Without `root` that is DEFAULT_DOWNLOAD_ROOT, or the spare folder where nobody can write there.

    Raises:
        ConnectionError: the address cannot be reached.
        ValueError: what arrived is not the published file.
    """
    try:
        if root is None:
            return with_spare(partial(_download, release), DEFAULT_DOWNLOAD_ROOT)
        return _download(release, Path(root).expanduser())
    except (OSError, http.client.HTTPException) as error:
        place = Path(root or DEFAULT_DOWNLOAD_ROOT) / release.file_name
        raise ConnectionError(
            f'cannot download {release.url} ({error}); fetch that file by other means and put it at {place}'
        ) from error


def _download(release: Release, root: Path) -> Path:
    """As `download`, into a folder."""
    path = root / release.file_name
    part = path.with_name(path.name + '.part')
    if path.is_file():  # here before, perhaps for reading alone
        return path
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + '.lock')):
        if path.is_file():  # another process fetched it while we waited
            return path
        _fetch(release.url, part)
        got = file_sha256(part)
        if release.sha256 is None or got.startswith(release.sha256):
            os.replace(part, path)
            return path
        part.unlink()
    raise ValueError(
        f'the download of {release.url} has SHA-256 {got}, expected {release.sha256}; it was removed, try again'
    )


def _fetch(url: str, part: Path) -> None:
    """Append to `part` what is missing of the file at `url`."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is missing
            return
        raise
    with response:
        if response.status != 206:  # the server sends the whole file
            have = 0
        length = response.headers.get('Content-Length')
        total = have + int(length) if length else None
        with (
            part.open('ab' if have else 'wb') as file,
            tqdm(total=total, initial=have, unit='B', unit_scale=True, desc=part.stem) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            raise ConnectionError(f'the connection closed after {part.stat().st_size} of {total} bytes')


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a TorchScript archive, a torch.save'd state dict or a safetensors file; or an index, and all its shards.

    Nothing that is in a file is run: pickles are read with `weights_only`, and of TorchScript archives only modules and
    tensors are made. A state dict may be wrapped in a dict under
    'state_dict' or 'model'; of a checkpoint of PixelCLIP's training only the CLIP in it is read.

    Raises:
        ValueError: the file is truncated, damaged, of another format, holds no state dict, or is one of several; an
            index and its shards do not fit.
    """
    path = Path(path)
    if is_index(path):
        return _read_shards(path)
    refuse_shard(path)
    return _read_file(path)


def _read_shards(index: Path) -> Checkpoint:
    """All that the shards of an index hold.

    Raises:
        ValueError: a shard is missing or cannot be read, or they and the index do not fit.
    """
    files = read_index(index)
    shards = shards_of(files)
    if missing := missing_shards(index.parent, shards):
        raise ValueError(f'{index} names {", ".join(missing)}, of which there is none beside it; fetch what is missing')
    parts = {shard: _read_file(index.parent / shard) for shard in shards}
    check_shards(index, files, {shard: part.state_dict for shard, part in parts.items()})
    return Checkpoint(
        {name: parts[shard].state_dict[name] for name, shard in files.items()},
        index,
        sha256_of_shards({shard: part.sha256 for shard, part in parts.items()}),
        {key: value for part in parts.values() for key, value in part.metadata.items()},
    )


def _read_file(path: Path) -> Checkpoint:
    sha256 = file_sha256(path)
    read = _reader(path, sha256)
    try:
        content, metadata = read(path)
    except Exception as error:  # the three formats' readers raise anything on a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'cannot read the checkpoint {path}: truncated, damaged or not weights ({reason})') from error
    for key in ('state_dict', 'model'):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    trained = {}
    if isinstance(content, Mapping):
        prefix = PIXELCLIP_PREFIX
        trained = {k.removeprefix(prefix): v for k, v in content.items() if str(k).startswith(prefix)}
        content = trained or content
    if not isinstance(content, Mapping) or not content or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f'the checkpoint {path} holds no state dict (a dict of tensors by name)')
    return Checkpoint(content, path, sha256, metadata, pixelclip=bool(trained))


def _reader(path: Path, sha256: str) -> Callable[[Path], tuple[object, dict[str, str]]]:
    """The reader for a file's format, told from its content."""
    if path.suffix == '.safetensors':
        return _read_safetensors
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith('/constants.pkl') for name in archive.namelist()):
                return partial(_read_torchscript, trusted=sha256 in {release.sha256 for release in RELEASES.values()})
    return _read_pickle


def _read_safetensors(path: Path) -> tuple[object, dict[str, str]]:
    with safetensors.safe_open(path, framework='pt') as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_torchscript(path: Path, trusted: bool) -> tuple[object, dict[str, str]]:
    try:
        return read_torchscript(path), {}
    except Exception:
        if not trusted:
            raise
    # A file that OpenAI published may be left to PyTorch, which runs what is in an archive.
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '.*torch.jit.load.* is deprecated', FutureWarning)
        warnings.filterwarnings('ignore', '.*torch.jit.load.* is deprecated', DeprecationWarning)
        return torch.jit.load(path, map_location='cpu').state_dict(), {}


def _read_pickle(path: Path) -> tuple[object, dict[str, str]]:
    return torch.load(path, map_location='cpu', weights_only=True), {}


def known_words(metadata: Mapping[str, str]) -> frozenset[str] | None:
    """The words a checkpoint's text tower has seen, where its metadata says so (a JSON list); else None."""
    return frozenset(json.loads(metadata['known_words'])) if 'known_words' in metadata else None
