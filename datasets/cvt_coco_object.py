"""Make COCO-Object's labels from the raw COCO-Stuff 164k labels.

    python datasets/cvt_coco_object.py COCO_STUFF164K -o data/coco_object

Reads COCO_STUFF164K/annotations/{train2017,val2017}/*.png (or stuffthingmaps/ in place of annotations/), the maps of
stuffthingmaps_trainval2017.zip. Writes OUT/annotations/{split}/{stem}_instanceTrainIds.png, in which 0 is background
and 1-80 are COCO's things, and links OUT/images/{split} to the pictures. A run that was cut off goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.coco_stuff import OBJECT_SUFFIX, SPLITS, convert_splits, object_ids, read_raw_label
from naclip.data.conversion import DATA_ROOTS, add_workers, next_steps, run_script, write_label

TRAIN_IDS = object_ids()


def convert_label(source: Path, target: Path) -> None:
    """Write the training ids of one raw label."""
    label, _ = read_raw_label(source)
    write_label(TRAIN_IDS[label], target)


def convert(args: argparse.Namespace) -> None:
    """Convert the splits and print the summary."""
    convert_splits(args.coco_stuff164k, args.out, args.splits, args.workers, convert_label, OBJECT_SUFFIX)
    print(next_steps(args.out, DATA_ROOTS['coco_object'], 'coco_object'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make COCO-Object's labels from the raw COCO-Stuff 164k labels.")
    parser.add_argument(
        'coco_stuff164k', type=Path, help='folder with images/ and the raw annotations/ (or stuffthingmaps/)'
    )
    parser.add_argument(
        '-o', '--out', type=Path, default=DATA_ROOTS['coco_object'], help='folder to write (default: %(default)s)'
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='splits to convert (default: those present)')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('cvt_coco_object.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
