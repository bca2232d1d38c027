"""What student and teacher see of a picture: PixelCLIP's dense reading, on the tower's own grid.

B pictures; S side of the input; h, w grid; C joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clip.convnext import ConvNeXt
from naclip.methods.pixelclip import PixelCLIP
from naclip.walk.reading import Tower

METHOD = PixelCLIP()


def dense_features(visual: Tower, images: Tensor) -> Tensor:
    """Normalised pictures (B, 3, S, S) -> features (B, C, h, w), not normalised."""
    return METHOD.positions(METHOD.read(visual, images)).movedim(-1, 1)


def cluster_maps(features: Tensor, centres: Tensor) -> Tensor:
    """Cosines of features (B, C, h, w) and cluster centres (K, C): (B, K, h, w), float32.

    Under autocast, too: a half-precision cosine would shift logits by a tenth.
    """
    with torch.autocast(features.device.type, enabled=False):
        features, centres = F.normalize(features.float(), dim=1), F.normalize(centres.float(), dim=1)
        return torch.einsum('bchw,kc->bkhw', features, centres)


def set_stochastic_depth(visual: ConvNeXt, rate: float) -> None:
    """Let a ConvNeXt drop whole residual branches in training: none in the first block, `rate` in the last."""
    from timm.layers import DropPath  # comes with open_clip_torch, without which there is no ConvNeXt

    blocks = [block for stage in visual.trunk.stages for block in stage.blocks]
    for block, share in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
        if share > 0:
            block.drop_path = DropPath(share)
