"""A second tower's view of the same windows, read lazily.

Shapes: B windows; H, W pixels; h, w patch grid of the guide; D width of the guide.
"""

from functools import cached_property

from torch import Tensor

from clip import MEAN, STD
from clip.guides import IMAGENET_MEAN, IMAGENET_STD, Guide


def guide_input(windows: Tensor) -> Tensor:
    """Windows normalised as CLIP's (B, 3, H, W) -> as the guide's."""
    mean, std, guide_mean, guide_std = (
        windows.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD, IMAGENET_MEAN, IMAGENET_STD)
    )
    return (windows * std + mean - guide_mean) / guide_std


class GuideReading:
    """One batch of windows (B, 3, H, W), normalised as CLIP's, as a guide sees it; nothing runs until it is asked for.

    Of every output only the patches are given, in their places (B, h, w, D). What a reading gives out belongs to all
    its readers: nobody may change it in place.
    """

    def __init__(self, guide: Guide, windows: Tensor):
        self.tower = guide
        self.windows = windows

    @cached_property
    def _last_input(self) -> tuple[Tensor, tuple[int, int]]:
        """What enters the last block (B, N, D), and the patch grid."""
        x, grid = self.tower.embed(guide_input(self.windows))
        for block in self.tower.blocks[:-1]:
            x = block(x)
        return x, grid

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tower.blocks[-1].parts(self._last_input[0])

    @property
    def grid(self) -> tuple[int, int]:
        """The patch grid (h, w)."""
        return self._last_input[1]

    def _placed(self, tokens: Tensor) -> Tensor:
        return self.tower.patches(tokens, self.grid)

    @cached_property
    def tokens(self) -> Tensor:
        """After the last norm (B, h, w, D)."""
        output = self.tower.blocks[-1].finish(self._last_input[0], *self._parts)
        return self._placed(self.tower.norm(output))

    @property
    def q(self) -> Tensor:
        """Queries of the last block, heads side by side (B, h, w, D)."""
        return self._placed(self._parts[0])

    @property
    def k(self) -> Tensor:
        """Keys of the last block, heads side by side (B, h, w, D)."""
        return self._placed(self._parts[1])

    @property
    def v(self) -> Tensor:
        """Values of the last block, heads side by side (B, h, w, D)."""
        return self._placed(self._parts[2])
