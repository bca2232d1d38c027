"""What a training left of its way: losses by step, and scores of the weights on the way."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SCALARS = 'vis_data/scalars.json'  # of each attempt's folder, as MMEngine writes it
VALIDATION = 'validation.json'


@dataclass(frozen=True)
class Training:
    """A training's folder, its losses by step, and its mIoU by step."""

    folder: Path
    losses: Mapping[int, float]
    scores: Sequence[tuple[int, float]]


def read_losses(folder: Path) -> dict[int, float]:
    """The losses of all attempts of a training by step; of a step that ran twice, the last.

    Raises:
        FileNotFoundError: no log there.
        ValueError: a log is damaged.
    """
    logs = sorted(folder.glob(f'*/{SCALARS}'))
    if not logs:
        raise FileNotFoundError(f'{folder} has no log of a training (*/{SCALARS})')
    losses = {}
    for log in logs:
        for number, line in enumerate(log.read_text(encoding='utf-8').splitlines(), 1):
            try:
                entry = json.loads(line)
                if 'loss' in entry:
                    losses[int(entry['step'])] = float(entry['loss'])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f'{log}, line {number} is damaged ({error})') from None
    return dict(sorted(losses.items()))


def read_scores(folder: Path) -> list[tuple[int, float]]:
    """The mIoU of the weights on the way, by step; empty where none was taken.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / VALIDATION
    if not path.is_file():
        return []
    try:
        entries = [(int(entry['step']), entry['mIoU']) for entry in json.loads(path.read_text(encoding='utf-8'))]
        return [(step, float(miou)) for step, miou in entries if miou is not None]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error})') from None


def find_trainings(folders: Iterable[Path]) -> tuple[list[Training], list[str]]:
    """The trainings in and below folders that have losses, and a line for each that cannot be read."""
    found: dict[Path, Training] = {}
    problems = []
    for folder in folders:
        for place in dict.fromkeys(log.parents[2] for log in sorted(folder.rglob(SCALARS))):
            if place.resolve() in found:
                continue
            try:
                losses = {step: loss for step, loss in read_losses(place).items() if math.isfinite(loss)}
                if losses:
                    found[place.resolve()] = Training(place, losses, read_scores(place))
            except (ValueError, OSError) as error:
                problems.append(str(error))
    return list(found.values()), problems
