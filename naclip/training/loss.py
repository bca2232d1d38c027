"""The only loss: binary cross-entropy between the head's maps and the clusters' unions, where any mask is.

B pictures of this process; K clusters; M mask resolution; h, w grid of the head's maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from naclip.training import processes


def covered_cross_entropy(logits: Tensor, unions: Tensor) -> Tensor:
    """The loss of logits (B, K, h, w), upsampled bilinearly, against unions (B, K, M, M).

    It is the mean over all clusters of the pixels that some union covers, in the pictures of all processes: every
    process gets the same value, and gradients that average to the value's. Without a covered pixel it is 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = F.interpolate(logits.float(), unions.shape[2:], mode='bilinear', align_corners=False)
        covered = unions.amax(dim=1, keepdim=True) if len(unions) else unions.new_zeros(0, 1, *unions.shape[2:])
        pixels = processes.summed(covered.sum())
        if not pixels:
            return 0 * logits.sum()
        total = F.binary_cross_entropy_with_logits(logits, unions, weight=covered.expand_as(unions), reduction='sum')
        count = pixels * unions.shape[1]
        own = total * processes.count() / count
        return own + (processes.summed(total) / count - own).detach()
