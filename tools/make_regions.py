"""Region masks for pictures, without labels: make_regions.py PICTURES -o regions/

Superpixels of scikit-image (pip install scikit-image), 'felzenszwalb' (the default) or 'slic', need no download and are
no substitute for the masks of SAM2 that CorrCLIP's published numbers come from. 'sam' takes a SAM or SAM2 by its
--checkpoint (pip install transformers). Each picture gives an .npz with an `instance_mask` (H, W), ids from 1, 0 for
what is in no region, under the picture's stem. What is there already stays, so a stopped run goes on.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import HUB
from naclip.cli import OneLineParser, add_pictures, answer, positive
from naclip.files import written_whole
from tools.segment import find_pictures

SLIC_COMPACTNESS, SLIC_SIGMA = 10.0, 1.0
FELZENSZWALB_SIGMA = 0.8
POINTS_AT_ONCE = 64  # prompts that go through SAM's decoder together

Maker = Callable[[np.ndarray], np.ndarray]  # RGB pixels (H, W, 3) -> ids (H, W)


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


def superpixels(segments: Callable[[np.ndarray, int], np.ndarray], options: argparse.Namespace) -> Maker:
    """A maker of scikit-image's superpixels.

    Raises:
        ValueError: there is no scikit-image, or a checkpoint is given, which superpixels do not have.
    """
    try:
        import skimage.segmentation  # noqa: F401
    except ImportError as error:
        raise ValueError(f'needs scikit-image ({error}): pip install scikit-image') from None
    if options.checkpoint:
        raise ValueError(f'--checkpoint {options.checkpoint} is for --kind sam; {options.kind} has none')
    return partial(segments, count=options.count)


def sam(options: argparse.Namespace) -> Maker:
    """A maker of the masks that a SAM or SAM2 finds from a grid of points, as its authors' generators do.

    Raises:
        ValueError: there is no transformers, no checkpoint, or one that is no SAM; says what was expected.
    """
    import torch

    import clip

    try:
        from transformers import pipeline
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise ValueError(f'--kind sam needs transformers ({error}): pip install transformers') from None
    disable_progress_bar()
    source, here = place_of(options.checkpoint)
    try:
        generator = pipeline(
            'mask-generation', source, device=clip.resolve_device(options.device), local_files_only=here
        )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f'--checkpoint {options.checkpoint} is no SAM that transformers can read: {reason}') from None
    thresholds = dict(pred_iou_thresh=options.quality, stability_score_thresh=options.stability)

    def maker(pixels: np.ndarray) -> np.ndarray:
        found = generator(
            Image.fromarray(pixels), points_per_crop=options.points, points_per_batch=POINTS_AT_ONCE, **thresholds
        )
        masks = [torch.as_tensor(mask).cpu().numpy() for mask in found['masks']]
        return painted(np.stack(masks) if masks else np.zeros((0, *pixels.shape[:2]), bool))

    return maker


def place_of(checkpoint: str | None) -> tuple[str, bool]:
    """Where transformers finds a checkpoint, and whether that is on this machine; only the hub by its name is not.

    Raises:
        ValueError: there is none.
    """
    expected = f"expected a folder in transformers' layout, or {HUB}ORG/NAME, such as {HUB}facebook/sam2.1-hiera-large"
    if not checkpoint:
        raise ValueError(f'--kind sam needs a --checkpoint: {expected}')
    if checkpoint.startswith(HUB):
        return checkpoint.removeprefix(HUB), False
    folder = Path(checkpoint).expanduser()
    if not (folder / 'config.json').is_file():
        raise ValueError(f'--checkpoint {checkpoint} is no folder with a config.json: {expected}')
    return str(folder), True


def painted(masks: np.ndarray) -> np.ndarray:
    """Masks that may overlap (n, H, W), bool -> ids from 1, 0 where there is none (H, W).

    The smallest is drawn first, so larger ones hide what they cover, as in CorrCLIP's published masks.
    """
    ids = np.zeros(masks.shape[1:], np.int32)
    for i, at in enumerate(np.argsort(masks.sum(axis=(1, 2)), kind='stable'), start=1):
        ids[masks[at]] = i
    return ids


MAKERS: Mapping[str, Callable[[argparse.Namespace], Maker]] = {
    felzenszwalb.__name__: partial(superpixels, felzenszwalb),
    slic.__name__: partial(superpixels, slic),
    sam.__name__: sam,
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
    add('--count', type=positive, default=60, help='superpixels: about so many a picture; default: %(default)s')
    add('--checkpoint', metavar='DIR', help=f"sam: a folder in transformers' layout, or {HUB}ORG/NAME")
    add('--points', type=positive, default=32, help='sam: points along each side of the grid; default: %(default)s')
    add('--quality', type=float, default=0.88, help='sam: least predicted IoU of a mask; default: %(default)s')
    add('--stability', type=float, default=0.95, help='sam: least stability of a mask; default: %(default)s')
    add('--device', default='auto', help='sam: auto, cpu, cuda or cuda:INDEX')
    add('-o', '--out', type=Path, required=True, metavar='DIR')
    return parser


def run(options: argparse.Namespace) -> None:
    """Make what is missing.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
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
    maker = MAKERS[options.kind](options)
    options.out.mkdir(parents=True, exist_ok=True)
    made = 0
    for path in tqdm(pictures, desc=options.kind, unit='picture'):
        pixels = np.asarray(read_picture(path))
        target = options.out / f'{path.stem}.npz'
        if usable(target, pixels.shape[:2]):
            continue
        ids = maker(pixels)
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
