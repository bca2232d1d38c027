"""Backbones and guides of several runs, each loaded once."""

from collections.abc import Callable
from typing import TypeVar

import clip
from clip.guides import Guide, load_guide
from clip.weights import Checkpoint

T = TypeVar('T')


class Towers:
    """Who asks for what somebody has loaded gets the same tower."""

    def __init__(self):
        self._kept: dict[str, object] = {}

    def _once(self, load: Callable[..., T], *arguments: object) -> T:
        key = f'{load.__name__} {arguments!r}'
        if key not in self._kept:
            self._kept[key] = load(*arguments)
        return self._kept[key]

    def backbone(self, *arguments: object) -> tuple:
        """As `clip.load_checkpoint`."""
        return self._once(clip.load_checkpoint, *arguments)

    def guide(self, *arguments: object) -> tuple[Guide, Checkpoint]:
        """As `clip.guides.load_guide`."""
        return self._once(load_guide, *arguments)
