"""Masks at the resolution of training, and the teacher's features pooled over them.

n masks of a picture; M mask resolution; h, w grid; C joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink(masks: Tensor, resolution: int) -> Tensor:
    """Masks (n, H, W), bool -> (n, M, M), nearest."""
    if not len(masks):
        return masks.new_zeros(0, resolution, resolution)
    return F.interpolate(masks[None].byte(), (resolution, resolution), mode='nearest')[0].bool()


def usable(masks: Tensor) -> Tensor:
    """Those of the masks (n, M, M) that have more than one pixel."""
    return masks[masks.sum(dim=(1, 2)) > 1]


def pool(features: Tensor, masks: Tensor) -> Tensor:
    """Means of a picture's features (C, h, w), upsampled bilinearly, over masks (n, M, M): (n, C), float32."""
    with torch.autocast(features.device.type, enabled=False):
        planes = F.interpolate(features[None].float(), masks.shape[1:], mode='bilinear', align_corners=False)[0]
        weights = masks.flatten(1).float()  # (n, M*M)
        return weights @ planes.flatten(1).T / weights.sum(dim=1, keepdim=True)
