"""Segment pictures of your own with words of your own: PICTURE... --classes "cat, kitten; dog; grass" """

import argparse
import contextlib
import json
import re
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from tqdm import tqdm

from clip.releases import DTYPE_NAMES, HINT, available_models
from naclip.cli import METHODS_HINT, OneLineParser, add_form, answer, parse_constants, positive
from naclip.files import write_png, written_whole

if TYPE_CHECKING:
    from naclip.api import Segmentation


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = OneLineParser(prog=prog, description='Segment pictures of your own with words of your own.')
    add = parser.add_argument
    add('pictures', nargs='+', type=Path, metavar='PICTURE', help='a picture, or a folder of pictures')
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument('--classes', help='"cat, kitten; dog": semicolons separate classes, commas synonyms')
    words.add_argument('--classes-file', type=Path, metavar='FILE', help="a class a line, ',' or ';' between synonyms")
    add('--background', default='', metavar='NAMES', help='"wall, sky": what is not to be told apart, class 0')
    add(
        '--method',
        default='naclip',
        metavar='NAME',
        help=f'{METHODS_HINT}; default: %(default)s',
    )
    add('--method-options', nargs='+', default=[], metavar='K=V', help='constants of the method, e.g. lr=0.4 temp=0.25')
    add(
        '--backbone',
        default='ViT-B/16',
        help=f'one of {", ".join(available_models())}, or {HINT}; default: %(default)s',
    )
    add(
        '--guide',
        metavar='NAME',
        help='second tower of guided methods: a name or a checkpoint file; default: the method',
    )
    add('--regions', type=Path, metavar='DIR', help='region masks, for methods that need them: <stem>.npz or .png')
    add_form(parser)
    add('--std', type=float, help='standard deviation of the Gaussian, in patches; default: the method')
    add('--pamr', choices=('on', 'off'), help='refinement along edges; default: the method')
    add('--prob-thd', type=float, metavar='P', help='less sure than this is background; default: 0.1 with --background')
    add('--short-side', type=positive, metavar='N', help='pixels; more shows smaller things; default: the method')
    add('--templates', type=Path, metavar='FILE', help='prompt templates; default: the method')
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--dtype', choices=('auto', *DTYPE_NAMES), default='auto', help='default: float16 on CUDA, else float32')
    add('--download-root', metavar='DIR', help='where known backbones are kept; default: ~/.cache/clip')
    add('--coco-json', action='store_true', help="also write segments as COCO's panoptic JSON, with run lengths")
    add('--scores', action='store_true', help='also write a heat map a class')
    add('-o', '--out', type=Path, default=Path('segmented'), metavar='DIR', help='default: %(default)s')
    return parser


