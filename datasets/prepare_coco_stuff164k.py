"""Make COCO-Stuff 164k's training labels from its raw ones.

    python datasets/prepare_coco_stuff164k.py ROOT -o data/coco_stuff164k

Reads ROOT/annotations/{val2017,train2017}/*.png (or stuffthingmaps/ in place of annotations/), the maps of
stuffthingmaps_trainval2017.zip. Writes OUT/annotations/{split}/{stem}_labelTrainIds.png, in which the 171 classes are
0-170 in COCO-Stuff's order and 255 is ignored, and links OUT/images/{split} to the pictures. OUT may be ROOT. A run
that was cut off goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.coco_stuff import SPLITS, STUFF_SUFFIX, convert_splits, read_raw_label, stuff_ids
from naclip.data.conversion import DATA_ROOTS, add_workers, next_steps, run_script, write_label

TRAIN_IDS = stuff_ids()


def convert_label(source: Path, target: Path) -> None:
    """Write the training ids of one raw label."""
    label, _ = read_raw_label(source)
    write_label(TRAIN_IDS[label], target)


def convert(args: argparse.Namespace) -> None:
    """Convert the splits and print the summary."""
    convert_splits(args.root, args.out, args.splits, args.workers, convert_label, STUFF_SUFFIX)
    print(next_steps(args.out, DATA_ROOTS['coco_stuff164k'], 'coco_stuff164k'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make COCO-Stuff 164k's training labels from its raw ones.")
    parser.add_argument('root', type=Path, help='folder with images/ and the raw annotations/ (or stuffthingmaps/)')
    parser.add_argument(
        '-o', '--out', type=Path, default=DATA_ROOTS['coco_stuff164k'], help='folder to write (default: %(default)s)'
    )
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='splits to convert (default: those present)')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_coco_stuff164k.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
