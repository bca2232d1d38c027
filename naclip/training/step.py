"""One step of PixelCLIP's training, from pictures and masks to the loss.

Source of order and constants: PixelCLIP's published code, github.com/cvlab-kaist/PixelCLIP at 42f5c9c.
B pictures of this process; n masks of a picture; N of all; S side of the input; M mask resolution; h, w grid; C joint
width; K clusters; L words of a prompt; D width of the text tower.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clip import CLIP, ConvNeXtCLIP
from clip.convnext import ConvNeXt
from naclip.training.assignment import ROUNDS, balanced_assignment, similarity
from naclip.training.features import cluster_maps, dense_features, set_stochastic_depth
from naclip.training.groups import trained_names
from naclip.training.head import Head
from naclip.training.loss import covered_cross_entropy
from naclip.training.pooling import pool, usable
from naclip.training.prompts import cluster_centres
from naclip.training.targets import cluster_unions
from naclip.training.teacher import MOMENTUM, follow

STOCHASTIC_DEPTH = 0.1  # of ConvNeXt, student and teacher


@dataclass(frozen=True)
class Assigned:
    """The teacher's part of a step.

    Pooled masks (N, C), their cosines with the clusters and their shares (N, K), labels (N,), unions (B, K, M, M).
    """

    pooled: Tensor
    cosines: Tensor
    shares: Tensor
    labels: Tensor
    unions: Tensor


class PixelCLIPTraining(nn.Module):
    """Student, prompts, head and teacher under the names of published checkpoints.

    Args:
        net: CLIP, which becomes the student; float32.
        words: what prompts start from (K, L, D).
        sharpness: what cosines of masks and clusters are multiplied with before their softmax (published as EPS).
    """

    def __init__(
        self,
        net: CLIP | ConvNeXtCLIP,
        words: Tensor,
        sharpness: float = 100.0,
        momentum: float = MOMENTUM,
        rounds: int = ROUNDS,
    ):
        super().__init__()
        self.sharpness, self.momentum, self.rounds = sharpness, momentum, rounds
        if isinstance(net.visual, ConvNeXt):
            set_stochastic_depth(net.visual, STOCHASTIC_DEPTH)
        self.sem_seg_head = nn.Module()
        self.sem_seg_head.predictor = nn.Module()
        self.sem_seg_head.predictor.clip_model = net.requires_grad_(False)
        self.sem_seg_head.predictor.prompt_tokens = nn.Parameter(words.clone().float())
        self.teacher_encoder = nn.Module()
        self.teacher_encoder.visual = copy.deepcopy(net.visual)
        self.head = Head()
        for name in trained_names(net.visual):
            net.visual.get_parameter(name).requires_grad_()

    @property
    def net(self) -> CLIP | ConvNeXtCLIP:
        """The student."""
        return self.sem_seg_head.predictor.clip_model

    @property
    def prompts(self) -> Tensor:
        """The clusters' words (K, L, D)."""
        return self.sem_seg_head.predictor.prompt_tokens

    @torch.no_grad()
    def assign(self, weak: Tensor, masks: Sequence[Tensor], centres: Tensor) -> Assigned:
        """What the teacher makes of weak pictures (B, 3, S, S) and of their masks (n, M, M), bool."""
        features = dense_features(self.teacher_encoder.visual, weak)  # (B, C, h, w)
        masks = [usable(own) for own in masks]
        pooled = torch.cat([pool(of, own) for of, own in zip(features, masks, strict=True)])
        cosines = similarity(pooled, centres)
        shares = balanced_assignment(cosines, self.sharpness, self.rounds)
        labels = shares.argmax(dim=1)
        parts = zip(masks, labels.split([len(own) for own in masks]), strict=True)
        unions = torch.stack([cluster_unions(own, of, len(centres)) for own, of in parts])
        return Assigned(pooled, cosines, shares, labels, unions)

    def logits(self, strong: Tensor, centres: Tensor) -> Tensor:
        """The student's map of each cluster in strong pictures (B, 3, S, S): (B, K, 4h, 4w)."""
        maps = cluster_maps(dense_features(self.net.visual, strong), centres)  # (B, K, h, w)
        return self.head(maps.flatten(0, 1)[:, None])[:, 0].unflatten(0, maps.shape[:2])

    def forward(self, weak: Tensor, strong: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """The loss, once for each step of the optimiser: the teacher follows the student in here."""
        follow(self.teacher_encoder.visual, self.net.visual, self.momentum)
        centres = cluster_centres(self.net, self.prompts)
        unions = self.assign(weak, masks, centres).unions
        return covered_cross_entropy(self.logits(strong, centres), unions)
