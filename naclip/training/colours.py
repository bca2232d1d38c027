"""What happens to a picture's colours: a jitter for both pictures of a step, and more for the strong one.

Pictures are RGB, uint8 (h, w, 3).
"""

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional as pil

from naclip.training.views import Box

BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18  # of the weak jitter; hue in 180ths
STRONG_FACTORS, STRONG_HUE = (0.5, 1.5), 0.25
STRONG_SHARE, GREY_SHARE, BLUR_SHARE = 0.8, 0.2, 0.5
BLUR_RADIUS = (0.1, 2.0)


def jitter(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """The colour jitter of SSD (Liu et al., 2016): each part in half of the cases, contrast first or last."""

    def sometimes() -> bool:
        return rng.random() < 0.5

    def contrast(picture: np.ndarray) -> np.ndarray:
        return _clipped(picture * np.float32(rng.uniform(*CONTRAST))) if sometimes() else picture

    if sometimes():
        picture = _clipped(picture + np.float32(rng.uniform(-BRIGHTNESS, BRIGHTNESS)))
    contrast_first = sometimes()
    if contrast_first:
        picture = contrast(picture)
    if sometimes():
        hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV)
        hsv[..., 1] = _clipped(hsv[..., 1] * np.float32(rng.uniform(*SATURATION)))
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if sometimes():
        hsv = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-HUE, HUE, endpoint=True)) % 180
        picture = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return picture if contrast_first else contrast(picture)


def strengthened(picture: np.ndarray, cutout: Box, rng: Generator, colours: bool = True) -> np.ndarray:
    """The strong picture of a weak one: torchvision's colour jitter, grey, blur, and always a black rectangle.

    Without `colours`, blur and rectangle alone.
    """
    image = Image.fromarray(picture)
    if colours and rng.random() < STRONG_SHARE:
        brightness, contrast, saturation = rng.uniform(*STRONG_FACTORS, 3)
        changes = (
            lambda image: pil.adjust_brightness(image, brightness),
            lambda image: pil.adjust_contrast(image, contrast),
            lambda image: pil.adjust_saturation(image, saturation),
            lambda image: pil.adjust_hue(image, rng.uniform(-STRONG_HUE, STRONG_HUE)),
        )
        for i in rng.permutation(len(changes)):
            image = changes[i](image)
    if colours and rng.random() < GREY_SHARE:
        image = pil.rgb_to_grayscale(image, num_output_channels=3)
    if rng.random() < BLUR_SHARE:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR_RADIUS)))
    strong = np.array(image)
    top, left, height, width = cutout
    strong[top : top + height, left : left + width] = 0
    return strong


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)
