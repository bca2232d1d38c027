"""Protocols: named settings under which numbers are comparable.

Protocol `naclip` is what configs/*.py say: a table of docs/protocols.md. Every other protocol is written here as its
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


IMAGENET_85 = 'prompts/maskclip.txt'  # CLIP's 80 templates and five more
EIGHT = ('voc21', 'context60', 'coco_object', 'voc20', 'city_scapes', 'context59', 'ade20k', 'coco_stuff164k')


def _clearclip(source: str, methods: tuple[str, ...], **constants: object) -> Protocol:
    """ClearCLIP's windows, scale, thresholds and names, for it and what its repository compares it with."""
    benchmarks = {name: {} for name in EIGHT} | {
        'voc21': {'prob_thd': 0.5, 'name_path': './configs/cls_clearclip_voc21.txt'},
        'context60': {'prob_thd': 0.15},
        'coco_object': {'prob_thd': 0.4, 'name_path': './configs/cls_clearclip_coco_object.txt'},
        'city_scapes': {'slide_crop': 224},  # at that stride, windows do not overlap
    }
    everywhere = {'resize': (2048, 448), 'slide_crop': 448, 'slide_stride': 224, 'pamr_steps': 0, 'logit_scale': 50}
    everywhere |= {'constants': constants} if constants else {}
    return Protocol(source, methods, everywhere, benchmarks, closed=True)


def _resclip(source: str, methods: tuple[str, ...], of: Mapping[str, Mapping[str, object]]) -> Protocol:
    """Protocol naclip without PAMR, whole pictures on voc21 and voc20, and constants `of` each benchmark."""
    settings = {name: {} for name in EIGHT} | {
        'voc21': {'slide_crop': 0},
        'voc20': {'slide_crop': 0},
        'coco_stuff164k': {'resize': (2048, 336)},
    }
    benchmarks = {name: {**settings[name], 'constants': of[name]} if name in of else settings[name] for name in EIGHT}
    return Protocol(source, methods, {'pamr_steps': 0}, benchmarks, closed=True)


def _residual(lr: float, ts: float, ls: float, temp: float) -> dict[str, float]:
    """ResCLIP's constants of a benchmark."""
    return {'lr': lr, 'ts': ts, 'ls': ls, 'temp': temp}


