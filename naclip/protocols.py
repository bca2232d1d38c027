"""Protocols: named settings under which numbers are comparable.

Protocol `naclip` is what configs/*.py say: the table in the README. Every other protocol is written here as its
differences from that, for all benchmarks and for single ones. `config` is for config files from elsewhere, whose
settings are their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Protocol:
    """Differences from the configs: arguments of the segmentor, or of the harness (naclip/harness/configuration.py).

    `methods` are those that were published under it; what it says under 'constants' is for them alone. A `closed`
    protocol has settings for its benchmarks only.
    """

    source: str
    methods: tuple[str, ...] = ()
    everywhere: Mapping[str, object] = field(default_factory=dict)
    benchmarks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    closed: bool = False

    def covers(self, benchmark: str) -> bool:
        """Whether there are settings for a benchmark."""
        return not self.closed or benchmark in self.benchmarks

    def changes(self, benchmark: str) -> dict[str, object]:
        """The differences that apply to a benchmark."""
        own = self.benchmarks.get(benchmark, {})
        constants = {**self.everywhere.get('constants', {}), **own.get('constants', {})}
        return {**self.everywhere, **own, **({'constants': constants} if constants else {})}


def _cliptrase(side: int, eps: float, min_samples: int) -> Protocol:
    """CLIPtrase's settings at one size of pictures (pixels), with the clustering that fits them."""
    names = ('voc20', 'coco_stuff164k', 'context59', 'context459', 'ade20k', 'ade847')
    names_with_background = ('voc21', 'coco_object', 'context60')
    vocabularies = {name: {'name_path': f'./configs/cls_cliptrase_{name}.txt'} for name in names}
    return Protocol(
        f'CLIPtrase (arXiv:2407.08268), {side} pixels',
        methods=('cliptrase',),
        everywhere={
            'crop': side,
            'labelled_only': True,
            'slide_crop': 0,
            'pamr_steps': 0,
            'prob_thd': 0,
            'logit_scale': 100,
            'constants': {'eps': eps, 'min_samples': min_samples},
        },
        benchmarks=vocabularies
        | {
            name: {
                'name_path': f'./configs/cls_cliptrase_{name}.txt',
                'ignored_is_background': True,
                'constants': {'background': True},
            }
            for name in names_with_background
        }
        | {'voc20': vocabularies['voc20'] | {'constants': {'cls_weight': True}}},
        closed=True,
    )


PROTOCOLS: Mapping[str, Protocol] = {
    'naclip': Protocol('NACLIP, first release (arXiv:2404.08181v2)', methods=('naclip',)),
    'naclip_v2': Protocol(
        'NACLIP, WACV 2025 release',
        methods=('naclip',),
        benchmarks={
            'voc21': {'slide_crop': 0},
            'voc20': {'slide_crop': 0},
            'coco_stuff164k': {'resize': (2048, 336)},
        },
    ),
    'sclip': Protocol(
        'SCLIP (arXiv:2312.01597)',
        methods=('sclip',),
        everywhere={'pamr_steps': 0},
        benchmarks={
            'voc21': {'logit_scale': 65, 'area_thd': 0.1},
            'context60': {'logit_scale': 50},
            'coco_object': {'logit_scale': 50},
        },
    ),
    'cliptrase': _cliptrase(224, eps=0.7, min_samples=3),
    'cliptrase_336': _cliptrase(336, eps=1.1, min_samples=7),
    'pixelclip': Protocol(
        'PixelCLIP (arXiv:2409.19846)',
        methods=('pixelclip',),
        everywhere={
            'resize': (2560, 640),
            'input_size': {'vit': (320, 320), 'convnext': (640, 640)},
            'slide_crop': 0,
            'pamr_steps': 0,
            'templates': 'prompts/pixelclip.txt',
            'synonyms': 'mean',
        },
        benchmarks={
            name: {'name_path': f'./configs/cls_pixelclip_{name}.txt'}
            for name in ('coco_stuff164k', 'ade20k', 'context59', 'city_scapes', 'voc20')
        },
        closed=True,
    ),
    'config': Protocol('the config file as it is'),
}
