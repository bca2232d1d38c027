"""ProxyCLIP: the patches of a DINO decide which of CLIP's values belong together.

Shapes: B windows; h, w patch grid of the guide; n = h*w patches; D width of CLIP's tower; C joint width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from naclip.methods.guided import gather, softmax_of, unit_similarity
from naclip.methods.method import About, Method
from naclip.walk.attention import Grid
from naclip.walk.gathering import Gathered, Place, in_window, patch_index
from naclip.walk.reading import Reading, Tower
from naclip.walk.windows import pad_centred


def proxy_attention(similarity: Tensor, beta: float, gamma: float) -> Tensor:
    """softmax(gamma (S - beta mean S)) over the pairs that are not negative (B, n, n); the mean is each window's own.

    In a window of one colour every pair may be below beta times the mean. Published code then gives NaN and calls
    everything class 0; here a patch always sees itself.
    """
    logits = gamma * (similarity - beta * similarity.mean(dim=(1, 2), keepdim=True))
    return softmax_of(logits, logits >= 0)


@dataclass(frozen=True)
class ProxyCLIP(Method):
    """A = proxy_attention of the guide's last tokens, on CLIP's last values; neither residual nor FFN.

    The maps are on the guide's grid. Windows may have any aspect; published code is right for square ones only.

    Raises:
        ValueError: a constant that makes no sense.
    """

    about: ClassVar[About] = About(
        title='ProxyCLIP',
        paper='arXiv:2408.04883, ECCV 2024',
        code='mc-lan/ProxyCLIP e7b767f',
        licence='see there',
        reads="the last block's values; a DINO's last tokens",
    )
    protocol: ClassVar[str] = 'proxyclip'
    by_depth: ClassVar[Mapping[int, Mapping[str, object]]] = {2: {'guide': 'shapes', 'multiple': 8}}
    guide: str = 'dino_vitb8'  # a name of clip.guides.available_guides(), or a checkpoint file
    beta: float = 1.2  # of the mean similarity: what is below is not seen
    gamma: float = 3.0  # sharpness
    multiple: int = 56  # pixels: windows are padded with zeros to multiples of this, whatever the patches are

    def __post_init__(self):
        if not self.gamma > 0:
            raise ValueError(f'gamma is {self.gamma}, expected a number > 0')
        if self.multiple < 1:
            raise ValueError(f'multiple is {self.multiple}, expected a number of pixels above 0')

    def read(self, visual: Tower, windows: Tensor) -> Reading:
        padded, margins = pad_centred(windows, self.multiple)
        return Reading(visual, padded, margins=margins)

    def features(self, reading: Reading, texts: Tensor) -> Tensor:
        guide = reading.guide
        y = gather(reading, reading.tokens(reading.depth - 1), self.attention(reading), guide.grid)
        return reading.project(y).unflatten(1, guide.grid)

    def attention(self, reading: Reading) -> Tensor:
        """Weights between the guide's patches (B, n, n), for all heads."""
        return proxy_attention(unit_similarity(reading.guide.tokens), self.beta, self.gamma)

    def patch_grid(self, reading: Reading) -> Grid:
        return reading.guide.grid

    def weights(self, reading: Reading, texts: Tensor, place: Place) -> Gathered:
        """Those of the guide's patches."""
        grid, attention = self.patch_grid(reading), self.attention(reading)
        return in_window(attention[place.window, patch_index(place, grid)], grid, place, len(attention))
