"""Region masks for pictures, without labels: make_regions.py PICTURES -o regions/

Superpixels of scikit-image (pip install scikit-image): 'felzenszwalb' (the default) or 'slic'. They are no substitute
for the masks of SAM2 that CorrCLIP's published numbers come from, but need no download. Each picture gives an .npz with
an `instance_mask` (H, W), ids from 1, under the picture's stem. What is there already stays, so a stopped run goes on.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser, add_pictures, answer, positive
from naclip.files import written_whole
from tools.segment import find_pictures

SLIC_COMPACTNESS, SLIC_SIGMA = 10.0, 1.0
FELZENSZWALB_SIGMA = 0.8


def slic(pixels: np.ndarray, count: int) -> np.ndarray:
    """About `count` compact superpixels of RGB pixels (H, W, 3): ids from 1 (H, W)."""
    from skimage.segmentation import slic as segments

    return segments(
        pixels, n_segments=count, compactness=SLIC_COMPACTNESS, sigma=SLIC_SIGMA, start_label=1, channel_axis=-1
    )


def felzenszwalb(pixels: np.ndarray, count: int) -> np.ndarray:
    """Superpixels that follow edges, none smaller than an 8 * `count`-th of the picture: ids from 1 (H, W)."""
    from skimage.segmentation import felzenszwalb as segments

    smallest = max(pixels.shape[0] * pixels.shape[1] // (8 * count), 1)
    scale = max(pixels.shape[:2])  # larger pictures, larger regions
    return segments(pixels, scale=scale, sigma=FELZENSZWALB_SIGMA, min_size=smallest, channel_axis=-1) + 1


MAKERS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {
    maker.__name__: maker for maker in (felzenszwalb, slic)
}


def usable(path: Path, size: tuple[int, int]) -> bool:
    """Whether a mask of that size is there."""
    from naclip.walk.masks import read_mask

    try:
        return path.is_file() and tuple(read_mask(path).shape) == size
    except ValueError:  # damaged: it is made again
        return False


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pictures(parser)
    add('--kind', choices=MAKERS, default='felzenszwalb', help='default: %(default)s')
    add('--count', type=positive, default=60, help='about so many regions a picture; default: %(default)s')
    add('-o', '--out', type=Path, required=True, metavar='DIR')
    return parser


def run(options: argparse.Namespace) -> None:
    """Make what is missing.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
    try:
        import skimage.segmentation  # noqa: F401
    except ImportError as error:
        raise ValueError(f'needs scikit-image ({error}): pip install scikit-image') from None
    # These take seconds: only once the options are known to be good.
    from naclip.pictures.picture import read_picture
    from naclip.walk.masks import KEY

    pictures, _ = find_pictures(options.pictures)
    stems = [picture.stem for picture in pictures]
    twice = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else ()
    if twice:
        raise ValueError(
            f'several pictures have the stem {min(twice)}, by which masks are found; use a folder for each'
        )
    options.out.mkdir(parents=True, exist_ok=True)
    made = 0
    for path in tqdm(pictures, desc=options.kind, unit='picture'):
        pixels = np.asarray(read_picture(path))
        target = options.out / f'{path.stem}.npz'
        if usable(target, pixels.shape[:2]):
            continue
        ids = MAKERS[options.kind](pixels, options.count)
        with written_whole(target) as temporary, temporary.open('wb') as file:
            np.savez_compressed(file, **{KEY: ids.astype(np.int32)})
        made += 1
    print(f'{options.out}: {made} region masks made, {len(pictures) - made} were there')


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    return answer('make_regions.py', lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
