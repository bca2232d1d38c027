"""Make the label maps of PASCAL Context with all 459 classes, in VOC 2010's folder.

    python datasets/prepare_context459.py data/VOCdevkit/VOC2010 --mat trainval

Reads the MATLAB files of trainval.tar.gz (field LabelMap: ids 1-459, 0 for none) of the pictures in
ImageSets/SegmentationContext/val.txt, which prepare_context.py writes, or --list FILE. Writes
annotations_detectron2/pc459_val/*.tif: the ids minus 1, 16 bits, 65535 for none. A run that was cut off goes on where
it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.context import NUM_IDS
from naclip.data.conversion import (
    DATA_ROOTS,
    InputError,
    add_workers,
    convert_files,
    is_whole_tif,
    next_steps,
    read_lines,
    read_mat,
    run_script,
    write_wide_label,
)

IGNORED = 65535
FOLDER = Path('annotations_detectron2') / 'pc459_val'
LIST = Path('ImageSets') / 'SegmentationContext' / 'val.txt'


def convert_label(source: Path, target: Path) -> None:
    """Write the label map of one MATLAB file. Raises InputError when it is not one of PASCAL Context."""
    label = read_mat(source, 'LabelMap')
    if label.min() < 0 or label.max() > NUM_IDS:
        raise InputError(f'{source} holds ids {label.min()} to {label.max()}, but PASCAL Context has 0-{NUM_IDS}')
    write_wide_label(np.where(label == 0, IGNORED, label - 1).astype(np.uint16), target)


def convert(args: argparse.Namespace) -> None:
    """Convert the labels and print the summary."""
    names = args.list or args.voc2010 / LIST
    stems = read_lines(names, 'run prepare_context.py first, or give the list of pictures with --list')
    mats = next((folder for folder in (args.mat, args.mat / 'trainval') if any(folder.glob('*.mat'))), args.mat)
    files = [mats / f'{stem}.mat' for stem in stems]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise InputError(
            f'{missing[0]} is missing ({len(missing)} of {len(files)} in all): give the folder into which '
            'trainval.tar.gz was unpacked'
        )
    folder = args.voc2010 / FOLDER
    jobs = [(path, folder / f'{path.stem}.tif') for path in files]
    print(f'labels: {convert_files(convert_label, jobs, ".tif", args.workers, is_whole_tif)}')
    print(next_steps(args.voc2010, DATA_ROOTS['context'], 'context459'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description='Make the label maps of PASCAL Context with all 459 classes.')
    parser.add_argument(
        'voc2010', type=Path, nargs='?', default=DATA_ROOTS['context'], help='folder with JPEGImages/ and ImageSets/'
    )
    parser.add_argument('--mat', type=Path, metavar='DIR', required=True, help='folder of the MATLAB files')
    parser.add_argument('--list', type=Path, metavar='FILE', help=f'names of pictures (default: {LIST})')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_context459.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
