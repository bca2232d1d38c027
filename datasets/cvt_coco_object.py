"""Make COCO-Object's labels from the raw COCO-Stuff 164k labels.

    python datasets/cvt_coco_object.py COCO_STUFF164K -o data/coco_object

Reads COCO_STUFF164K/annotations/{train2017,val2017}/*.png (or stuffthingmaps/ in place of annotations/), the maps of
stuffthingmaps_trainval2017.zip. Writes OUT/annotations/{split}/{stem}_instanceTrainIds.png, in which 0 is background
and 1-80 are COCO's things, and links OUT/images/{split} to the pictures. A run that was cut off goes on where it was.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser, positive
from naclip.files import written_whole

SPLITS = ('val2017', 'train2017')
LABEL_FOLDERS = ('annotations', 'stuffthingmaps')
OUTPUT_SUFFIX = '_instanceTrainIds.png'
CONVERTED_SUFFIXES = (OUTPUT_SUFFIX, '_labelTrainIds.png')

# Raw ids are COCO's category ids less one: things below 91, stuff from there to 181, 255 where nobody labelled.
NUM_THING_IDS = 91
NUM_IDS = 182
UNLABELLED = 255
UNUSED_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

SAMPLE_SIZE = 200
MIN_STUFF_SAMPLE = 20  # in fewer labels than this, stuff may be missing by chance
MAX_CHUNK = 32
RAW_LABELS = 'use the raw labels from stuffthingmaps_trainval2017.zip'
PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
PNG_END = b'\x00\x00\x00\x00IEND\xaeB`\x82'


class InputError(ValueError):
    """Something is wrong with what was given; the message is one line for the user."""


def train_id_table() -> np.ndarray:
    """Training id of each raw id, as uint8 of shape (256,)."""
    table = np.zeros(256, dtype=np.uint8)
    things = np.setdiff1d(np.arange(NUM_THING_IDS), UNUSED_IDS)
    table[things] = np.arange(1, len(things) + 1)
    return table


TRAIN_IDS = train_id_table()


def read_raw_label(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a raw label; returns the map and the sorted ids in it. Raises InputError when it is no raw label."""
    data = Path(path).read_bytes()
    # From the header, as Pillow stretches grey maps of 2 and 4 bits to 0-255. Colour types: 0 grey, 3 palette.
    if data.startswith(PNG_SIGNATURE) and len(data) > 25 and (data[24] != 8 or data[25] not in (0, 3)):
        raise InputError(f'{path} is not a single-channel 8-bit map: {RAW_LABELS}')
    try:
        with Image.open(io.BytesIO(data), formats=['PNG']) as picture:
            label = np.asarray(picture)
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise InputError(f'{path} cannot be decoded as a PNG: unpack it again') from error
    ids = np.flatnonzero(np.bincount(label.ravel(), minlength=256))
    unused = np.intersect1d(ids, UNUSED_IDS)
    if unused.size:
        raise InputError(
            f'{path} holds id {unused[0]}, which raw labels never use, so it looks already converted: {RAW_LABELS}'
        )
    unknown = ids[(ids >= NUM_IDS) & (ids != UNLABELLED)]
    if unknown.size:
        raise InputError(f'{path} holds id {unknown[0]}, but raw labels hold only 0-181 and 255: {RAW_LABELS}')
    return label, ids


def remove_leftovers(folder: Path, suffix: str) -> None:
    """Remove the temporary files of a run that was killed."""
    for path in folder.glob(f'.*{suffix}.*.tmp'):
        path.unlink(missing_ok=True)


def convert_label(source: Path, target: Path) -> None:
    """Write the training ids of one raw label."""
    label, _ = read_raw_label(source)
    with written_whole(Path(target)) as temporary:
        Image.fromarray(TRAIN_IDS[label]).save(temporary, format='PNG')


def is_whole_png(path: Path) -> bool:
    """Whether the file is there up to PNG's end mark, which one cut off by a full disk or a crash lacks."""
    try:
        with path.open('rb') as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except FileNotFoundError:
        return False
    except OSError:
        if path.is_file() and path.stat().st_size < len(PNG_END):
            return False
        raise


