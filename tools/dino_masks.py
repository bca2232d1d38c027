"""Write the masks of DINO's tokens for pictures, once, as training reads them: tools/dino_masks.py PICTURES OUT"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser, positive


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__)
    add = parser.add_argument
    add('pictures', type=Path, help='a folder of pictures, with folders in it or not')
    add('out', type=Path, help='where the JSON files go, in the same folders: the annotations of a training config')
    add('--dino', metavar='FILE', help="weights; default: DINO's ViT-S/16, downloaded")
    add('--short', type=positive, default=640, help="pixels of a picture's short side for DINO; default: %(default)s")
    add('--device', default='auto', help='auto, cpu, cuda or cuda:INDEX')
    add('--seed', type=int, default=0, help='of what k-means starts from; default: %(default)s')
    return parser


if __name__ == '__main__':
    build_parser().parse_args()  # --help and wrong options are answered before the imports that take seconds

import torch
from PIL import Image
from torchvision.transforms.v2 import functional as pil
from tqdm import tqdm

import clip
from clip.guides import Guide
from naclip.cli import answer
from naclip.data.run_lengths import encode
from naclip.files import written_whole
from naclip.training.dino import NAME, dino_tokens, load_dino
from naclip.training.kmeans import cluster_masks, kmeans, starting_rows
from naclip.training.pictures import Layout, list_pictures

MEAN, STD = (torch.tensor(values)[:, None, None] for values in (clip.MEAN, clip.STD))


@torch.no_grad()
def masks_of(tower: Guide, picture: Image.Image, short: int, seed: int, device: torch.device) -> torch.Tensor:
    """The masks of a picture at its own size, bool (n, H, W); its short side is `short` pixels for DINO."""
    size = picture.height, picture.width
    scale = short / min(size)
    wanted = [max(round(side * scale), tower.patch_size) for side in size[::-1]]
    seen = picture.resize(wanted, Image.Resampling.BILINEAR)
    images = ((pil.to_dtype(pil.to_image(seen), torch.float32, scale=True) - MEAN) / STD)[None].to(device)
    tokens = dino_tokens(tower, images)[0]  # (h, w, D)
    rows = tokens.flatten(0, 1)
    labels = kmeans(rows, starting_rows(len(rows), seed)).unflatten(0, tokens.shape[:2])
    masks = cluster_masks(labels, size).cpu()
    return masks[masks.any(dim=2).any(dim=1)]


def run(options: argparse.Namespace) -> None:
    """Make what is missing.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
    device = clip.resolve_device(options.device)
    folder = options.pictures
    names = list_pictures(Layout(folder.parent, folder.name, None))
    tower = load_dino(options.dino or NAME).to(device)
    for i, name in enumerate(tqdm(names, desc="clustering DINO's tokens", unit='picture')):
        target = options.out / Path(name).with_suffix('.json')
        if target.is_file():  # an earlier attempt has made it
            continue
        with Image.open(folder / name) as image:
            picture = image.convert('RGB')
        masks = masks_of(tower, picture, options.short, options.seed + i, device)
        about = {'width': picture.width, 'height': picture.height, 'file_name': Path(name).name}
        entries = [{'id': n, 'area': int(m.sum()), 'segmentation': encode(m.numpy())} for n, m in enumerate(masks)]
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(target) as temporary:
            temporary.write_text(json.dumps({'image': about, 'annotations': entries}), encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    return answer('dino_masks.py', lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
