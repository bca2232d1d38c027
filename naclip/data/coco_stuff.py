"""Raw labels of COCO-Stuff, and the 164k release turned into a data set's training ids."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from naclip.data.conversion import (
    PNG_SIGNATURE,
    InputError,
    check_pictures,
    is_whole_png,
    link_folder,
    make_folder,
    picture_names,
    run_parallel,
    spread,
)

SPLITS = ('val2017', 'train2017')
LABEL_FOLDERS = ('annotations', 'stuffthingmaps')
OBJECT_SUFFIX, STUFF_SUFFIX = '_instanceTrainIds.png', '_labelTrainIds.png'
CONVERTED_SUFFIXES = (OBJECT_SUFFIX, STUFF_SUFFIX)

# Raw ids are COCO's category ids less one: things below 91, stuff from there to 181, 255 where nobody labelled.
NUM_THING_IDS = 91
NUM_IDS = 182
UNLABELLED = 255
UNUSED_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

SAMPLE_SIZE = 200
MIN_STUFF_SAMPLE = 20  # in fewer labels than this, stuff may be missing by chance
RAW_LABELS = 'use the raw labels from stuffthingmaps_trainval2017.zip'


def object_ids() -> np.ndarray:
    """COCO-Object's id of each raw id, as uint8 of shape (256,): things are 1-80, all else is background, 0."""
    table = np.zeros(256, dtype=np.uint8)
    things = np.setdiff1d(np.arange(NUM_THING_IDS), UNUSED_IDS)
    table[things] = np.arange(1, len(things) + 1)
    return table


def stuff_ids() -> np.ndarray:
    """COCO-Stuff's training id, 0-170, of each raw id, as uint8 of shape (256,); 255 where there is none."""
    table = np.full(256, UNLABELLED, dtype=np.uint8)
    used = np.setdiff1d(np.arange(NUM_IDS), UNUSED_IDS)
    table[used] = np.arange(len(used))
    return table


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


def raw_labels(folder: Path) -> list[Path]:
    """The raw labels of a folder, sorted; converted ones beside them are not inputs."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix == '.png' and not path.name.startswith('.') and not path.name.endswith(CONVERTED_SUFFIXES)
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
    sample = spread(labels, SAMPLE_SIZE)
    has_stuff = False
    for label in sample:
        _, ids = read_raw_label(label)
        has_stuff |= bool(np.any((ids >= NUM_THING_IDS) & (ids < NUM_IDS)))
    if len(sample) >= MIN_STUFF_SAMPLE and not has_stuff:
        raise InputError(
            f'{labels[0].parent}: no stuff (ids 91-181) in {len(sample)} labels looked at, '
            f'so they look already converted: {RAW_LABELS}'
        )


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


def plan(root: Path, out: Path, asked: Sequence[str] | None, suffix: str) -> list[Split]:
    """Check everything that can be checked before the first write, and list what is to do."""
    if not root.is_dir():
        raise InputError(f'{root} is not a folder')
    if out.exists() and not out.is_dir():
        raise InputError(f'{out} is not a folder')
    in_place = out.exists() and out.samefile(root)
    splits = []
    for name, labels in choose_splits(root, out, asked).items():
        folder = out / 'annotations' / name
        targets = ((label, folder / f'{label.stem}{suffix}') for label in labels)
        pending = [(source, target) for source, target in targets if not is_whole_png(target)]
        split = Split(name, labels, folder, root / 'images' / name, out / 'images' / name, pending)
        if not in_place:
            check_pictures(split.pictures, split.picture_folder)
        if pending:
            check_sample(labels)
        splits.append(split)
    return splits


def convert_splits(
    root: Path,
    out: Path,
    asked: Sequence[str] | None,
    workers: int,
    convert: Callable[[Path, Path], None],
    suffix: str,
) -> None:
    """Convert the splits' raw labels to files that end in `suffix`, link the pictures and print the summary.

    Raises:
        InputError: the folders do not hold what is needed, or a label is not raw.
    """
    splits = plan(root, out, asked, suffix)
    for split in splits:
        make_folder(split.label_folder, suffix)
    run_parallel(convert, [job for split in splits for job in split.pending], workers)
    in_place = out.samefile(root)
    for split in splits:
        pictures = 'pictures already in place' if in_place else link_folder(split.pictures, split.picture_folder)
        done = len(split.pending)
        print(f'{split.name}: {done} converted, {len(split.labels) - done} skipped (already there), {pictures}')
        unlabelled = {Path(name).stem for name in picture_names(split.picture_folder)}
        unlabelled -= {label.stem for label in split.labels}
        if unlabelled:
            print(f'{split.name}: {len(unlabelled)} pictures have no label, such as {min(unlabelled)}.jpg')
