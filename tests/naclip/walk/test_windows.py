"""Where windows lie, and averaging what is seen through them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from naclip.walk import windows
from naclip.walk.windows import Window, look_through, merge_windows, window_boxes

SIDES = st.integers(1, 90)


@st.composite
def crops_and_strides(draw) -> tuple[int, int]:
    crop = draw(st.integers(1, 50))
    return crop, draw(st.integers(1, crop))


@given(SIDES, SIDES, crops_and_strides())
def test_windows_cover_the_picture(height, width, crop_and_stride):
    crop, stride = crop_and_stride
    assume((height / stride) * (width / stride) < 2000)
    boxes = window_boxes((height, width), crop, stride)

    def count(side: int) -> int:
        return math.ceil(max(side - crop, 0) / stride) + 1

    def start(i: int, side: int) -> int:
        return max(min(i * stride, side - crop), 0)

    size = (min(crop, height), min(crop, width))
    assert boxes == [
        (start(i, height), start(j, width), start(i, height) + size[0], start(j, width) + size[1])
        for i in range(count(height))
        for j in range(count(width))
    ]
    assert all(0 <= b.top < b.bottom <= height and 0 <= b.left < b.right <= width for b in boxes)
    assert {(b.bottom - b.top, b.right - b.left) for b in boxes} == {size}
    assert len(set(boxes)) == len(boxes)
    seen = torch.zeros(height, width)
    for b in boxes:
        seen[b.top : b.bottom, b.left : b.right] += 1
    assert seen.min() >= 1


@given(SIDES, SIDES, st.integers(-5, 50))
def test_crop_0_is_the_whole_picture(height, width, stride):
    assert window_boxes((height, width), 0, stride) == [Window(0, 0, height, width)]


def test_examples():
    assert [box.top for box in window_boxes((336, 224), 224, 112)] == [0, 112]
    assert [box.left for box in window_boxes((224, 500), 224, 112)] == [0, 112, 224, 276]
    assert window_boxes((30, 500), 224, 112)[0] == Window(0, 0, 30, 224)


@pytest.mark.parametrize(('crop', 'stride'), [(-1, 1), (5, 0), (5, -1), (5, 6), (224, 336)])
def test_bad_crop_or_stride(crop, stride):
    with pytest.raises(ValueError, match=rf'slide_crop {crop} and slide_stride {stride}: expected'):
        window_boxes((10, 10), crop, stride)


def logits_of(crops: Tensor) -> Tensor:
    """A tower of 4-pixel patches and 5 names: what it says depends on the patch's place in the window, too."""
    patches = F.avg_pool2d(crops, 4, ceil_mode=True)  # (n, 3, h, w)
    mix = torch.linspace(-1, 1, 15).view(5, 3)
    places = torch.linspace(0, 1, patches[0, 0].numel()).view(patches.shape[-2:])
    return torch.einsum('qc,nchw->nqhw', mix, patches) + places


def sliding_logits(images: Tensor, boxes: list[Window], logits_of: Callable, size: tuple | None = None) -> Tensor:
    """Both steps, as the pipeline takes them: (B, 3, H, W) -> (B, Q, *size)."""
    return merge_windows(look_through(images, boxes, logits_of), boxes, images.shape[-2:], size)


def brute_force(images: Tensor, boxes: list[Window]) -> Tensor:
    """Every window's logits on a zero map of the picture's size, summed, over how many there are at each pixel."""
    height, width = images.shape[-2:]
    total, seen = 0, 0
    for top, left, bottom, right in boxes:
        logits = logits_of(images[:, :, top:bottom, left:right])
        logits = F.interpolate(logits, (bottom - top, right - left), mode='bilinear', align_corners=False)
        margins = (left, width - right, top, height - bottom)
        total = total + F.pad(logits, margins)
        seen = seen + F.pad(torch.ones_like(logits), margins)
    return total / seen


