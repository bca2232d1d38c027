"""Protocols: named settings under which numbers are comparable.

Protocol `naclip` is what configs/*.py say: the table in the README. Every other protocol is written here as its
differences from that, for all benchmarks and for single ones. `config` is for config files from elsewhere, whose
settings are their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Protocol:
    """Differences from the configs: arguments of the segmentor, or `resize`, the largest (long side, short side).

    A `closed` protocol has settings for its benchmarks only.
    """

    source: str
    everywhere: Mapping[str, object] = field(default_factory=dict)
    benchmarks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    closed: bool = False

    def covers(self, benchmark: str) -> bool:
        """Whether there are settings for a benchmark."""
        return not self.closed or benchmark in self.benchmarks

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
            'coco_stuff164k': {'resize': (2048, 336)},
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
    'pixelclip': Protocol(
        'PixelCLIP (arXiv:2409.19846)',
        everywhere={
            'resize': (2560, 640),
            'input_size': (320, 320),
            'slide_crop': 0,
            'pamr_steps': 0,
            'templates': 'prompts/pixelclip.txt',
            'synonyms_together': True,
        },
        benchmarks={
            name: {'name_path': f'./configs/cls_pixelclip_{name}.txt'}
            for name in ('coco_stuff164k', 'ade20k', 'context59', 'city_scapes', 'voc20')
        },
        closed=True,
    ),
    'config': Protocol('the config file as it is'),
}
