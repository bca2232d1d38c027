"""Make COCO-Stuff 10k's training labels from its MATLAB files.

    python datasets/prepare_coco_stuff10k.py ROOT -o data/coco_stuff10k

Reads ROOT/{images/*.jpg,annotations/*.mat,imageLists/test.txt}, as cocostuff-10k-v1.1.zip has them. Writes
OUT/annotations/test2014/{stem}_labelTrainIds.png, in which 0 is unlabelled and the 171 classes are 1-171 in
COCO-Stuff's order, and links (or copies) the pictures to OUT/images/test2014. `--splits train` makes train2014 from
imageLists/train.txt. OUT may be ROOT. A run that was cut off goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.coco_stuff import NUM_IDS, STUFF_SUFFIX, UNUSED_IDS
from naclip.data.conversion import (
    DATA_ROOTS,
    InputError,
    add_workers,
    convert_files,
    link_files,
    next_steps,
    read_lines,
    read_mat,
    run_script,
    write_label,
)

SPLITS = ('test', 'train')
INPUTS = (('images', '.jpg'), ('annotations', '.mat'))


def train_ids() -> np.ndarray:
    """Training id of each id in the files (the 164k release's and one), as int64 of shape (183,); -1 for unused ids."""
    table = np.full(NUM_IDS + 1, -1)
    used = np.setdiff1d(np.arange(NUM_IDS), UNUSED_IDS) + 1
    table[0] = 0
    table[used] = np.arange(1, len(used) + 1)
    return table


TRAIN_IDS = train_ids()


def convert_label(source: Path, target: Path) -> None:
    """Write the training ids of one MATLAB file. Raises InputError when it is not one of COCO-Stuff 10k."""
    label = read_mat(source, 'S')
    known = (label >= 0) & (label < len(TRAIN_IDS))
    known[known] = TRAIN_IDS[label[known]] >= 0
    if not known.all():
        raise InputError(
            f'{source} holds id {label[~known][0]}, which COCO-Stuff 10k never uses: '
            'take it from cocostuff-10k-v1.1.zip again'
        )
    write_label(TRAIN_IDS[label].astype(np.uint8), target)


def find_files(root: Path, split: str) -> list[str]:
    """Names of a split's files, without folder and ending.

    Raises:
        InputError: the list, a picture or a MATLAB file is missing.
    """
    stems = read_lines(root / 'imageLists' / f'{split}.txt', 'give the folder into which cocostuff-10k-v1.1.zip went')
    files = [root / folder / f'{stem}{end}' for stem in stems for folder, end in INPUTS]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            f'{missing[0]} is missing ({len(missing)} files of {split}.txt in all): unpack cocostuff-10k-v1.1.zip again'
        )
    return stems


def convert(args: argparse.Namespace) -> None:
    """Convert the splits and print the summary."""
    stems = {split: find_files(args.root, split) for split in dict.fromkeys(args.splits)}
    for split, names in stems.items():
        folder = args.out / 'annotations' / f'{split}2014'
        jobs = [(args.root / f'annotations/{name}.mat', folder / f'{name}{STUFF_SUFFIX}') for name in names]
        labels = convert_files(convert_label, jobs, STUFF_SUFFIX, args.workers)
        pictures = args.out / 'images' / f'{split}2014'
        print(f'{split}: {labels}, {link_files(args.root / "images", pictures, [f"{name}.jpg" for name in names])}')
    print(next_steps(args.out, DATA_ROOTS['coco_stuff10k'], 'coco_stuff10k'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make COCO-Stuff 10k's training labels from its MATLAB files.")
    parser.add_argument('root', type=Path, help='folder with images/, annotations/ and imageLists/')
    parser.add_argument(
        '-o', '--out', type=Path, default=DATA_ROOTS['coco_stuff10k'], help='folder to write (default: %(default)s)'
    )
    parser.add_argument(
        '--splits', nargs='+', choices=SPLITS, default=['test'], help='splits to convert (default: test)'
    )
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_coco_stuff10k.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