def _guided(source: str, methods: tuple[str, ...], larger: tuple[str, ...], further: tuple[str, ...] = ()) -> Protocol:
    """Wide windows, short side 336, but 448 on `larger` benchmarks; thresholds where there is a background."""
    settings = {
        'voc21': {'prob_thd': 0.2},
        'context60': {'prob_thd': 0.15},
        'coco_object': {'prob_thd': 0.25},
        'city_scapes': {'slide_crop': 224},
    }
    sizes = {name: {'resize': (2048, 448)} for name in larger}
    benchmarks = {name: {**settings.get(name, {}), **sizes.get(name, {})} for name in (*EIGHT, *further)}
    everywhere = {'resize': (2048, 336), 'slide_crop': 336, 'slide_stride': 112, 'pamr_steps': 0, 'prob_thd': 0}
    return Protocol(source, methods, everywhere, benchmarks, closed=True)


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
    'clearclip': _clearclip('ClearCLIP (arXiv:2407.12442)', ('clearclip', 'maskclip')),
    'maskclip_original': Protocol(
        'MaskCLIP (arXiv:2112.01071), its repository',
        methods=('maskclip_original',),
        everywhere={
            'resize': (2048, 512),
            'mean': (0.485, 0.456, 0.406),
            'std': (0.229, 0.224, 0.225),
            'slide_crop': 0,
            'pamr_steps': 0,
            'logit_scale': 1,
            'templates': IMAGENET_85,
        },
        benchmarks={
            'voc20': {},
            'context59': {'resize': (520, 520)},
            'coco_stuff164k': {},
            'city_scapes': {'resize': (1024, 512)},
        },
        closed=True,
    ),
    'sc_clip': Protocol(
        'SC-CLIP (arXiv:2411.15869)',
        methods=('sc_clip',),
        everywhere={'pamr_steps': 0},
        benchmarks={name: {} for name in EIGHT}
        | {
            'voc21': {'logit_scale': 50, 'prob_thd': 0.15, 'area_thd': 0.1},
            'context60': {'prob_thd': 0.15},
            'coco_object': {'logit_scale': 55, 'prob_thd': 0.35},
            'coco_stuff164k': {'resize': (2048, 336)},
        },
        closed=True,
    ),
    'gem': Protocol(
        'GEM (arXiv:2312.00878), its package',
        methods=('gem',),
        everywhere={'squash': 448, 'slide_crop': 0, 'pamr_steps': 0, 'templates': 'prompts/gem.txt'},
        benchmarks={name: {} for name in ('voc20', 'city_scapes', 'context59', 'ade20k', 'coco_stuff164k')},
        closed=True,
    ),
    'gem_clearclip': _clearclip('GEM as in ClearCLIP (arXiv:2407.12442)', ('gem',), min_max=False),
    'clip_surgery': Protocol(
        'CLIP Surgery (arXiv:2304.05653), its demonstration',
        methods=('clip_surgery',),
        everywhere={'squash': 512, 'slide_crop': 0, 'straight': True, 'pamr_steps': 0, 'templates': IMAGENET_85},
        benchmarks={name: {} for name in ('city_scapes', 'context59', 'coco_stuff164k')},
        closed=True,
    ),
    'resclip': _resclip(
        'ResCLIP (arXiv:2411.15851)',
        ('resclip', 'resclip_sclip', 'resclip_clearclip'),
        {
            'voc21': _residual(0.3, 2.2, 0.7, 0.5),
            'context60': _residual(0.3, 1.8, 0.7, 0.3),
            'coco_object': _residual(0.4, 1.8, 0.7, 0.11),
            'voc20': _residual(0.6, 2.1, 0.6, 0.1),
            'city_scapes': _residual(0.2, 2.1, 0.6, 0.1),
            'context59': _residual(0.4, 1.8, 0.7, 0.25),
            'ade20k': _residual(0.3, 2.1, 0.7, 0.25),
            'coco_stuff164k': _residual(0.4, 1.8, 0.7, 0.11),
        },
    ),
    'pearl': _resclip(
        'PEARL (arXiv:2603.21528)',
        ('pearl',),
        {'city_scapes': {'alpha': 0.3, 'grid': 224}, 'ade20k': {'alpha': 0.3}},
    ),
    'cliptrase_d2': Protocol(
        'CLIPtrase (arXiv:2407.08268), second code base',
        methods=('cliptrase_d2',),
        everywhere={
            'resize': (2560, 640),
            'labelled_only': True,
            'slide_crop': 0,
            'straight': True,
            'pamr_steps': 0,
            'prob_thd': 0,
            'logit_scale': 100,
            'templates': 'prompts/vild.txt',
        },
        benchmarks={
            name: {'name_path': f'./configs/cls_cliptrase_{name}.txt'}
            for name in ('coco_stuff164k', 'context59', 'context459', 'ade20k', 'ade847')
        }
        | {'voc20': {'name_path': './configs/cls_cliptrase_voc20.txt', 'constants': {'cls_weight': True}}},
        closed=True,
    ),
    'proxyclip': _guided(
        'ProxyCLIP (arXiv:2408.04883), class names of the configs',
        ('proxyclip',),
        ('city_scapes', 'ade20k', 'ade847', 'context459'),
        ('context459', 'ade847'),
    ),
    'corrclip': _guided(
        'CorrCLIP (arXiv:2411.10086), class names of the configs', ('corrclip',), ('city_scapes', 'ade20k')
    ),
    'lposs': Protocol(
        'LPOSS (arXiv:2503.19777), class names of the configs',
        methods=('lposs', 'lposs_plus'),
        everywhere={'resize': (2048, 448), 'pamr_steps': 0, 'prob_thd': 0, 'logit_scale': 1},
        benchmarks={name: {} for name in EIGHT},
        closed=True,
    ),
    'floss': Protocol(
        'FLOSS (arXiv:2504.10487) on NACLIP',
        methods=('naclip',),
        everywhere={'pamr_steps': 0, 'prob_thd': 0, 'logit_scale': 100},
        benchmarks={'voc20': {'slide_crop': 0}, 'coco_stuff164k': {'resize': (2048, 336)}},
    ),
    'config': Protocol('the config file as it is'),
}
