"""A method: how the image tower is read, and the settings it was published under. One line in METHODS each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from clip.model import Resample, ResidualAttentionBlock, resample_by_scale, resample_by_size
from naclip.walk.attention import ATTENTION_FORMS, AttentionForm, Grid

Architecture = Callable[[ResidualAttentionBlock, Tensor, Tensor], Tensor]


def reduced(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """The attention's output y alone: neither residual nor FFN."""
    return y


def vanilla(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """CLIP's own block: residual, then FFN."""
    return block.feed_forward(x + y)


def cls_residual(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """The CLS token's residual for every token, then FFN: PixelCLIP."""
    return block.feed_forward(x[:, :1] + y)


ARCHITECTURES: Mapping[str, Architecture] = {form.__name__: form for form in (reduced, vanilla, cls_residual)}


@dataclass(frozen=True)
class Method:
    """How the tower is read.

    In the last block: the attention form, what is done with its output, and σ in patches. Around it: how the
    positional embedding gets to the grid, and the grid that features are resampled to (None: they stay). After it:
    whether labels are voted on in the regions that the last block but one suggests (naclip/methods/regions.py).
    Methods are equal that read alike, whatever they were published with: `protocol` names those settings (see
    naclip/protocols.py), `pamr` tells whether maps are refined along the picture's edges.
    """

    attention: AttentionForm
    architecture: Architecture
    gaussian_std: float = 5.0
    resample: Resample = resample_by_scale
    feature_grid: Grid | None = None
    regions: bool = False
    protocol: str = field(default='naclip', compare=False)
    pamr: bool = field(default=False, compare=False)

    def __post_init__(self):
        if not self.gaussian_std > 0:
            raise ValueError(f'gaussian_std is {self.gaussian_std}, expected a number > 0')

    @classmethod
    def named(cls, attention: str, architecture: str, gaussian_std: float = 5.0, **more: object) -> 'Method':
        """The method of an attention form's and an architecture's names.

        Raises:
            ValueError: an unknown name (lists the valid ones), or σ <= 0.
        """
        return cls(_attention(attention), _architecture(architecture), gaussian_std, **more)

    def but(
        self, attention: str | None = None, architecture: str | None = None, gaussian_std: float | None = None
    ) -> 'Method':
        """This method with other parts; None keeps its own.

        Raises:
            ValueError: an unknown name (lists the valid ones), or σ <= 0.
        """
        return replace(
            self,
            attention=self.attention if attention is None else _attention(attention),
            architecture=self.architecture if architecture is None else _architecture(architecture),
            gaussian_std=self.gaussian_std if gaussian_std is None else gaussian_std,
        )


def _attention(name: str) -> AttentionForm:
    return _choose(ATTENTION_FORMS, name, 'attention (attn_strategy, --attn)')


def _architecture(name: str) -> Architecture:
    return _choose(ARCHITECTURES, name, 'architecture (arch, --arch)')


def _choose(choices: Mapping, name: str, what: str):
    if name not in choices:
        raise ValueError(f'unknown {what} {name!r}: choose from {", ".join(choices)}')
    return choices[name]


METHODS: Mapping[str, Method] = {
    'naclip': Method.named('naclip', 'reduced', pamr=True),
    'sclip': Method.named('csa', 'vanilla', protocol='sclip'),
    'cliptrase': Method.named('qkv', 'vanilla', regions=True, protocol='cliptrase'),
    'pixelclip': Method.named(
        'identity', 'cls_residual', resample=resample_by_size, feature_grid=(64, 64), protocol='pixelclip'
    ),
    'clip': Method.named('vanilla', 'vanilla'),
}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: an unknown name; lists the valid ones.
    """
    return _choose(METHODS, name, 'method (--method)')


def method_name(method: Method) -> str:
    """The name of a method in METHODS, whatever its σ; else 'attention/architecture'."""
    named = {m.but(gaussian_std=1.0): name for name, m in METHODS.items()}
    return named.get(method.but(gaussian_std=1.0), f'{method.attention.__name__}/{method.architecture.__name__}')