def raw_labels(folder: Path) -> list[Path]:
    """The raw labels of a folder, sorted; converted ones beside them are not inputs."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(folder))
    return [
        folder / name
        for name in names
        if name.endswith('.png') and not name.startswith('.') and not name.endswith(CONVERTED_SUFFIXES)
    ]


def find_labels(root: Path, split: str) -> list[Path]:
    """The raw labels of a split, none where the split is missing. Raises InputError where all are converted."""
    folders = [root / name / split for name in LABEL_FOLDERS]
    for folder in folders:
        if labels := raw_labels(folder):
            return labels
    for folder in folders:
        if any(next(folder.glob(f'[!.]*{suffix}'), None) for suffix in CONVERTED_SUFFIXES):
            raise InputError(f'{folder} holds only converted labels: {RAW_LABELS}')
    return []


def check_sample(labels: Sequence[Path]) -> None:
    """Look at labels spread over the split; raises InputError when they do not look raw."""
    spread = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), SAMPLE_SIZE)).round().astype(int))
    has_stuff = False
    for index in spread:
        _, ids = read_raw_label(labels[index])
        has_stuff |= bool(np.any((ids >= NUM_THING_IDS) & (ids < NUM_IDS)))
    if len(spread) >= MIN_STUFF_SAMPLE and not has_stuff:
        raise InputError(
            f'{labels[0].parent}: no stuff (ids 91-181) in {len(spread)} labels looked at, '
            f'so they look already converted: {RAW_LABELS}'
        )


def picture_names(folder: Path) -> list[str]:
    """Names of the pictures in a folder, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith('.jpg') and entry.name[0] != '.')


def check_pictures(source: Path, target: Path) -> None:
    """Raise InputError when the pictures' folder can not be linked to."""
    if not picture_names(source) and not picture_names(target):
        raise InputError(f'{source} holds no pictures (*.jpg): put them there, or leave the split out with --splits')
    if not source.is_dir() or (target.exists() and target.samefile(source)):
        return
    if target.is_symlink():
        raise InputError(f'{target} is a link to {os.readlink(target)}, not to {source}: remove it')
    if target.exists() and not target.is_dir():
        raise InputError(f'{target} is in the way of the pictures: remove it')


def link_pictures(source: Path, target: Path) -> str:
    """Make the pictures appear under target at the least cost; returns what was done."""
    if not source.is_dir() or (target.exists() and target.samefile(source)):
        return 'pictures already in place'
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError, NotImplementedError):
        if target.is_dir():
            target.rmdir()  # fails, as it should, where pictures are in it
        target.symlink_to(source.absolute(), target_is_directory=True)
        return f'pictures linked (folder link to {source.absolute()})'
    target.mkdir(exist_ok=True)
    remove_leftovers(target, '.jpg')
    present = set(picture_names(target))
    missing = [name for name in picture_names(source) if name not in present]
    linked = copied = 0
    for name in tqdm(missing, desc=f'pictures of {target.name}', unit='file', disable=not missing):
        try:
            os.link((source / name).resolve(), target / name)  # resolved, as a link's own target may be relative
            linked += 1
        except (OSError, NotImplementedError):
            with written_whole(target / name) as temporary:
                shutil.copyfile(source / name, temporary)
            copied += 1
    return f'pictures linked: {linked} by hard links, {copied} copied, {len(present)} already in place'


@dataclass
class Split:
    """One split's inputs, its folders, and the labels still to do."""

    name: str
    labels: list[Path]
    label_folder: Path
    pictures: Path
    picture_folder: Path
    pending: list[tuple[Path, Path]]


