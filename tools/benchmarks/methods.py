"""What each method costs beside CLIP's own last block: tools/benchmark.py --methods"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.guides import Guide, GuideSizes
from clip.model import CLIP
from naclip.methods import find_method, for_tower
from naclip.methods.guide_of import guide_of
from naclip.methods.method import Method
from naclip.pipeline import Pipeline, Settings, queries_of
from naclip.walk.windows import window_boxes
from tools.benchmarks.clock import Clock

GUIDE_SIZES = {'dino_vitb8': GuideSizes(768, 12, 8, 28), 'dino_vitb16': GuideSizes(768, 12, 16, 14)}


def time_methods(pipeline: Pipeline, names: Sequence[str], images: Tensor, size: tuple[int, int], rounds: int) -> list:
    """Each method's cost beside CLIP's own last block, on the same windows in the same round.

    `maps` is stages 4 and 5, the reading of the tower and what is made of it; `whole` the whole prediction without
    PAMR but for the method's own. Methods that vote read whole pictures, and so does what they are compared with.
    """
    rows = []
    for name in names:
        method = find_method(name)
        changes = dict(pamr_steps=0) | (dict(slide_crop=0) if method.votes else {})
        settings = replace(pipeline.settings, **changes)
        other, mine = (_with_method(pipeline, m, settings) for m in (find_method('clip'), method))
        clock = Clock(images.device)
        for _ in range(rounds + 1):
            for key, one in (('clip', other), (name, mine)):
                regions = [quarters(size)] * len(images) if one.method.needs_regions else ()
                clock.time(f'{key} maps', one.look, images, regions)
                clock.time(f'{key} whole', one, images, size, regions)
        clock.seconds = {key: times[1:] for key, times in clock.seconds.items()}  # the first round warms up
        rows.append(
            dict(
                method=name,
                windows=len(window_boxes(images.shape[-2:], settings.slide_crop, settings.slide_stride)),
                maps_seconds=clock.median(f'{name} maps'),
                maps_ratio=clock.ratio(f'{name} maps', 'clip maps'),
                whole_ratio=clock.ratio(f'{name} whole', 'clip whole'),
            )
        )
    return rows


def _with_method(pipeline: Pipeline, method: Method, settings: Settings) -> Pipeline:
    """The same with another method; companions of its names get random text embeddings."""
    queries = pipeline.query_features[: len(pipeline.vocabulary.queries)]
    missing = len(queries_of(pipeline.vocabulary, method)) - len(queries)
    further = F.normalize(torch.randn(missing, queries.shape[1], device=queries.device), dim=-1)
    method, queries = for_tower(method, pipeline.net.visual), torch.cat([queries, further])
    guide = random_guide(method, pipeline.net) if method.second_tower else None
    return Pipeline(pipeline.net, method, pipeline.vocabulary, queries, settings, guide).to(queries.device)


def random_guide(method: Method, net: CLIP) -> Guide:
    """A guide of the size that a method names, in the dtype of CLIP; what it costs does not depend on its weights."""
    if method.second_tower not in GUIDE_SIZES:
        return guide_of(method, net)[1]
    return Guide(GUIDE_SIZES[method.second_tower]).eval().cast(net.dtype)


def quarters(size: tuple[int, int]) -> Tensor:
    """A region mask of four quarters (H, W)."""
    rows, columns = torch.meshgrid(*map(torch.arange, size), indexing='ij')
    return 1 + 2 * (2 * rows >= size[0]).long() + (2 * columns >= size[1]).long()


def show_methods(rows: Sequence[dict]) -> None:
    """Print what `time_methods` found as a table."""
    print(f'{"method":20} {"windows":>7} {"maps, ms":>9} {"maps / clip":>12} {"whole / clip":>13}')
    for row in rows:
        cells = f'{1e3 * row["maps_seconds"]:9.0f} {row["maps_ratio"]:12.2f} {row["whole_ratio"]:13.2f}'
        print(f'{row["method"]:20} {row["windows"]:7} {cells}')
