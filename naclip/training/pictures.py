"""Folders of pictures with masks in SA-1B's layout, and the index that says which pairs there are.

Below a root: `images/sa_000020/sa_1.jpg` and `annotations/sa_000020/sa_1.json`, or any tree of pictures with a tree of
JSON files beside it. A JSON file has `annotations`, each with a `segmentation` in COCO's run lengths.
"""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from PIL import Image

from naclip.data.run_lengths import compressed
from naclip.files import REPOSITORY, written_whole

INDEX = 'naclip_index.txt'
SUFFIXES = {'.jpg', '.jpeg', '.png'}
FEW = 200  # pictures that are checked without further processes
PUBLISHED_FOLDERS = REPOSITORY / 'datasets' / 'sa1b.txt'


@dataclass(frozen=True)
class Layout:
    """Where pictures and masks are: folders below a root. Without annotations, pictures alone.

    `folders` are the folders of pictures that count, all by default.
    """

    root: Path
    pictures: str = 'images'
    annotations: str | None = 'annotations'
    folders: tuple[str, ...] | None = None

    def picture(self, name: str) -> Path:
        """The file of a picture, by its path below the folder of pictures."""
        return self.root / self.pictures / name

    def annotation(self, name: str) -> Path:
        """The file of a picture's masks."""
        return self.root / self.annotations / Path(name).with_suffix('.json')


def read_folders(path: Path) -> tuple[str, ...]:
    """Names of folders, one a line.

    Raises:
        FileNotFoundError, ValueError: no such file, or nothing in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f'list of folders {path} does not exist; {PUBLISHED_FOLDERS} is the published one')
    names = tuple(line.strip() for line in path.read_text(encoding='utf-8').splitlines() if line.strip())
    if not names:
        raise ValueError(f'list of folders {path} is empty; expected names such as sa_000020, one a line')
    return names


def list_pictures(layout: Layout) -> list[str]:
    """The pictures of a layout, in order.

    Raises:
        FileNotFoundError: no data, or another layout; says what was expected.
    """
    top = layout.root / layout.pictures
    expected = f'expected {layout.pictures}/sa_000020/sa_1.jpg and so on below {layout.root}'
    if layout.annotations:
        expected += f', and {layout.annotations}/sa_000020/sa_1.json'
    for folder in filter(None, (layout.pictures, layout.annotations)):
        if not (layout.root / folder).is_dir():
            raise FileNotFoundError(f'there is no folder {layout.root / folder}: {expected}; docs/training.md has more')
    names = sorted(_walk(top, layout.folders))
    if not names:
        among = f' in its {len(layout.folders)} listed folders' if layout.folders else ''
        raise FileNotFoundError(f'no picture in {top}{among}: {expected}')
    return names


def _walk(top: Path, folders: Sequence[str] | None) -> Iterator[str]:
    """Paths of pictures below a folder, relative to it."""
    for start in [top] if folders is None else [top / folder for folder in folders]:
        for place, _, files in os.walk(start):
            below = Path(place).relative_to(top)
            yield from (str(below / file) for file in files if Path(file).suffix.lower() in SUFFIXES)


def read_segmentations(path: Path) -> list[dict]:
    """The run lengths of a picture's masks; crowds, which SA-1B does not have, are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; says what is wrong.
    """
    try:
        annotations = json.loads(path.read_bytes())['annotations']
        return [entry['segmentation'] for entry in annotations if not entry.get('iscrowd')]
    except FileNotFoundError:
        raise FileNotFoundError(f'the masks {path} are missing') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f'{type(error).__name__}: {error}'.replace('\n', ' ')
        raise ValueError(
            f'{path} has no masks that can be read ({reason}): expected JSON with annotations, each with a '
            'segmentation of size and counts'
        ) from None


def problem(layout: Layout, name: str) -> str | None:
    """What is wrong with a picture and its masks, if anything is."""
    picture = layout.picture(name)
    try:
        with Image.open(picture) as image:
            width, height = image.size
        if picture.suffix.lower() != '.png':
            with picture.open('rb') as file:
                file.seek(-min(4096, picture.stat().st_size), os.SEEK_END)
                if b'\xff\xd9' not in file.read():
                    return f'{picture} is cut short'
        if layout.annotations is not None:
            for i, segmentation in enumerate(read_segmentations(layout.annotation(name))):
                try:
                    compressed(segmentation, height, width)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    return f'{layout.annotation(name)}: mask {i}: {error}'
    except (OSError, ValueError) as error:
        return str(error) if str(picture.parent) in str(error) or layout.annotations else f'{picture}: {error}'
    return None


def check_pairs(layout: Layout, names: Sequence[str]) -> dict[str, str]:
    """What is wrong with which pictures; every file is opened, in several processes where there are many."""
    check = partial(problem, layout)
    if len(names) <= FEW:
        found = map(check, names)
        return {name: what for name, what in zip(names, found, strict=True) if what}
    with ProcessPoolExecutor() as executor:
        found = executor.map(check, names, chunksize=64)
        return {name: what for name, what in zip(names, found, strict=True) if what}


def make_index(layout: Layout, index: Path, leave_out: bool = False) -> list[str]:
    """Check all pairs of a layout and write the names of its pictures to an index.

    `leave_out` leaves out those with something wrong.

    Raises:
        FileNotFoundError: no data, or another layout.
        ValueError: pairs that are missing or unreadable, some named; or the index cannot be written.
    """
    names = list_pictures(layout)
    wrong = check_pairs(layout, names)
    if wrong and not leave_out:
        some = '; '.join(list(wrong.values())[:3])
        raise ValueError(
            f'{len(wrong)} of {len(names)} pictures in {layout.root} cannot be used: {some}; mend or remove them, or '
            f'leave them out: python tools/index_masks.py {layout.root} --leave-out'
        )
    names = [name for name in names if name not in wrong]
    try:
        with written_whole(index) as temporary:
            temporary.write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')
    except OSError as error:
        raise ValueError(f'cannot write the index {index} ({error}): name another place with dataset.index') from None
    return names


def read_index(layout: Layout, index: Path | None = None) -> list[str]:
    """The pictures of a layout by its index, which is made if it is not there; of the layout's folders only.

    Raises:
        FileNotFoundError, ValueError: see `make_index`.
    """
    index = index or layout.root / INDEX
    if not layout.root.is_dir():
        raise FileNotFoundError(f'no data: there is no folder {layout.root}; name it with --data-root')
    if not index.is_file():
        if not os.access(index.parent, os.W_OK):
            raise ValueError(f'cannot write the index {index}: no permission; name another place with dataset.index')
        with FileLock(f'{index}.lock'):
            if not index.is_file():
                make_index(layout, index)
    names = index.read_text(encoding='utf-8').splitlines()
    if layout.folders is not None:
        wanted = set(layout.folders)
        names = [name for name in names if str(Path(name).parent) in wanted or Path(name).parts[0] in wanted]
    if not names:
        raise ValueError(f'the index {index} has no picture of the wanted folders; remove it to have it made again')
    return names
