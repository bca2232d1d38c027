"""Make pictures and labels of ADE20K with 847 classes from its full release.

    python datasets/prepare_ade847.py data/ADE20K_2021_17_01

Reads ROOT/images/ADE/validation/**/{*.jpg,*_seg.png}. Writes ROOT/annotations_detectron2/validation/*.tif: training ids
0-846 (naclip/data/ade847.json), 16 bits, 65535 for all else; and ROOT/images_detectron2/validation/*.jpg. Where both
sides are above 512, picture (bilinear) and labels (nearest) are reduced to short side 512; other pictures are linked or
copied. `-o` names another folder to write. A run that was cut off goes on where it was.
"""

import argparse
import io
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.data.ade20k import class_indices, reduced_size, train_ids
from naclip.data.conversion import (
    DATA_ROOTS,
    InputError,
    add_workers,
    convert_files,
    is_whole_tif,
    make_folder,
    next_steps,
    run_script,
    write_wide_label,
)
from naclip.files import read_whole, written_whole

SOURCE = Path('images') / 'ADE' / 'validation'
PICTURES = Path('images_detectron2') / 'validation'
LABELS = Path('annotations_detectron2') / 'validation'
SEG = '_seg.png'
TRAIN_IDS = train_ids()
QUALITY = 95  # of the JPEGs that are reduced


def read_picture(path: Path) -> Image.Image:
    """Decode a file. Raises InputError when that fails."""
    try:
        picture = Image.open(io.BytesIO(read_whole(path)))
        picture.load()
    except Exception as error:  # Pillow raises many kinds for a broken file
        raise InputError(f'{path} cannot be decoded: unpack it again') from error
    return picture


def write_picture(picture: Image.Image, source: Path, size: tuple[int, int], target: Path) -> None:
    """Write a picture at a size (height, width); at its own, the file is linked or copied."""
    if target.exists() and target.samefile(source):
        return
    with written_whole(target) as temporary:
        if size == (picture.height, picture.width):
            try:
                os.link(source.resolve(), temporary)
            except (OSError, NotImplementedError):
                shutil.copyfile(source, temporary)
        else:
            reduced = picture.convert('RGB').resize(size[::-1], Image.Resampling.BILINEAR)
            reduced.save(temporary, format='JPEG', quality=QUALITY)


def convert_pair(source: Path, picture: Path, target: Path) -> None:
    """Write a picture and, last, its label map. Raises InputError when they do not belong together."""
    original, coded_path = read_picture(source), source.with_name(source.stem + SEG)
    coded = read_picture(coded_path)
    if coded.mode != 'RGB' or coded.size != original.size:
        raise InputError(
            f'{coded_path} is {coded.mode}, {coded.width} x {coded.height}, expected RGB, '
            f'{original.width} x {original.height} as the picture: unpack it again'
        )
    label = TRAIN_IDS[class_indices(np.asarray(coded))]
    size = reduced_size(original.height, original.width)
    if size != label.shape:
        # 32-bit whole numbers are resized exactly.
        wide = Image.fromarray(label.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)
        label = np.asarray(wide).astype(np.uint16)
    write_picture(original, source, size, picture)
    write_wide_label(label, target)


def convert(args: argparse.Namespace) -> None:
    """Convert the validation split and print the summary."""
    out = args.out or args.root
    sources = sorted((args.root / SOURCE).rglob('*.jpg'))
    if not sources:
        raise InputError(f'{args.root / SOURCE} holds no *.jpg: give the folder ADE20K_2021_17_01 of the full release')
    missing = [path for path in sources if not path.with_name(path.stem + SEG).is_file()]
    if missing:
        raise InputError(f'{missing[0]} has no {missing[0].stem}{SEG} ({len(missing)} in all): unpack it again')
    name, number = Counter(path.stem for path in sources).most_common(1)[0]
    if number > 1:
        raise InputError(f'{name}.jpg is there {number} times below {args.root / SOURCE}: unpack the release again')

    def is_whole(label: Path) -> bool:
        return (out / PICTURES / f'{label.stem}.jpg').is_file() and is_whole_tif(label)

    make_folder(out / PICTURES, '.jpg')
    jobs = [(path, out / PICTURES / path.name, out / LABELS / f'{path.stem}.tif') for path in sources]
    print(f'validation: {convert_files(convert_pair, jobs, ".tif", args.workers, is_whole)}')
    print(next_steps(out, DATA_ROOTS['ade847'], 'ade847'))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = OneLineParser(description='Make pictures and labels of ADE20K with 847 classes from its full release.')
    parser.add_argument(
        'root', type=Path, nargs='?', default=DATA_ROOTS['ade847'], help='the release (default: %(default)s)'
    )
    parser.add_argument('-o', '--out', type=Path, metavar='DIR', help='folder to write (default: the release)')
    add_workers(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    return run_script('prepare_ade847.py', lambda: convert(args))


if __name__ == '__main__':
    sys.exit(main())