def choose_splits(root: Path, out: Path, asked: Sequence[str] | None) -> dict[str, list[Path]]:
    """Raw labels of each split to do: those asked for, or those that are there."""
    found = {name: find_labels(root, name) for name in dict.fromkeys(asked or SPLITS)}
    for name, labels in found.items():
        if asked and not labels:
            raise InputError(
                f'no raw labels of {name}: neither {root / "annotations" / name} nor stuffthingmaps has any'
            )
    found = {name: labels for name, labels in found.items() if labels}
    if not found:
        raise InputError(
            f'no raw labels under {root}: expected annotations/val2017/*.png or annotations/train2017/*.png'
        )
    if not asked:
        # The zip always holds both splits' labels, while many fetch the pictures of val2017 alone.
        with_pictures = [name for name in found if any(picture_names(place / 'images' / name) for place in (root, out))]
        if with_pictures and with_pictures != list(found):
            for name in found.keys() - with_pictures:
                print(f'{name}: left out, as {root / "images" / name} holds no pictures')
            found = {name: found[name] for name in with_pictures}
    return found


def plan(root: Path, out: Path, asked: Sequence[str] | None) -> list[Split]:
    """Check everything that can be checked before the first write, and list what is to do."""
    if not root.is_dir():
        raise InputError(f'{root} is not a folder')
    if out.exists() and not out.is_dir():
        raise InputError(f'{out} is not a folder')
    in_place = out.exists() and out.samefile(root)
    splits = []
    for name, labels in choose_splits(root, out, asked).items():
        folder = out / 'annotations' / name
        targets = ((label, folder / f'{label.stem}{OUTPUT_SUFFIX}') for label in labels)
        pending = [(source, target) for source, target in targets if not is_whole_png(target)]
        split = Split(name, labels, folder, root / 'images' / name, out / 'images' / name, pending)
        if not in_place:
            check_pictures(split.pictures, split.picture_folder)
        if pending:
            check_sample(labels)
        splits.append(split)
    return splits


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def convert_chunk(chunk: Sequence[tuple[Path, Path]]) -> int:
    """Convert some labels in a worker; returns how many."""
    for source, target in chunk:
        convert_label(source, target)
    return len(chunk)


def convert_all(pending: Sequence[tuple[Path, Path]], workers: int) -> None:
    """Convert the labels in parallel; the first error ends the run."""
    if not pending:
        return
    size = max(1, min(MAX_CHUNK, len(pending) // (workers * 8)))
    chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
    if workers == 1:
        with tqdm(total=len(pending), desc='labels', unit='file') as bar:
            for chunk in chunks:
                bar.update(convert_chunk(chunk))
        return
    executor = ProcessPoolExecutor(min(workers, len(chunks)), initializer=start_worker)
    try:
        futures = [executor.submit(convert_chunk, chunk) for chunk in chunks]
        with tqdm(total=len(pending), desc='labels', unit='file') as bar:
            for future in as_completed(futures):
                bar.update(future.result())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def convert(root: Path, out: Path, asked: Sequence[str] | None, workers: int) -> None:
    """Convert the splits and print the summary."""
    splits = plan(root, out, asked)
    for split in splits:
        split.label_folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(split.label_folder, OUTPUT_SUFFIX)
    convert_all([job for split in splits for job in split.pending], workers)
    in_place = out.samefile(root)
    for split in splits:
        pictures = 'pictures already in place' if in_place else link_pictures(split.pictures, split.picture_folder)
        done = len(split.pending)
        print(f'{split.name}: {done} converted, {len(split.labels) - done} skipped (already there), {pictures}')
        unlabelled = {Path(name).stem for name in picture_names(split.picture_folder)}
        unlabelled -= {label.stem for label in split.labels}
        if unlabelled:
            print(f'{split.name}: {len(unlabelled)} pictures have no label, such as {min(unlabelled)}.jpg')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make COCO-Object's labels from the raw COCO-Stuff 164k labels.")
    parser.add_argument(
        'coco_stuff164k', type=Path, help='folder with images/ and the raw annotations/ (or stuffthingmaps/)'
    )
    parser.add_argument(
        '-o', '--out', type=Path, default=Path('data/coco_object'), help='folder to write (default: %(default)s)'
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='splits to convert (default: those present)')
    parser.add_argument(
        '--workers', type=positive, default=os.cpu_count() or 1, help='processes (default: one per CPU, %(default)s)'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    try:
        convert(args.coco_stuff164k, args.out, args.splits, args.workers)
    except (InputError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print('error: a worker was killed, maybe for memory: run again, with fewer --workers', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped: run again to go on', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
