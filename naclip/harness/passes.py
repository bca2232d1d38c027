"""Which runs look at pictures together: those that load the same pictures in the same way, as memory allows.

Bytes are those of float32 maps and activations, estimated; H, W pixels; Q names.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image

from clip.model import VisionTransformer
from naclip.harness.loading import Wanted, picture_steps
from naclip.harness.run import Run, dataset_key
from naclip.walk.windows import pixels_at_once

SHARE = 0.5  # of the memory that is free, by default
MAPS_AT_ONCE = 4  # of one run: merged, refined, kept for a vote, and what works on them
BYTES = 4


@dataclass
class Pass:
    """Runs that are evaluated together, and the pictures that some of them lack."""

    runs: list[Run]
    pictures: list[Wanted] = field(default_factory=list)

    @property
    def datasets(self) -> list[Run]:
        """A run for each data set: the first that has it. In a `Wanted`, data sets go by their place here."""
        return list({dataset_key(run.config): run for run in reversed(self.runs)}.values())[::-1]

    @property
    def dataset_numbers(self) -> list[int]:
        """For each run the place of its data set in `datasets`."""
        number = {dataset_key(run.config): i for i, run in enumerate(self.datasets)}
        return [number[dataset_key(run.config)] for run in self.runs]


def passes(runs: Sequence[Run], budget: int) -> list[Pass]:
    """Runs in groups that see the same pictures, each within a budget of bytes; runs that lack none are in no group."""
    groups: list[list[Run]] = []
    for run in runs:
        if run.lacking:
            kin = [group for group in groups if any(_shares(run, other) for other in group)]
            joined = [other for group in kin for other in group]
            groups = [group for group in groups if group not in kin] + [[*joined, run]]
    return [_pass(some) for group in groups for some in within(group, budget)]


def within(runs: Sequence[Run], budget: int) -> list[list[Run]]:
    """Runs, in order, in groups that together need at most a budget of bytes, or one run each."""
    groups: list[list[Run]] = []
    for run in runs:
        if groups and bytes_needed([*groups[-1], run]) <= budget:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def bytes_needed(runs: Sequence[Run]) -> int:
    """About how much memory it takes to evaluate runs together, beside their towers.

    What is read in the towers is kept while the windows of a batch are looked at; what a method makes of it is small.
    Of full-size maps there are those of one run at a time; labels there are of all runs, for all pictures of a batch.
    """
    batch = max(run.config.test_dataloader.get('batch_size', 1) for run in runs)
    towers = {id(run.segmentor.pipeline.net): run.segmentor.pipeline.net.visual for run in runs}
    reading = sum(_bytes_read(visual) for visual in towers.values())
    area = max(_area(run) for run in runs)
    maps = max(len(run.segmentor.pipeline.vocabulary.queries) for run in runs)
    cells = sum(len(run.segmentor.pipeline.vocabulary.queries) for run in runs) * area // 64
    return reading + BYTES * (MAPS_AT_ONCE * maps * area + batch * (2 * area * len(runs) + cells))


def _bytes_read(visual: torch.nn.Module) -> int:
    """What a reading of as many windows as go together keeps at most: each block's tokens, queries, keys and values."""
    pixels = pixels_at_once(next(visual.parameters()).device)
    if not isinstance(visual, VisionTransformer):
        return BYTES * 64 * pixels
    tokens = pixels // visual.patch_size**2
    return BYTES * 4 * tokens * len(visual.class_embedding) * len(visual.transformer.resblocks)


def _area(run: Run) -> int:
    """The pixels of a run's first picture."""
    with Image.open(run.dataset.get_data_info(0)['img_path']) as file:
        return file.width * file.height


def default_budget(device: str) -> int:
    """Half of the memory that is free."""
    if device == 'cuda':
        return int(SHARE * torch.cuda.mem_get_info()[0])
    return int(SHARE * os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_AVPHYS_PAGES'))


def _shares(run: Run, other: Run) -> bool:
    """Whether two runs have pictures in common, which both load in the same way."""
    steps = [picture_steps(one.config.test_dataloader.dataset.pipeline) for one in (run, other)]
    return steps[0] == steps[1] and not run.lacking.keys().isdisjoint(other.lacking)


def _pass(runs: list[Run]) -> Pass:
    """The pass of runs, with the pictures that they lack, in order."""
    together = Pass(runs)
    lacking: dict[str, tuple[dict[int, int], list[int]]] = {}
    for i, (run, number) in enumerate(zip(runs, together.dataset_numbers, strict=True)):
        for path, index in run.lacking.items():
            indices, by = lacking.setdefault(path, ({}, []))
            indices[number] = index
            by.append(i)
    together.pictures = [Wanted(path, indices, tuple(by)) for path, (indices, by) in lacking.items()]
    return together
