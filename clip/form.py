"""What the weights of a CLIP do not tell: its towers' activation and heads, and how pictures are made ready for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from clip.names import unknown

# Per-channel statistics of CLIP's training pictures, RGB in [0, 1].
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

ACTIVATIONS = ('quick_gelu', 'gelu')  # x * sigmoid(1.702 x), and the exact GELU
HEAD_WIDTH = 64  # of every text tower that is published for our tokenizer, and of most image towers
INTERPOLATIONS = ('bicubic', 'bilinear')
RESIZE_MODES = ('shortest', 'squash')  # short side to the resolution, then the middle; or both sides to it


@dataclass(frozen=True)
class Form:
    """Activation and head width (d, in numbers) of the image tower and of the text tower.

    Raises:
        ValueError: an unknown activation, or a head width below 1; lists the valid ones.
    """

    activation: str = 'quick_gelu'
    head_width: int = HEAD_WIDTH
    text_activation: str = 'quick_gelu'
    text_head_width: int = HEAD_WIDTH

    def __post_init__(self):
        for activation in (self.activation, self.text_activation):
            if activation not in ACTIVATIONS:
                raise ValueError(unknown('activation', activation, ACTIVATIONS))
        for width in (self.head_width, self.text_head_width):
            if isinstance(width, bool) or not isinstance(width, int) or width < 1:
                raise ValueError(f'the head width is {width!r}, expected a whole number above 0')


OPENAI = Form()  # of all that OpenAI published with a ViT


@dataclass(frozen=True)
class Statement:
    """What a source says of a checkpoint, and how that is known.

    Raises:
        ValueError: a preprocessing that there is not, or a size that is none; says which, and what was expected.
    """

    form: Form
    known_by: str  # in a few words, without paths: runs are compared by it
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    interpolation: str = 'bicubic'
    resize_mode: str = 'shortest'
    sizes: Mapping[str, int] | None = None  # of the towers, by the names of `clip.model.sizes_of`, as far as stated
    revision: str | None = None  # the commit of a repository on a hub

    def __post_init__(self):
        for what, value, choices in (
            ('interpolation', self.interpolation, INTERPOLATIONS),
            ('resize mode', self.resize_mode, RESIZE_MODES),
        ):
            if value not in choices:
                raise ValueError(f'its pictures are made ready with {what} {value!r}, known are {", ".join(choices)}')
        for what, values in (('mean', self.mean), ('std', self.std)):
            if len(values) != 3 or (what == 'std' and min(values) <= 0):
                raise ValueError(f'its {what} is {list(values)}, expected three numbers{" above 0" * (what == "std")}')
        for what, size in (self.sizes or {}).items():
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise ValueError(f'its {what} is {size!r}, expected a whole number above 0')
