"""Train the tiny guide of the embedded benchmark on generated pictures alone: clip/shapes_guide.safetensors.

Self-supervision as in SwAV (arXiv:2006.09882), patch by patch: two crops of a picture, in other lights, overlap; a
patch of one must say which prototype a patch of the other belongs to that shows the same place, or one beside it. The
assignments are balanced over the batch (Sinkhorn-Knopp). No label, caption or label map is used.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import BUNDLED_GUIDES
from naclip.cli import OneLineParser, positive


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('-o', '--out', type=Path, default=BUNDLED_GUIDES['shapes'], metavar='FILE', help='default: %(default)s')
    add('--steps', type=positive, default=300)
    add('--batch', type=positive, default=16, help='pictures a step; default: %(default)s')
    add('--pool', type=positive, default=1000, help='pictures that are drawn; default: %(default)s')
    add('--learning-rate', type=float, default=2e-3)
    add('--seed', type=int, default=0)
    return parser


if __name__ == '__main__':
    build_parser().parse_args()  # --help and wrong options are answered before the imports that take seconds

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from clip.guides import IMAGENET_MEAN, IMAGENET_STD, Guide, GuideSizes
from naclip.files import written_whole
from naclip.shapes import generator as shapes

PATCH, GRID = 4, shapes.TRAIN_SIDE // 4
SIZES = GuideSizes(width=128, depth=3, patch_size=PATCH, native_grid=GRID)
SHIFTS = 8  # cells: by up to this much fewer, the two crops of a picture lie apart
REACH = 1  # cells: how far apart two patches are that must agree
PROTOTYPES, TEMPERATURE, SHARPNESS = 48, 0.1, 0.05
LIGHT = 0.15  # how much brightness and contrast of each channel may change
WARM_UP, WEIGHT_DECAY = 20, 0.05


def draw_pool(count: int, seed: int) -> Tensor:
    """Pictures in [0, 1] (count, 3, side, side), large enough for two crops."""
    rng, side = RandomState(seed), shapes.TRAIN_SIDE + PATCH * SHIFTS
    pictures = [shapes.draw(rng, side)[0] for _ in tqdm(range(count), desc='drawing pictures', unit='picture')]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def relight(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The same pictures (B, 3, H, W) in other lights, normalised as ImageNet's."""
    gain, offset = (LIGHT * (2 * torch.rand(len(pictures), 3, 1, 1, generator=generator) - 1) for _ in range(2))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (((1 + gain) * pictures + offset).clamp(0, 1) - mean) / std


def balanced(scores: Tensor, rounds: int = 3) -> Tensor:
    """Assignments of samples to prototypes (S, P), rows of sum 1, columns of equal sums: Sinkhorn-Knopp."""
    q = torch.exp((scores - scores.amax()) / SHARPNESS)
    for _ in range(rounds):
        q = q / q.sum(dim=0, keepdim=True)
        q = q / q.sum(dim=1, keepdim=True)
    return q


def crops(pool: Tensor, rng: RandomState, batch: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Two crops of `batch` pictures, and by how many cells the second lies below and right of the first."""
    chosen = torch.from_numpy(rng.randint(0, len(pool), batch))
    starts = rng.randint(0, SHIFTS + 1, (2, 2))
    side = shapes.TRAIN_SIDE
    first, second = (
        pool[chosen, :, PATCH * top : PATCH * top + side, PATCH * left : PATCH * left + side] for top, left in starts
    )
    return first, second, tuple((starts[1] - starts[0]).tolist())


def matched(grid: Tensor, shift: tuple[int, int], first: bool) -> Tensor:
    """What of a crop's cells (B, h, w, ...) the other crop shows, too, in the same order for both."""
    for axis, by in enumerate(shift, 1):
        low, high = (max(by, 0), GRID + min(by, 0)) if first else (max(-by, 0), GRID + min(-by, 0))
        grid = grid.narrow(axis, low, high - low)
    return grid


def neighbours(cells: Tensor, rng: RandomState) -> Tensor:
    """Each cell's place is taken by one near it (B, h, w, ...)."""
    h, w = cells.shape[1:3]
    down, across = rng.randint(-REACH, REACH + 1, (2, h, w))
    rows = torch.from_numpy((np.arange(h)[:, None] + down).clip(0, h - 1))
    columns = torch.from_numpy((np.arange(w) + across).clip(0, w - 1))
    return cells[:, rows, columns]


def loss_of(scores: Sequence[Tensor], shift: tuple[int, int], rng: RandomState) -> Tensor:
    """How badly each crop's cells foretell the other's prototypes; scores are cosines (B, h, w, P) of both."""
    with torch.no_grad():
        targets = [balanced(s.flatten(0, 2)).view_as(s) for s in scores]
    losses = []
    for mine, other, first in ((0, 1, True), (1, 0, False)):
        said = F.log_softmax(matched(scores[mine], shift, first) / TEMPERATURE, dim=-1)
        wanted = neighbours(matched(targets[other], shift, not first), rng)
        losses.append(-(wanted * said).sum(dim=-1).mean())
    return sum(losses) / 2


def train(guide: Guide, options: argparse.Namespace) -> float:
    """Train in place; returns the mean loss of the last tenth."""
    pool, rng = draw_pool(options.pool, options.seed), RandomState(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    prototypes = torch.nn.Parameter(F.normalize(torch.randn(PROTOTYPES, SIZES.width, generator=generator), dim=-1))
    optimizer = torch.optim.AdamW(
        [*guide.parameters(), prototypes], lr=options.learning_rate, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / options.steps)) / 2
    )
    losses = []
    with tqdm(range(options.steps), desc='training', unit='step') as steps:
        for _ in steps:
            first, second, shift = crops(pool, rng, options.batch)
            tokens = guide(torch.cat([relight(first, generator), relight(second, generator)]))
            unit = F.normalize(guide.patches(tokens, (GRID, GRID)), dim=-1)
            loss = loss_of((unit @ F.normalize(prototypes, dim=-1).T).chunk(2), shift, rng)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(guide.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            steps.set_postfix(loss=f'{losses[-1]:.2f}', refresh=False)
    return float(np.mean(losses[-max(options.steps // 10, 1) :]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    torch.manual_seed(options.seed)
    guide = Guide(SIZES)
    loss = train(guide, options)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in guide.state_dict().items()}
    with written_whole(options.out) as temporary:
        save_file(weights, temporary)
    print(f'{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, loss {loss:.3f}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
