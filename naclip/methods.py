"""A method: how the last block of the image tower is read. One line in METHODS each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from clip.model import ResidualAttentionBlock
from naclip.attention import ATTENTION_FORMS, AttentionForm

Architecture = Callable[[ResidualAttentionBlock, Tensor, Tensor], Tensor]


def reduced(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """The attention's output y alone: neither residual nor FFN."""
    return y


def vanilla(block: ResidualAttentionBlock, x: Tensor, y: Tensor) -> Tensor:
    """CLIP's own block: residual, then FFN."""
    return block.feed_forward(x + y)


ARCHITECTURES: Mapping[str, Architecture] = {'reduced': reduced, 'vanilla': vanilla}


@dataclass(frozen=True)
class Method:
    """What happens in the last block: the attention form, what is done with its output, and σ in patches."""

    attention: AttentionForm
    architecture: Architecture
    gaussian_std: float = 5.0

    def __post_init__(self):
        if not self.gaussian_std > 0:
            raise ValueError(f'gaussian_std is {self.gaussian_std}, expected a number > 0')

    @classmethod
    def named(cls, attention: str, architecture: str, gaussian_std: float = 5.0) -> 'Method':
        """The method of an attention form's and an architecture's names.

        Raises:
            ValueError: an unknown name (lists the valid ones), or σ <= 0.
        """
        return cls(
            _choose(ATTENTION_FORMS, attention, 'attention (attn_strategy, --attn)'),
            _choose(ARCHITECTURES, architecture, 'architecture (arch, --arch)'),
            gaussian_std,
        )


def _choose(choices: Mapping, name: str, what: str):
    if name not in choices:
        raise ValueError(f'unknown {what} {name!r}: choose from {", ".join(choices)}')
    return choices[name]


METHODS: Mapping[str, Method] = {
    'naclip': Method.named('naclip', 'reduced'),
    'sclip': Method.named('csa', 'vanilla'),
    'clip': Method.named('vanilla', 'vanilla'),
}


def method_name(method: Method) -> str:
    """The name of a method in METHODS, whatever its σ; else 'attention/architecture'."""
    form = (method.attention, method.architecture)
    named = {(m.attention, m.architecture): name for name, m in METHODS.items()}
    return named.get(form, '/'.join(part.__name__ for part in form))
