"""Weights of one patch: rows of the whole attention, and where they belong in a picture, pixel by pixel."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from naclip.walk.attention import ATTENTION_FORMS, Term, attention_weights
from naclip.walk.gathering import (
    Gathered,
    Place,
    Placed,
    attention_row,
    cells_along,
    gathered_by_terms,
    in_window,
    itself,
    nearest_window,
)
from naclip.walk.windows import NO_MARGINS, Margins, Window, window_boxes
from tests.naclip.walk.test_attention import FORMS

SIDES = st.integers(1, 40)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('form', FORMS)
def test_rows_are_those_of_the_whole_attention(form):
    q, k, v = random(3, 2, 3, 1 + 3 * 4, 8)
    terms = ATTENTION_FORMS[form](q, k, v, (3, 4), 2.0)
    whole = attention_weights(terms).mean(dim=1)  # (B, N, N)
    for window in range(2):
        for token in range(13):
            torch.testing.assert_close(attention_row(terms, window, token), whole[window, token])
    for place in (Place(0, 0, 0), Place(1, 2, 1)):
        patches, cls = gathered_by_terms(terms, (3, 4), place, 2)
        expected = whole[place.window, 1 + 4 * place.row + place.column]
        torch.testing.assert_close(patches[place.window].flatten(), expected[1:])
        assert cls == pytest.approx(float(expected[0]), rel=1e-5)
        assert not patches[1 - place.window].any()


@pytest.mark.parametrize('shape', [(13, 13), (2, 1, 13, 13), (2, 3, 13, 13), (3, 1, 13)])
def test_biases_of_any_shape(shape):
    terms = [Term(*random(2, 2, 3, 13, 8), random(*shape)), Term(*random(2, 2, 3, 13, 16, seed=1))]
    whole = attention_weights(terms).mean(dim=1)
    torch.testing.assert_close(attention_row(terms, 1, 5), whole[1, 5])


def test_half_precision_is_summed_in_float32():
    terms = [Term(*random(2, 1, 3, 13, 8).half())]
    row = attention_row(terms, 0, 1)
    assert row.dtype == torch.float32
    assert abs(float(row.sum()) - 1) < 1e-6


def test_with_and_without_cls():
    with_cls, without = (in_window(torch.arange(n).double(), (2, 3), Place(1, 0, 0), 3) for n in (7, 6))
    assert with_cls.patches.tolist() == [[[0] * 3] * 2, [[1, 2, 3], [4, 5, 6]], [[0] * 3] * 2]
    assert with_cls.patches.dtype == torch.float32
    assert (with_cls.cls, without.cls) == (0, 0)
    assert in_window(torch.arange(1, 8), (2, 3), Place(0, 0, 0), 1).cls == 1
    assert without.patches[1].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_said_of_weights():
    gathered, place = Gathered(torch.tensor([[[0.5, 0.25], [0.125, 0.0]]]), 0.125), Place(0, 0, 0)
    assert (gathered.own(place), gathered.highest_other(place), gathered.total) == (0.5, 0.25, 1)
    assert gathered.highest_other(Place(0, 0, 1)) == 0.5
    alone = itself((2, 2), Place(0, 1, 0), 1)
    assert (alone.own(Place(0, 1, 0)), alone.highest_other(Place(0, 1, 0)), alone.total) == (1, 0, 1)


@given(SIDES, SIDES, SIDES, st.integers(0, 20), st.integers(0, 20), st.integers(1, 12))
def test_cells_are_those_that_a_nearest_upsampling_stretches(before, length, after, margin, further, cells):
    """A window of a picture at its own size, seen with margins: its cells cover what is seen."""
    seen = torch.arange(cells).double()[None, None]
    stretched = F.interpolate(seen, margin + length + further, mode='nearest-exact')[0, 0, margin : margin + length]
    found = cells_along(
        before + length + after, before + length + after, (before, before + length), (margin, further), cells
    )
    assert torch.equal(found[before : before + length], stretched.long())
    assert (found[:before] == -1).all()
    assert (found[before + length :] == -1).all()


@given(SIDES, SIDES, st.integers(1, 6))
def test_a_picture_of_another_size_than_the_input(target, side, cells):
    found = cells_along(target, side, (0, side), (0, 0), cells)
    for pixel, cell in enumerate(found.tolist()):
        assert cell <= (pixel + 0.5) / target * cells + 1e-9
        assert cell + 1 >= (pixel + 0.5) / target * cells - 1e-9
    assert found.min() >= 0
    assert found.max() < cells


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(1, 30).flatmap(lambda crop: st.tuples(st.just(crop), st.integers(1, crop))),
    st.integers(0, 9999),
)
def test_the_nearest_window_has_the_pixel(size, of, crop_and_stride, seed):
    boxes = window_boxes(size, *crop_and_stride)
    pixel = tuple(seed * (7 + i) % side for i, side in enumerate(of))
    middle = [(at + 0.5) * side / length for at, side, length in zip(pixel, size, of, strict=True)]

    def apart(box: Window) -> float:
        return ((box.top + box.bottom) / 2 - middle[0]) ** 2 + ((box.left + box.right) / 2 - middle[1]) ** 2

    box = boxes[nearest_window(boxes, size, pixel, of)]
    assert apart(box) <= min(map(apart, boxes)) + 1e-9
    assert cells_along(of[0], size[0], (box.top, box.bottom), (0, 0), 3)[pixel[0]] >= 0
    assert cells_along(of[1], size[1], (box.left, box.right), (0, 0), 3)[pixel[1]] >= 0


def test_of_windows_as_near_the_last_is_taken():
    """On a border between windows that do not overlap, a pixel is in the second only."""
    boxes = window_boxes((4, 8), 4, 4)
    assert nearest_window(boxes, (4, 8), (0, 0), (1, 1)) == 1


def test_one_window_in_its_place():
    """Two by three cells of two pixels, in a picture at twice the size of the input."""
    weights = torch.tensor([[[0.1, 0.2, 0.3], [0.0, 0.15, 0.25]]])
    placed = Placed(Gathered(weights), Place(0, 1, 2), (6, 10), [Window(2, 1, 6, 7)], NO_MARGINS)
    at_size = placed.at_size((12, 20))
    assert at_size.shape == (12, 20)
    torch.testing.assert_close(at_size[4:12, 2:14], weights[0].repeat_interleave(4, dim=0).repeat_interleave(4, dim=1))
    assert at_size.count_nonzero() == 5 * 16
    assert placed.seen((12, 20)) == (4, 2, 12, 14)
    assert placed.patch((12, 20)) == (8, 10, 12, 14)


def test_margins_are_cut_off():
    placed = Placed(Gathered(torch.eye(2)[None]), Place(0, 0, 0), (6, 6), [Window(0, 0, 6, 6)], Margins(2, 0, 0, 2))
    assert placed.patch((6, 6)) == (0, 0, 2, 4)
    assert placed.at_size((6, 6))[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert placed.at_size((6, 6))[5].tolist() == [0, 0, 0, 0, 1, 1]


def test_windows_that_overlap_have_their_mean():
    weights = torch.stack([torch.full((1, 1), 0.5), torch.full((1, 1), 0.25)])
    boxes = [Window(0, 0, 2, 4), Window(0, 2, 2, 6)]
    placed = Placed(Gathered(weights), Place(1, 0, 0), (2, 6), boxes, NO_MARGINS)
    assert placed.at_size((2, 6)).tolist() == [[0.5, 0.5, 0.375, 0.375, 0.25, 0.25]] * 2
    assert placed.seen((2, 6)) == (0, 0, 2, 6)
    assert placed.patch((2, 6)) == (0, 2, 2, 6)
