"""Colours of the weak and of the strong picture."""

import colorsys

import numpy as np

from naclip.training import colours
from naclip.training.colours import jitter, strengthened


class Fixed:
    """Random numbers that are always the same: coins fall `coin`, ranges give their upper end."""

    def __init__(self, coin: float):
        self.coin = coin

    def random(self) -> float:
        return self.coin

    def uniform(self, low: float, high: float, size: int | None = None):
        return high if size is None else np.full(size, high)

    def integers(self, low: int, high: int, endpoint: bool = False) -> int:
        return high

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_nothing_happens_where_all_coins_fall_so():
    assert np.array_equal(jitter(picture(), Fixed(0.9)), picture())
    strong = strengthened(picture(), (2, 3, 4, 5), Fixed(0.9))
    expected = picture()
    expected[2:6, 3:8] = 0
    assert np.array_equal(strong, expected)


def test_jitter_of_one_pixel_by_hand():
    """Brightness +32, contrast x1.5, saturation x1.5, hue +18 of 180."""
    pixel = np.array([[[100, 60, 40]]], np.uint8)
    red, green, blue = (min((value + 32) * 1.5, 255) / 255 for value in (100, 60, 40))
    hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
    expected = np.array(colorsys.hsv_to_rgb((hue + 0.1) % 1, min(saturation * 1.5, 1), value)) * 255
    assert np.abs(jitter(pixel, Fixed(0.1))[0, 0] - expected).max() <= 4  # OpenCV keeps hue in 180 steps


def test_the_rectangle_is_always_black_and_the_picture_stays():
    rng = np.random.default_rng(1)
    original = picture()
    for _ in range(20):
        strong = strengthened(original, (0, 0, 5, 6), rng)
        assert not strong[:5, :6].any()
        assert strong.shape == original.shape
    assert np.array_equal(original, picture())


def test_shares():
    """Grey pictures are a fifth, sharp ones a half."""
    rng = np.random.default_rng(2)
    found = [strengthened(picture(), (0, 0, 1, 1), rng) for _ in range(300)]
    grey = np.mean([np.ptp(strong.astype(int), axis=2).max() == 0 for strong in found])
    assert abs(grey - colours.GREY_SHARE) < 0.07


def test_without_colours_only_blur_and_rectangle_are_left():
    """A grey level far from black stays where it is in a plain picture, whatever is drawn."""
    plain = np.full((40, 40, 3), (200, 60, 90), np.uint8)
    for seed in range(30):
        strong = strengthened(plain, (2, 3, 5, 6), np.random.default_rng(seed), colours=False)
        assert not strong[2:7, 3:9].any()
        strong[2:7, 3:9] = plain[2:7, 3:9]
        assert np.array_equal(strong, plain)