def find_pictures(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """The files given, and the pictures in the folders given; how many other files the folders have.

    Raises:
        ValueError: a folder without pictures.
    """
    Image.init()
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    pictures, others = [], 0
    for path in paths:
        if not path.is_dir():
            pictures.append(path)
            continue
        files = sorted(file for file in path.iterdir() if file.is_file())
        found = [file for file in files if file.suffix.lower() in suffixes]
        if not found:
            raise ValueError(f'folder {path} has no picture in it')
        pictures += found
        others += len(files) - len(found)
    return list(dict.fromkeys(pictures)), others


def output_names(pictures: Sequence[Path]) -> list[str]:
    """What each picture's outputs begin with: its stem; where several share one, its whole name, then a number, too."""
    stems = Counter(picture.stem for picture in pictures)
    names: dict[str, None] = {}
    for picture in pictures:
        name = picture.stem if stems[picture.stem] == 1 else picture.name
        candidates = chain([name], (f'{name}-{i}' for i in count(2)))
        names[next(candidate for candidate in candidates if candidate not in names)] = None
    return list(names)


def write_outputs(seen: 'Segmentation', scores: bool, out: Path, name: str) -> None:
    """Overlay, label map and, with `scores`, a heat map a class."""
    write_png(seen.overlay(), out / f'{name}_overlay.png')
    write_png(seen.label_map(), out / f'{name}_labels.png')
    if scores:
        for i, class_name in enumerate(seen.names):
            slug = re.sub(r'\W+', '-', class_name).strip('-')[:40]
            write_png(seen.heat_map(i), out / f'{name}_score_{i:03}_{slug}.png')


def write_coco(seen: 'Segmentation', picture: Path, out: Path, name: str) -> None:
    """The segments of the label map that `write_outputs` writes, as JSON beside it."""
    from naclip.pictures.coco import panoptic

    record = panoptic(seen.labels, seen.names, seen.colours, picture.name, f'{name}_labels.png')
    with written_whole(out / f'{name}_coco.json') as temporary:
        temporary.write_text(json.dumps(record, ensure_ascii=False), encoding='utf-8')


def summary(seen: 'Segmentation') -> str:
    """The classes in a picture, largest share first."""
    from naclip.pictures.drawing import percent

    order = sorted(range(len(seen.names)), key=lambda i: -seen.shares[i])
    return ', '.join(f'{seen.names[i]} {percent(seen.shares[i])}' for i in order if seen.shares[i])


def run(options: argparse.Namespace, prog: str) -> int:
    """Segment everything; returns the exit code: 1 if a picture failed.

    Raises:
        ValueError, OSError: nothing at all can be done; says why.
    """
    # Pillow refuses what is twice as large as what it warns of, and satellites take pictures in between.
    warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
    # These take seconds: only once the options are known to be good.
    from naclip.api import Segmenter, vocabulary_of
    from naclip.methods.guide_of import check_regions
    from naclip.pictures.geotiff import write_georeferenced
    from naclip.pictures.picture import read_picture
    from naclip.walk.masks import RegionMasks
    from naclip.walk.vocabulary import read_vocabulary

    classes = read_vocabulary(options.classes_file).classes if options.classes_file else options.classes
    vocabulary_of(classes, options.background)  # before the minutes that weights may take
    pictures, others = find_pictures(options.pictures)
    segmenter = Segmenter(
        options.backbone,
        options.device,
        options.dtype,
        options.download_root,
        activation=options.activation,
        head_width=options.head_width,
    )
    segment = segmenter.prepare(
        classes,
        options.background,
        method={'type': options.method} | parse_constants(options.method_options),
        gaussian_std=options.std,
        pamr=None if options.pamr is None else options.pamr == 'on',
        prob_thd=options.prob_thd,
        short_side=options.short_side,
        templates=options.templates,
        guide=options.guide,
    )
    check_regions(segment.pipeline.method, options.regions)
    masks = RegionMasks(options.regions) if options.regions else None
    if masks:
        masks.check(pictures)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    bar = tqdm(pictures, unit='picture', disable=len(pictures) == 1 or None)
    with contextlib.closing(bar):
        for path, name in zip(bar, output_names(pictures), strict=True):
            try:
                picture = read_picture(path)
            except (ValueError, OSError) as error:
                failed.append(path)
                bar.write(f'{prog}: {error}', file=sys.stderr)
                continue
            seen = segment(picture, masks.find(path) if masks else None)
            write_outputs(seen, options.scores, options.out, name)
            write_georeferenced(seen.labels, seen.colours, path, options.out / f'{name}_labels.tif')
            if options.coco_json:
                write_coco(seen, path, options.out, name)
            bar.write(f'{path}: {summary(seen)}')
    done = f'{len(pictures) - len(failed)} of {len(pictures)} pictures segmented into {options.out}'
    print(done + (f'; {others} other files in the folders' if others else ''))
    if failed:
        print(f'{prog}: {len(failed)} failed: {", ".join(map(str, failed))}', file=sys.stderr)
    return int(bool(failed))


def main(argv: Sequence[str] | None = None, prog: str = 'segment.py') -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser(prog).parse_args(argv)
    return answer(prog, lambda: run(options, prog))
