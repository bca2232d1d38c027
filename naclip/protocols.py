"""Protocols: named settings under which numbers are comparable.

Protocol `naclip` is what configs/*.py say: the table in the README. Every other protocol is written here as its
differences from that, for all benchmarks and for single ones. `config` is for config files from elsewhere, whose
settings are their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Protocol:
    """Differences from the configs: arguments of the segmentor, or `short_side` (pixels) of the resized picture."""

    source: str
    everywhere: Mapping[str, object] = field(default_factory=dict)
    benchmarks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def changes(self, benchmark: str) -> dict[str, object]:
        """The differences that apply to a benchmark."""
        return {**self.everywhere, **self.benchmarks.get(benchmark, {})}


PROTOCOLS: Mapping[str, Protocol] = {
    'naclip': Protocol('NACLIP, first release (arXiv:2404.08181v2)'),
    'naclip_v2': Protocol(
        'NACLIP, WACV 2025 release',
        benchmarks={
            'voc21': {'slide_crop': 0},
            'voc20': {'slide_crop': 0},
            'coco_stuff164k': {'short_side': 336},
        },
    ),
    'sclip': Protocol(
        'SCLIP (arXiv:2312.01597)',
        everywhere={'pamr_steps': 0},
        benchmarks={
            'voc21': {'logit_scale': 65, 'area_thd': 0.1},
            'context60': {'logit_scale': 50},
            'coco_object': {'logit_scale': 50},
        },
    ),
    'config': Protocol('the config file as it is'),
}
