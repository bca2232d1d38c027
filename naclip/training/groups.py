"""What is trained, at which rate, and what decays."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from clip.convnext import ConvNeXt
from naclip.walk.reading import Tower

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
TOWER, PROMPTS = 'sem_seg_head.predictor.clip_model.', 'sem_seg_head.predictor.prompt_tokens'


@dataclass(frozen=True)
class Rates:
    """Learning rates: of the head, and what those of tower and prompts are times that; and the weight decay."""

    base: float = 2e-4
    tower: float = 0.01
    prompts: float = 10.0
    decay: float = 1e-4

    def of(self, name: str) -> float:
        """The rate of a parameter."""
        if name == PROMPTS:
            return self.prompts * self.base
        return self.tower * self.base if name.startswith(TOWER) else self.base


def trained_names(visual: Tower) -> list[str]:
    """Parameters of an image tower that are trained: attention and position of a ViT, all of a ConvNeXt."""
    names = [name for name, _ in visual.named_parameters()]
    if isinstance(visual, ConvNeXt):
        return names
    return [name for name in names if 'attn' in name or 'position' in name]


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Name, parameter and whether it belongs to a norm, of all that is trained, once each."""
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                yield f'{prefix}.{name}' if prefix else name, parameter, isinstance(module, NORMS)


def parameter_groups(model: nn.Module, rates: Rates) -> list[dict]:
    """The groups of an optimiser: trained parameters by rate and decay. Norms do not decay, all else does."""
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter, norm in trained(model):
        key = (rates.of(name), 0.0 if norm else rates.decay)
        group = groups.setdefault(key, {'params': [], 'lr': key[0], 'weight_decay': key[1]})
        group['params'].append(parameter)
    return list(groups.values())
