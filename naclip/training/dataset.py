"""Training samples: a picture's weak and strong form, and its masks, drawn from the sample's place in the run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from naclip.files import read_whole
from naclip.training.colours import jitter, strengthened
from naclip.training.pictures import Layout, read_index, read_segmentations
from naclip.training.views import Framing, View

Key = tuple[int, int]  # a sample's place in the run, and which picture it is


@dataclass(frozen=True)
class Sampling:
    """How a picture becomes a sample; without `jitter` its colours stay as they are.

    Raises:
        ValueError: sizes that make no sense.
    """

    framing: Framing = Framing()  # noqa: RUF009 - frozen
    mask_resolution: int = 256
    jitter: bool = True

    def __post_init__(self):
        if min(self.framing.short, self.framing.longest, self.framing.crop, self.mask_resolution) < 1:
            raise ValueError(f'{self}: expected sizes above 0')

    def sample(
        self, picture: Image.Image, segmentations: Sequence[Mapping] | None, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """`weak` and `strong`, uint8 (3, h, w), and `masks`, bool (n, M, M), where there are segmentations."""
        view = View.draw((picture.height, picture.width), self.framing, rng)
        part = view.cropped(picture)
        weak = view.mirrored(jitter(part, rng) if self.jitter else part)
        strong = strengthened(weak, view.cutout, rng, self.jitter)
        sample = {
            name: torch.from_numpy(p.transpose(2, 0, 1).copy()) for name, p in (('weak', weak), ('strong', strong))
        }
        if segmentations is not None:
            masks = view.masks(segmentations, self.framing.crop, self.mask_resolution)
            sample['masks'] = torch.from_numpy(masks)
        return sample


class MaskedPictures(torch.utils.data.Dataset):
    """Pictures of a layout, sampled.

    Each sample has its own random numbers, from `seed` and its place in the run: they do not depend on how many
    processes and workers there are, nor on whether a run was interrupted. A sample also says what k-means starts from
    (`seed`) and how long it took to make (`seconds`).

    Raises:
        FileNotFoundError, ValueError: no data, another layout, or pairs that are missing or unreadable.
    """

    metainfo: Mapping = {}

    def __init__(self, layout: Layout, sampling: Sampling, index: Path | None = None, seed: int = 0):
        self.layout, self.sampling, self.seed = layout, sampling, seed
        self.names = np.array(read_index(layout, index))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Key) -> dict:
        start = time.perf_counter()
        place, i = key
        name = str(self.names[i])
        rng = np.random.default_rng([self.seed, place])
        path = self.layout.picture(name)
        try:
            read_whole(path)
            with Image.open(path) as image:
                picture = image.convert('RGB')
        except (OSError, ValueError) as error:
            raise ValueError(f'cannot read the picture {path}: {error}; the index was made when it could be') from error
        segmentations = None
        if self.layout.annotations is not None:
            segmentations = read_segmentations(self.layout.annotation(name))
        try:
            sample = self.sampling.sample(picture, segmentations, rng)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{self.layout.annotation(name)}: a mask cannot be read: {error}') from error
        return sample | {'seed': int(rng.integers(2**31)), 'seconds': time.perf_counter() - start}


class Places:
    """The order of a run: pictures shuffled over and over, shared out among processes, as (place, picture).

    A global batch is the same pictures whatever the number of processes.
    """

    def __init__(self, size: int, seed: int, rank: int, processes: int):
        self.size, self.seed, self.rank, self.processes = size, seed, rank, processes
        self.first = 0  # samples that this process has had

    def skip(self, samples: int) -> None:
        """Start after so many samples of this process."""
        self.first = samples

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        place = self.first * self.processes + self.rank
        order, of = None, -1
        while True:
            turn, i = divmod(place, self.size)
            if turn != of:
                order, of = np.random.default_rng([self.seed, turn]).permutation(self.size), turn
            yield place, int(order[i])
            place += self.processes
