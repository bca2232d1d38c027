"""Make PASCAL Context's label maps and lists in VOC 2010's folder.

    python datasets/prepare_context.py data/VOCdevkit/VOC2010 --json trainval_merged.json
    python datasets/prepare_context.py data/VOCdevkit/VOC2010 --mat trainval

Writes SegmentationClassContext/*.png, in which 0 is background (all that is not among the 59 classes) and 1-59 are the
classes in MMSegmentation's order, and ImageSets/SegmentationContext/{train,val}.txt. Reads one of

--json  trainval_merged.json, from which published numbers come; naclip/data/context.py says what it looks like.
--mat   the folder of trainval.tar.gz: a MATLAB file with the field LabelMap for each picture, ids 1-459. Its list of
        names, labels.txt, is looked for in the folder and the one above; without it the known ids are used. The split
        is VOC 2010's own, ImageSets/Main/{train,val}.txt. Labels made so may be worth about 1.5 mIoU on context60
        (not verified).

A run that was cut off goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.context import NUM_IDS, draw_label, label_table, read_annotations, read_class_ids
from naclip.data.conversion import (
    DATA_ROOTS,
    InputError,
    add_workers,
    convert_files,
    next_steps,
    read_lines,
    read_mat,
    run_script,
    write_label,
)
from naclip.files import written_whole

PHASES = ('train', 'val')


def convert_mat(source: Path, table: np.ndarray, target: Path) -> None:
    """Write the label map of one MATLAB file. Raises InputError when it is not one of PASCAL Context."""
    label = read_mat(source, 'LabelMap')
    if label.min() < 0 or label.max() > NUM_IDS:
        raise InputError(f'{source} holds ids {label.min()} to {label.max()}, but PASCAL Context has 0-{NUM_IDS}')
    write_label(table[label], target)


def convert_parts(source: str, label: tuple, target: Path) -> None:
    """Write the label map of one picture of a JSON file. Raises InputError when a mask cannot be decoded."""
    try:
        drawn = draw_label(*label)
    except (ValueError, TypeError) as error:
        raise InputError(f'{source}: {target.stem} has {error}') from error
    write_label(drawn, target)


def check_pictures(folder: Path, stems: Sequence[str]) -> None:
    """Raise InputError when a picture is missing."""
    missing = [stem for stem in stems if not (folder / f'{stem}.jpg').is_file()]
    if missing:
        raise InputError(
            f'{folder / missing[0]}.jpg is missing ({len(missing)} pictures in all): '
            'unpack VOCtrainval_03-May-2010.tar, and give its VOCdevkit/VOC2010'
        )


def jobs_from_mat(voc2010: Path, mats: Path) -> tuple[dict[str, list[str]], dict[str, tuple]]:
    """Names of each phase's pictures, and the arguments of `convert_mat` before the target for each picture."""
    mats = next((folder for folder in (mats, mats / 'trainval') if any(folder.glob('*.mat'))), mats)
    have = {path.stem for path in mats.glob('*.mat')}
    if not have:
        raise InputError(f'{mats} holds no *.mat: give the folder into which trainval.tar.gz was unpacked')
    mend = 'unpack VOCtrainval_03-May-2010.tar'
    phases = {name: read_lines(voc2010 / 'ImageSets' / 'Main' / f'{name}.txt', mend) for name in PHASES}
    wanted = [stem for stems in phases.values() for stem in stems]
    missing = [stem for stem in wanted if stem not in have]
    if missing:
        raise InputError(
            f'{mats / missing[0]}.mat is missing ({len(missing)} of {len(wanted)} in all): unpack trainval.tar.gz again'
        )
    lists = [folder / 'labels.txt' for folder in (mats, mats.absolute().parent)]
    names = next((path for path in lists if path.is_file()), None)
    table = label_table(read_class_ids(names)) if names else label_table()
    return phases, {stem: (mats / f'{stem}.mat', table) for stem in wanted}


def convert(args: argparse.Namespace) -> None:
    """Convert the pictures' labels, write the lists and print the summary."""
    root = args.voc2010
    if args.mat:
        phases, inputs = jobs_from_mat(root, args.mat)
        function = convert_mat
    else:
        phases, labels = read_annotations(args.json)
        inputs = {stem: (str(args.json), labels[stem]) for stems in phases.values() for stem in stems}
        function = convert_parts
    check_pictures(root / 'JPEGImages', list(inputs))
    folder, lists = root / 'SegmentationClassContext', root / 'ImageSets' / 'SegmentationContext'
    jobs = [(*arguments, folder / f'{stem}.png') for stem, arguments in inputs.items()]
    print(f'labels: {convert_files(function, jobs, ".png", args.workers)}')
    lists.mkdir(parents=True, exist_ok=True)
    for name, stems in phases.items():
        with written_whole(lists / f'{name}.txt') as temporary:
            temporary.write_text(''.join(f'{stem}\n' for stem in sorted(stems)), encoding='utf-8')
        print(f'{lists / name}.txt: {len(stems)} pictures')
    print(next_steps(root, DATA_ROOTS['context'], 'context60', 'context59'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description="Make PASCAL Context's label maps and lists in VOC 2010's folder.")
    parser.add_argument(
        'voc2010',
        type=Path,
        nargs='?',
        default=DATA_ROOTS['context'],
        help='folder with JPEGImages/ and ImageSets/ (default: %(default)s)',
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--json', type=Path, metavar='FILE', help='trainval_merged.json, as published numbers')
    source.add_argument('--mat', type=Path, metavar='DIR', help='folder of the MATLAB files of trainval.tar.gz')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_context.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
