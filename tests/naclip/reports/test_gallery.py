"""Which pictures are looked at, and how they are drawn."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from naclip.reports.gallery import (
    OPACITY,
    find_chosen,
    in_order,
    interleaved,
    label_png,
    overlay,
    read_labels,
    read_pictures,
    shrunk,
)
from naclip.reports.runs import find_runs
from tests.naclip.reports.made import PALETTE, random_matrix, write_gallery, write_run

NAMES = [f'c{k}' for k in range(5)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs that kept six pictures, and one that kept none; the first makes no mistake."""
    for seed in range(3):
        write_run(tmp_path / f'm{seed}', random_matrix(seed), method=f'm{seed}')
        write_gallery(tmp_path / f'm{seed}/gallery', NAMES, 6, seed)
    write_run(tmp_path / 'none', random_matrix(9), method='none')
    return tmp_path


def test_runs_share_pictures(runs: Path):
    pictures, problems = read_pictures(find_runs([runs]).runs)
    assert problems == []
    assert {picture.image for picture in pictures} == {f'img/{i}.png' for i in range(6)}
    for picture in pictures:
        mious = [shot.miou for shot in picture.shots]
        assert len(mious) == 3
        assert mious[0] == 100
        assert picture.spread == pytest.approx(max(mious) - min(mious))
        assert picture.mean == pytest.approx(sum(mious) / 3)
    differ = in_order(pictures, 'differ')
    assert [p.spread for p in differ] == sorted((p.spread for p in pictures), reverse=True)
    assert [p.mean for p in in_order(pictures, 'worst')] == sorted(p.mean for p in pictures)
    assert in_order(pictures, 'best') == in_order(pictures, 'worst')[::-1]
    mixed = interleaved(pictures)
    assert set(mixed) == set(pictures)
    assert (
        mixed[:3]
        == list(dict.fromkeys([differ[0], *(in_order(pictures, how)[0] for how in ('worst', 'best')), *mixed]))[:3]
    )


def test_another_ground_truth_is_another_picture(runs: Path):
    write_run(runs / 'cropped', random_matrix(4), method='cropped')
    write_gallery(runs / 'cropped/gallery', NAMES, 6, 1, size=(16, 16))
    pictures, _ = read_pictures(find_runs([runs]).runs)
    assert sorted(len(picture.shots) for picture in pictures) == [1] * 6 + [3] * 6
    (chosen,) = find_chosen(pictures, ['img/2.png'])
    assert len(chosen.shots) == 3


def test_chosen_by_name_and_by_words(runs: Path):
    pictures, _ = read_pictures(find_runs([runs]).runs)
    chosen = find_chosen(pictures, ['img/3.png', '4', 'worst:2', 'best'])
    worst, best = in_order(pictures, 'worst'), in_order(pictures, 'best')
    assert [p.image for p in chosen] == list(
        dict.fromkeys(['img/3.png', 'img/4.png', *(p.image for p in (*worst[:2], best[0]))])
    )
    for wanted, said in (
        ('img', "'img' fits 6 pictures"),
        ('img/7.pn', 'did you mean img/'),
        ('worst:x', 'expected a whole number above 0'),
        ('best:0', 'expected a whole number above 0'),
    ):
        with pytest.raises(ValueError, match=said):
            find_chosen(pictures, [wanted])


def test_what_cannot_be_used_is_told(runs: Path):
    index = next((runs / 'm0/gallery').glob('*.json'))
    index.write_text('{')
    next((runs / 'm1/gallery').glob('*_truth.png')).write_bytes(b'\x89PNG')
    write_run(runs / 'm2', random_matrix(2, 6), method='m2')
    _, problems = read_pictures(find_runs([runs]).runs)
    assert len(problems) == 3
    assert ['is damaged' in problems[0], 'cannot be read' in problems[1], 'is not of this run' in problems[2]] == [
        True
    ] * 3


def test_overlay_pixel_by_pixel():
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    labels = np.array([[0, 1, 255, 2]] * 3, np.uint8)
    palette = np.array(PALETTE[:3])
    drawn = np.asarray(overlay(photo, labels, palette))
    grey = np.asarray(photo.convert('L'))
    for y in range(3):
        for x in range(4):
            base = np.full(3, grey[y, x], float)
            expected = base if labels[y, x] == 255 else (1 - OPACITY) * base + OPACITY * palette[labels[y, x]]
            np.testing.assert_allclose(drawn[y, x], expected, atol=0.51)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.randoms(use_true_random=False))
def test_map_of_labels_shows_their_colours(height, width, classes, random):
    rng = np.random.default_rng(random.randrange(1000))
    ignored = 255 if classes <= 255 else 65535
    labels = rng.integers(0, classes, (height, width))
    labels[rng.random(labels.shape) < 0.2] = ignored
    palette = np.array(PALETTE[:classes], np.uint8)
    with Image.open(io.BytesIO(label_png(labels.astype(np.uint16), palette))) as image:
        seen = np.asarray(image.convert('RGBA'))
    known = labels != ignored
    np.testing.assert_array_equal(seen[..., 3], np.where(known, 255, 0))
    np.testing.assert_array_equal(seen[known][:, :3], palette[labels[known]])


def test_many_labels_in_one_picture():
    """More than a palette holds."""
    labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
    labels[0, 0] = 65535
    palette = np.array(PALETTE, np.uint8)
    with Image.open(io.BytesIO(label_png(labels, palette))) as image:
        seen = np.asarray(image.convert('RGBA'))
    np.testing.assert_array_equal(seen[..., :3].reshape(-1, 3)[1:], palette[1:])
    assert seen[0, 0, 3] == 0


def test_shrunk_is_the_nearest():
    labels = np.arange(64).reshape(4, 16)
    np.testing.assert_array_equal(shrunk(labels, 8), labels[1::2, 1::2])
    assert shrunk(labels, 16) is not None
    np.testing.assert_array_equal(shrunk(labels, 99), labels)


def test_labels_of_16_bits_are_read_back(tmp_path: Path):
    write_gallery(tmp_path / 'gallery', [f'c{k}' for k in range(300)], 1)
    path = next((tmp_path / 'gallery').glob('*_truth.png'))
    expected = np.random.default_rng(0).integers(0, 300, (3, 4)).repeat(8, 0).repeat(8, 1)
    np.testing.assert_array_equal(read_labels(path, 300), expected)
    with pytest.raises(ValueError, match='is no label map of 10 classes'):
        read_labels(path, 10)


def test_a_picture_without_scores_is_in_no_order(tmp_path: Path):
    write_run(tmp_path, random_matrix(0))
    write_gallery(tmp_path / 'gallery', NAMES, 1)
    (picture,), _ = read_pictures(find_runs([tmp_path]).runs)
    assert math.isnan(picture.spread)
    assert in_order([picture], 'differ') == []
    with pytest.raises(ValueError, match='no picture has the scores of two runs'):
        find_chosen([picture], ['differ'])
