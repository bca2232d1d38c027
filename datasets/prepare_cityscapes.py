"""Make Cityscapes' training labels from its label ids.

    python datasets/prepare_cityscapes.py data/cityscapes

Reads ROOT/gtFine/{split}/*/*_gtFine_labelIds.png, as gtFine_trainvaltest.zip has them, and writes
*_gtFine_labelTrainIds.png beside them: the 19 classes of the benchmark are 0-18, 255 is ignored. A run that was cut
off goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.conversion import (
    DATA_ROOTS,
    InputError,
    add_workers,
    convert_files,
    next_steps,
    read_label,
    run_script,
    write_label,
)

SPLITS = ('val', 'train')
RAW, CONVERTED = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'
MAX_ID = 33
# Label ids of the training ids 0, 1, ...; from cityscapesScripts, helpers/labels.py.
CLASS_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def train_ids() -> np.ndarray:
    """Training id of each label id, as uint8 of shape (256,)."""
    table = np.full(256, 255, dtype=np.uint8)
    table[list(CLASS_IDS)] = np.arange(len(CLASS_IDS))
    return table


TRAIN_IDS = train_ids()


def convert_label(source: Path, target: Path) -> None:
    """Write the training ids of one map of label ids. Raises InputError when it is none."""
    label = read_label(source)
    if label.max() > MAX_ID:
        raise InputError(
            f'{source} holds id {label.max()}, but label ids are 0-{MAX_ID}: take it from gtFine_trainvaltest.zip again'
        )
    write_label(TRAIN_IDS[label], target)


def convert(args: argparse.Namespace) -> None:
    """Convert the splits and print the summary."""
    sources = {split: sorted(args.root.glob(f'gtFine/{split}/*/*{RAW}')) for split in dict.fromkeys(args.splits)}
    for split, found in sources.items():
        if not found:
            raise InputError(
                f'{args.root / "gtFine" / split} holds no */*{RAW}: give the folder into which gtFine_trainvaltest.zip '
                'was unpacked'
            )
    for split, found in sources.items():
        jobs = [(source, source.with_name(source.name.removesuffix(RAW) + CONVERTED)) for source in found]
        print(f'{split}: {convert_files(convert_label, jobs, CONVERTED, args.workers)}')
    print(next_steps(args.root, DATA_ROOTS['city_scapes'], 'city_scapes'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make Cityscapes' training labels from its label ids.")
    parser.add_argument(
        'root',
        type=Path,
        nargs='?',
        default=DATA_ROOTS['city_scapes'],
        help='folder with gtFine/ (default: %(default)s)',
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, default=['val'], help='splits to convert (default: val)')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_cityscapes.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
