"""The literal pipeline: the formulas of docs/walk.md, one after the other, nothing saved."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clip import tokenize
from clip.model import CLIP
from naclip.methods.last_block import ARCHITECTURES
from naclip.pipeline import Pipeline
from naclip.walk.attention import ATTENTION_FORMS, attention_weights
from naclip.walk.windows import window_boxes


def literal_logits(pipeline: Pipeline, images: Tensor) -> Tensor:
    """One window at a time, each upsampled and padded to the picture: (1, 3, H, W) -> (1, Q, H, W)."""
    height, width = images.shape[-2:]
    settings = pipeline.settings
    total = count = 0
    for box in window_boxes((height, width), settings.slide_crop, settings.slide_stride):
        window = images[:, :, box.top : box.bottom, box.left : box.right]
        features = literal_features(pipeline, window)
        logits = torch.einsum('bhwc,qc->bqhw', features.float(), pipeline.query_features)
        logits = F.interpolate(logits, window.shape[-2:], mode='bilinear', align_corners=False)
        padding = (box.left, width - box.right, box.top, height - box.bottom)
        total = total + F.pad(logits, padding)
        count = count + F.pad(torch.ones_like(logits[:, :1]), padding)
    return total / count


def literal_features(pipeline: Pipeline, images: Tensor) -> Tensor:
    """The tower with every attention written out: (B, 3, H, W) -> unit vectors (B, h, w, C)."""
    visual, method = pipeline.net.visual, pipeline.method
    x, (h, w) = visual.embed(images)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        q, k, v = block.attn.qkv(block.ln_1(x))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        x = block.feed_forward(x + block.attn.merge(weights @ v))
    q, k, v = last.attn.qkv(last.ln_1(x))
    weights = attention_weights(ATTENTION_FORMS[method.attention](q, k, v, (h, w), method.gaussian_std))
    tokens = visual.project(ARCHITECTURES[method.architecture](last, x, last.attn.merge(weights @ v)))
    return F.normalize(tokens[:, 1:], dim=-1).unflatten(1, (h, w))


def literal_pamr(image: Tensor, maps: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """PAMR as it was published: each neighbour of each map by a single-channel convolution with a one-hot kernel.

    The maps are padded with replicas for each dilation, and the neighbours of all maps are stacked at every step.
    """
    one_hot = torch.eye(9, device=maps.device).view(9, 1, 3, 3)

    def stack(x: Tensor, kernels: Tensor) -> Tensor:  # (B, M, H, W) -> (B, M, len(kernels) * len(dilations), H, W)
        batch, channels, height, width = x.shape
        single = x.reshape(batch * channels, 1, height, width)
        neighbours = [F.conv2d(F.pad(single, (d,) * 4, mode='replicate'), kernels, dilation=d) for d in dilations]
        return torch.cat(neighbours, dim=1).view(batch, channels, -1, height, width)

    around = one_hot[[0, 1, 2, 3, 5, 6, 7, 8]]
    deviation = stack(image, one_hot).std(dim=2, keepdim=True)
    difference = (image[:, :, None] - stack(image, around)).abs()
    weights = torch.softmax((-difference / (1e-8 + 0.1 * deviation)).mean(dim=1, keepdim=True), dim=2)
    for _ in range(steps):
        maps = (stack(maps, around) * weights).sum(dim=2)
    return maps


def literal_prediction(pipeline: Pipeline, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Picture to labels: (1, 3, H, W) -> (1, 1, *size)."""
    settings = pipeline.settings
    logits = F.interpolate(literal_logits(pipeline, images), size, mode='bilinear', align_corners=False)
    if settings.pamr_steps:
        images = F.interpolate(images, size, mode='bilinear', align_corners=False)
        logits = literal_pamr(images, logits, settings.pamr_steps, settings.pamr_stride)
    probabilities = torch.softmax(logits * settings.logit_scale, dim=1)
    members = F.one_hot(pipeline.query_idx).T[None, :, :, None, None]  # (1, K, Q, 1, 1)
    if members.shape[1] != members.shape[2]:
        probabilities = (probabilities[:, None] * members).amax(dim=2)
    labels = probabilities.argmax(dim=1, keepdim=True)
    labels[probabilities.amax(dim=1, keepdim=True) < settings.prob_thd] = 0
    return labels


def literal_text(net: CLIP, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Text embeddings one name at a time, every position of the context computed."""
    rows = []
    for name in names:
        tokens = tokenize([template.replace('{}', name) for template in templates], net.context_length).to(net.device)
        x = net.token_embedding(tokens).to(net.dtype) + net.positional_embedding.to(net.dtype)
        x = net.transformer(x, is_causal=True)
        features = net.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=-1)] @ net.text_projection
        rows.append(F.normalize(F.normalize(features.float(), dim=-1).mean(dim=0), dim=-1))
    return torch.stack(rows)
