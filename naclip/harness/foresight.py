"""What a plan would do, told before it is done: passes, what their runs share, and about what they cost."""

from collections.abc import Hashable, Iterable, Sequence

from clip.model import VisionTransformer
from naclip.harness.passes import Pass
from naclip.harness.run import Run
from naclip.pipeline import Pipeline

# Parts of the time that a ViT-B/16 takes for the windows (224/112) of a picture of 336x448, measured on a CPU.
LAST_BLOCK = 1 / 12  # of a method that reads the last block anew
PER_NAME = 0.0012  # merging a name's windows, its softmax and maximum
PAMR_PER_NAME = 0.0035  # ten steps
PER_RUN = 0.004  # deciding and counting


def foreseen(passes: Sequence[Pass]) -> str:
    """The passes of a plan, and their cost relative to its first run alone, estimated."""
    if not passes:
        return 'nothing is to be evaluated'
    unit = cost([passes[0].runs[0]])
    lines, total, alone = [], 0.0, 0.0
    for number, together in enumerate(passes, 1):
        share = len(together.pictures) / len(passes[0].pictures)
        price, apart = cost(together.runs) / unit * share, sum(cost([run]) for run in together.runs) / unit * share
        total, alone = total + price, alone + apart
        lines.append(
            f'pass {number}: {_some(len(together.runs), "run")}, {_some(len(together.pictures), "picture")} loaded '
            f'once, {_some(len(_looks(together.runs)), "look")} through the tower, '
            f'{_some(len(_maps(together.runs)), "set")} '
            f'of maps, {len(_refined(together.runs))} refined; about {price:.1f} times the first run, {apart:.1f} alone'
        )
        lines += [f'  {run.name}  ->  {run.work_dir}' for run in together.runs]
    if len(passes) > 1:
        lines.append(f'in all about {total:.1f} times the first run alone; one by one {alone:.1f} times')
    return '\n'.join(lines)


def cost(runs: Sequence[Run]) -> float:
    """About what runs cost together, in looks of a ViT-B/16 at a picture's windows."""
    looks = sum(_depth(pipeline) for pipeline in _looks(runs).values()) / 12
    blocks = LAST_BLOCK * len({_block_key(pipeline) for pipeline in _pipelines(runs)})
    names = PER_NAME * sum(_names(pipeline) for pipeline in _merged(runs).values())
    refined = PAMR_PER_NAME * sum(_names(p) * p.settings.pamr_steps / 10 for p in _refined(runs).values())
    return looks + blocks + names + refined + PER_RUN * len(runs)


def _some(count: int, what: str) -> str:
    return f'{count} {what}{"s" if count != 1 else ""}'


def _pipelines(runs: Iterable[Run]) -> list[Pipeline]:
    return [run.segmentor.pipeline for run in runs]


def _names(pipeline: Pipeline) -> int:
    return len(pipeline.vocabulary.queries)


def _depth(pipeline: Pipeline) -> int:
    visual = pipeline.net.visual
    return len(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else 12


def _look_key(run: Run) -> Hashable:
    pipeline = run.segmentor.pipeline
    settings = pipeline.settings
    windows = (settings.input_size, settings.slide_crop, settings.slide_stride if settings.slide_crop else 0)
    return id(pipeline.net), windows, type(pipeline.method).read, run.segmentor.normalisation


def _block_key(pipeline: Pipeline) -> Hashable:
    return id(pipeline.net), repr(pipeline.method), pipeline.settings.slide_crop


def _maps_key(run: Run) -> Hashable:
    return _look_key(run), run.segmentor.pipeline.maps_key


def _looks(runs: Iterable[Run]) -> dict[Hashable, Pipeline]:
    return {_look_key(run): run.segmentor.pipeline for run in runs}


def _maps(runs: Iterable[Run]) -> dict[Hashable, Pipeline]:
    return {_maps_key(run): run.segmentor.pipeline for run in runs}


def _merged(runs: Iterable[Run]) -> dict[Hashable, Pipeline]:
    """Maps that decisions are made from: refined or not, under each scale."""
    found = {}
    for run in runs:
        pipeline = run.segmentor.pipeline
        settings = pipeline.settings
        key = (_maps_key(run), settings.pamr_steps, settings.pamr_stride, settings.logit_scale, settings.area_thd)
        found[key] = pipeline
    return found


def _refined(runs: Iterable[Run]) -> dict[Hashable, Pipeline]:
    found = {}
    for run in runs:
        settings = run.segmentor.pipeline.settings
        if settings.pamr_steps:
            found[_maps_key(run), settings.pamr_steps, settings.pamr_stride] = run.segmentor.pipeline
    return found
