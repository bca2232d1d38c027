"""The head that turns each cluster's cosine map into a mask; it is for training only.

m maps; h, w grid of the tower. Parameters carry the names of published checkpoints.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTHS = 64, 32
GROUP = 16  # channels that GroupNorm norms together
CHUNK = 256  # maps at a time


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, GroupNorm, ReLU."""

    def __init__(self, width: int):
        super().__init__()
        layers = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(width // GROUP, width)]
            layers.append(nn.ReLU())
        self.double_conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Head(nn.Module):
    """Maps (m, 1, h, w), each alone -> logits (m, 1, 4h, 4w).

    As no map sees another, they are taken in chunks whose activations are computed anew for the gradient: results are
    those of all at once, in a fraction of the memory.
    """

    def __init__(self):
        super().__init__()
        wide, narrow = WIDTHS
        self.conv0 = nn.Conv2d(1, wide, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(wide, wide, 2, stride=2)
        self.conv1 = DoubleConv(wide)
        self.up2 = nn.ConvTranspose2d(wide, narrow, 2, stride=2)
        self.conv2 = DoubleConv(narrow)
        self.proj = nn.Conv2d(narrow, 1, 3, padding=1)

    def chunk(self, maps: Tensor) -> Tensor:
        """As `forward`, all at once."""
        x = self.conv1(self.up1(self.conv0(maps)))
        return self.proj(self.conv2(self.up2(x)))

    def forward(self, maps: Tensor) -> Tensor:
        if len(maps) <= CHUNK:
            return self.chunk(maps)
        return torch.cat([checkpoint(self.chunk, part, use_reentrant=False) for part in maps.split(CHUNK)])