def pictures(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), crops_and_strides())
def test_sliding_logits_as_brute_force(count, height, width, crop_and_stride):
    crop, stride = crop_and_stride
    assume((height / stride) * (width / stride) < 200)
    images, boxes = pictures(count, height, width), window_boxes((height, width), crop, stride)
    torch.testing.assert_close(
        sliding_logits(images, boxes, logits_of), brute_force(images, boxes), rtol=1e-5, atol=1e-6
    )


@given(st.integers(1, 40), st.integers(1, 40), crops_and_strides(), st.floats(-5, 5))
def test_constant_in_constant_out(height, width, crop_and_stride, value):
    crop, stride = crop_and_stride
    assume((height / stride) * (width / stride) < 200)
    images = torch.stack([torch.full((3, height, width), value), torch.full((3, height, width), 1.0)])
    boxes = window_boxes((height, width), crop, stride)
    logits = sliding_logits(images, boxes, lambda crops: F.avg_pool2d(crops, 4, ceil_mode=True))
    torch.testing.assert_close(logits, images, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('at_once', [1, 2, 5, 1000])
def test_batching_changes_nothing(monkeypatch, at_once):
    images, boxes = pictures(3, 30, 41), window_boxes((30, 41), 16, 8)
    expected = brute_force(images, boxes)
    sizes = []
    monkeypatch.setattr(windows, 'PIXELS_AT_ONCE', at_once * 16 * 16)
    logits = sliding_logits(images, boxes, lambda crops: sizes.append(len(crops)) or logits_of(crops))
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert sum(sizes) == 3 * len(boxes)
    assert max(sizes) == min(at_once, 3 * len(boxes))


def test_window_larger_than_the_budget_goes_alone(monkeypatch):
    monkeypatch.setattr(windows, 'PIXELS_AT_ONCE', 1)
    images, boxes = pictures(2, 20, 20), window_boxes((20, 20), 0, 1)
    torch.testing.assert_close(sliding_logits(images, boxes, logits_of), brute_force(images, boxes))


def test_batch_equals_singles():
    images, boxes = pictures(3, 30, 41), window_boxes((30, 41), 16, 7)
    singles = torch.cat([sliding_logits(picture[None], boxes, logits_of) for picture in images])
    torch.testing.assert_close(sliding_logits(images, boxes, logits_of), singles, rtol=0, atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), crops_and_strides(), st.integers(1, 60), st.integers(1, 60))
def test_resized_on_the_way_as_resized_afterwards(height, width, crop_and_stride, out_height, out_width):
    crop, stride = crop_and_stride
    assume((height / stride) * (width / stride) < 200)
    images, boxes = pictures(2, height, width), window_boxes((height, width), crop, stride)
    expected = F.interpolate(brute_force(images, boxes), (out_height, out_width), mode='bilinear', align_corners=False)
    resized = sliding_logits(images, boxes, logits_of, (out_height, out_width))
    torch.testing.assert_close(resized, expected, rtol=1e-5, atol=2e-6)


def test_gradients_after_inference():
    """What merging keeps of a picture without gradients serves one with gradients."""
    boxes = window_boxes((37, 41), 32, 16)
    logits = torch.randn(1, 2, 2 * 2, 2 * 2)
    with torch.inference_mode():
        expected = merge_windows(logits, boxes, (37, 41))
    logits.requires_grad_()
    merged = merge_windows(logits, boxes, (37, 41))
    assert torch.equal(merged, expected)
    merged.sum().backward()
    assert logits.grad.sum() == pytest.approx(2 * 37 * 41, rel=1e-4)


def test_each_dtype_has_its_own():
    boxes = window_boxes((37, 41), 32, 16)
    logits = torch.randn(1, 2, 2 * 2, 2 * 2, dtype=torch.float64)
    single = merge_windows(logits.float(), boxes, (37, 41))
    double = merge_windows(logits, boxes, (37, 41))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5)
