"""From similarity maps to labels: temperature and softmax over names, classes, thresholds, argmax.

Shapes: B pictures; Q names; K classes; H, W pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from naclip.walk.vocabulary import merge_synonyms_

BACKGROUND = 0


def class_probabilities(logits: Tensor, query_idx: Sequence[int], logit_scale: float) -> Tensor:
    """Cosine maps (B, Q, H, W) -> class probabilities (B, K, H, W): softmax over names, best name of each class.

    Works in place: `logits` are overwritten, and the result lies in them.
    """
    return merge_synonyms_(torch.softmax(logits.mul_(logit_scale), dim=1, out=logits), query_idx)


def suppress_small_classes(probabilities: Tensor, area_thd: float) -> Tensor:
    """Zero the probabilities of classes whose area is not above `area_thd` of the picture's foreground.

    Areas are those of the argmax; background neither counts nor is zeroed. (B, K, H, W) -> same. SCLIP's
    post-processing for VOC21.
    """
    labels = probabilities.argmax(dim=1).flatten(1)  # (B, H*W)
    areas = torch.zeros(probabilities.shape[:2], device=labels.device)
    areas.scatter_add_(1, labels, torch.ones_like(labels, dtype=areas.dtype))
    areas[:, BACKGROUND] = 0
    keep = areas > area_thd * areas.sum(dim=1, keepdim=True)
    keep[:, BACKGROUND] = True
    return probabilities * keep[:, :, None, None]


def decide(probabilities: Tensor, prob_thd: float = 0.0) -> Tensor:
    """Labels (B, 1, H, W): the most probable class; class 0 where even that one is below `prob_thd`."""
    return unsure_to_background(*surest(probabilities), prob_thd)


def surest(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Class probabilities (B, K, H, W) -> the highest, and its class, both (B, 1, H, W)."""
    return probabilities.max(dim=1, keepdim=True)


def unsure_to_background(best: Tensor, labels: Tensor, prob_thd: float) -> Tensor:
    """Labels (B, 1, H, W), class 0 where the highest probability is below `prob_thd`; if that is 0, the given."""
    return labels.masked_fill(best < prob_thd, BACKGROUND) if prob_thd else labels
