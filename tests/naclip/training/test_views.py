"""Views of pictures and their masks, against the published mapper."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from naclip.data.run_lengths import encode
from naclip.training.views import Framing, View
from tests.naclip.training.golden import bits, golden

SMALL = Framing(short=96, longest=133, crop=64)


def view(case: int) -> View:
    def of(name: str) -> list[int]:
        return golden()[f'mapper/{case}/{name}'].tolist()

    x, y, width, height = of('crop_xywh')
    x1, y1, x2, y2 = of('cutout_xyxy')
    return View((90, 150), tuple(of('resized_hw')), (y, x, height, width), of('flipped'), (y1, x1, y2 - y1, x2 - x1))


def segmentations() -> list[dict]:
    return [entry['segmentation'] for entry in json.loads(str(golden()['mapper/annotation_json']))['annotations']]


@pytest.mark.parametrize('case', [0, 1])
def test_goldens(case):
    seen = view(case)
    assert SMALL.resized((90, 150)) == seen.resized
    picture = Image.fromarray(golden()['mapper/image'].numpy())
    part = seen.mirrored(seen.cropped(picture))
    assert np.array_equal(part, golden()[f'mapper/{case}/image'].numpy())
    masks = seen.masks(segmentations(), 64, 64)
    expected = bits(f'mapper/{case}/masks', tuple(golden()[f'mapper/{case}/masks_shape'].tolist())).numpy()
    assert sorted(mask.tobytes() for mask in masks) == sorted(mask.tobytes() for mask in expected)
    assert sorted(masks.sum(axis=(1, 2))) == sorted(golden()[f'mapper/{case}/areas'].tolist())


@pytest.mark.parametrize(
    ('size', 'expected'), [((1500, 2250), (889, 1333)), ((1500, 1500), (1024, 1024)), ((400, 2000), (267, 1333))]
)
def test_published_sizes(size, expected):
    assert Framing().resized(size) == expected


@given(st.integers(30, 90), st.integers(30, 200), st.integers(0, 10**6))
def test_views_lie_inside_and_masks_go_with_pictures(height, width, seed):
    """Masks under a view are those that the long way gives: resize, crop, mirror, take out, pad, shrink."""
    rng = np.random.default_rng(seed)
    seen = View.draw((height, width), SMALL, rng)
    top, left, h, w = seen.crop
    assert 0 <= top <= seen.resized[0] - h
    assert 0 <= left <= seen.resized[1] - w
    hole_top, hole_left, hole_h, hole_w = seen.cutout
    assert 0 <= hole_top <= h - hole_h
    assert 0 <= hole_left <= w - hole_w
    masks = [rng.random((height, width)) > 0.5, np.zeros((height, width), bool)]
    masks[1][: height // 3, : width // 4] = True
    expected = []
    for mask in masks:
        image = Image.fromarray(mask.astype(np.uint8)).resize(seen.resized[::-1], Image.Resampling.NEAREST)
        part = seen.mirrored(np.asarray(image)[top : top + h, left : left + w]).copy()
        part[hole_top : hole_top + hole_h, hole_left : hole_left + hole_w] = 0
        padded = np.pad(part, ((0, 64 - h), (0, 64 - w)))
        small = F.interpolate(torch.from_numpy(padded)[None, None], (24, 24), mode='nearest')[0, 0].numpy().astype(bool)
        expected += [small] if small.any() else []
    found = seen.masks([encode(mask) for mask in masks], 64, 24)
    assert np.array_equal(found, np.array(expected).reshape(-1, 24, 24))


def test_masks_beside_the_crop_are_not_decoded(monkeypatch):
    seen = View((200, 200), (200, 200), (0, 0, 64, 64), False, (0, 0, 1, 1))
    far, near = np.zeros((200, 200), bool), np.zeros((200, 200), bool)
    far[150:, 150:], near[10:20, 10:20] = True, True
    decoded = []
    decode = coco.decode
    monkeypatch.setattr(coco, 'decode', lambda rle: decoded.append(rle) or decode(rle))
    assert len(seen.masks([encode(far), encode(near)], 64, 64)) == 1
    assert len(decoded) == 1
