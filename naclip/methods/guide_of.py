"""From a method and what a user gives beside it to the second tower and the region masks that it reads."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from clip import CLIP, MEAN, STD
from clip.guides import Guide, available_guides, load_guide
from clip.weights import Checkpoint
from naclip.methods.method import Method


def check_guide(
    method: Method, given: str | os.PathLike | None, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> None:
    """Make sure, before anything is loaded, that a guide makes sense.

    Raises:
        ValueError: the method reads none, or pictures are not normalised as CLIP's, from which the guide's come.
    """
    if given and not method.second_tower:
        raise ValueError(f'method {method.name} reads no guide: leave out --guide, or name another method')
    if method.second_tower and (tuple(mean), tuple(std)) != (MEAN, STD):
        raise ValueError(
            f"method {method.name} makes its guide's input from pictures normalised as CLIP's, and mean and std are "
            'others: use another protocol'
        )


def check_regions(method: Method, given: object | None) -> None:
    """Make sure that region masks are there where, and only where, a method reads them.

    Raises:
        ValueError: they are missing, or superfluous.
    """
    if method.needs_regions and given is None:
        raise ValueError(
            f'method {method.name} needs a region mask for each picture: --regions DIR; tools/make_regions.py makes '
            'some'
        )
    if given is not None and not method.needs_regions:
        raise ValueError(f'method {method.name} reads no region masks: leave out --regions, or name another method')


def guide_of(
    method: Method,
    net: CLIP,
    given: str | os.PathLike | None = None,
    download_root: str | os.PathLike | None = None,
    load: Callable[..., tuple[Guide, Checkpoint]] = load_guide,
) -> tuple[Method, Guide | None, Checkpoint | None]:
    """The guide that a method names, or the one given, beside a CLIP; the method that says so, and the checkpoint.

    `load` is `load_guide`, or what keeps guides for those who come after.

    Of a file, the method has the name only: what its numbers depend on is the content.

    Raises:
        ValueError, ConnectionError: the guide cannot be loaded; says why.
    """
    if not method.second_tower:
        return method, None, None
    wanted = os.fspath(given or method.second_tower)
    # Guides are trained in float32, and read in the dtype of CLIP.
    dtype = net.dtype if isinstance(net, CLIP) else torch.float32
    guide, checkpoint = load(wanted, net.device, dtype, download_root)
    name = wanted if wanted in available_guides() else Path(wanted).name
    return replace(method, guide=name), guide, checkpoint
