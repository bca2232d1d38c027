"""Keys by which a command line overrides a config: those that nothing reads are refused."""

import inspect
from collections.abc import Callable, Iterable, Mapping

from mmengine.runner import Runner
from mmseg.registry import DATASETS
from torch.utils.data import DataLoader

from naclip.harness.metric import PixelCountIoUMetric
from naclip.names import did_you_mean


def arguments(kind: type) -> list[str]:
    """What a class can be made with; where it hands other arguments on, what its base can be made with, too."""
    found: list[str] = []
    for base in kind.__mro__:
        if '__init__' in vars(base):
            parameters = list(inspect.signature(base).parameters.values())
            named = [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
            found += [parameter.name for parameter in named]
            if len(named) == len(parameters):
                break
    return found


def _of_dataset(dataset: Mapping) -> list[str] | None:
    kind = DATASETS.get(dataset.get('type', ''))
    return arguments(kind) if kind else None


# Where a key is -> what may stand there beside what the config has; None: anything. Other places take anything; those
# of `model` are looked at when the segmentor is.
TAKEN: Mapping[str, Callable[[Mapping], list[str] | None]] = {
    '': lambda _: arguments(Runner),
    'test_dataloader': lambda _: ['dataset', *arguments(DataLoader)],
    'test_dataloader.dataset': _of_dataset,
    'test_evaluator': lambda _: arguments(PixelCountIoUMetric),
}


def check_keys(config: Mapping, keys: Iterable[str]) -> None:
    """Make sure that overrides of a config change something that is read.

    Raises:
        ValueError: a key that the config does not have, and that means nothing there; says what there is.
    """
    for key in keys:
        place, above = config, ''
        for part in key.split('.'):
            taken = TAKEN[above](place) if above in TAKEN and isinstance(place, Mapping) else None
            if taken is not None and part not in place and part not in taken:
                raise ValueError(_unknown(key, above, part, {*place, *taken}, config))
            if not isinstance(place, Mapping) or part not in place:
                break
            place, above = place[part], f'{above}.{part}'.removeprefix('.')


def _unknown(key: str, above: str, part: str, choices: Iterable[str], config: Mapping) -> str:
    """The message for a key; who leaves out `model.` is told."""
    names = sorted(choices)
    near = names if above else [*names, *(f'model.{name}' for name in config.get('model', {}))]
    whole = f'model.{key}'
    meant = f'; did you mean {whole}?' if whole in near else did_you_mean(part, near)
    return f'the config has no key {key!r}: {above or "it"} has {", ".join(names)}{meant}'
