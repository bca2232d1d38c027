"""Check pictures and masks in SA-1B's layout, and make the index that training reads: tools/index_masks.py FOLDER"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.training.pictures import INDEX, Layout, check_pairs, list_pictures, make_index, read_folders


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add('folder', type=Path, help='with images/ and annotations/')
    add('--pictures', default='images', metavar='DIR', help='below the folder; default: %(default)s')
    add('--annotations', default='annotations', metavar='DIR', help="below the folder; 'none': pictures alone")
    add('--folders', type=Path, metavar='FILE', help='a list of folders of pictures, e.g. datasets/sa1b.txt')
    add('--index', type=Path, metavar='FILE', help=f'default: {INDEX} in the folder')
    add('--leave-out', action='store_true', help='leave out what cannot be used, and name all of it')
    options = parser.parse_args(argv)
    annotations = None if options.annotations == 'none' else options.annotations
    try:
        folders = read_folders(options.folders) if options.folders else None
        layout = Layout(options.folder, options.pictures, annotations, folders)
        if options.leave_out:
            for what in check_pairs(layout, list_pictures(layout)).values():
                print(f'left out: {what}')
        index = options.index or options.folder / INDEX
        print(f'{len(make_index(layout, index, options.leave_out))} pictures  ->  {index}')
    except (ValueError, OSError) as error:
        print(f'index_masks.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
