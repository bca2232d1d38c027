"""Configs, protocols and options."""

from pathlib import Path

import pytest
from mmengine.config import Config

from naclip.harness.configuration import (
    apply_method,
    apply_protocol,
    benchmark_name,
    chosen_method,
    default_protocol,
    find_step,
    load_config,
    parse_overrides,
    resolve_data_root,
    resolve_file,
)
from naclip.methods import find_method
from naclip.protocols import PROTOCOLS
from naclip.walk.text import read_templates
from naclip.walk.vocabulary import read_vocabulary
from tests.conftest import ROOT

# The table of protocol `naclip`: data set, short side, prob_thd, class count.
TABLE = {
    'voc21': ('PascalVOCDataset', 336, 0.1, 21),
    'voc20': ('PascalVOC20Dataset', 336, 0, 20),
    'context60': ('PascalContext60Dataset', 336, 0.1, 60),
    'context59': ('PascalContext59Dataset', 336, 0, 59),
    'coco_object': ('COCOObjectDataset', 336, 0.1, 81),
    'coco_stuff164k': ('COCOStuffDataset', 448, 0, 171),
    'city_scapes': ('CityscapesDataset', 560, 0, 19),
    'ade20k': ('ADE20KDataset', 336, 0, 150),
    'coco_stuff10k': ('COCOStuffDataset', 336, 0, 171),
}
WIDE = {'context459': 459, 'ade847': 847}  # benchmarks with 16-bit labels
DATASET = dict(
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='val.txt',
)


def config_of(benchmark: str) -> Config:
    return load_config(ROOT / f'configs/cfg_{benchmark}.py')


@pytest.mark.parametrize('benchmark', TABLE)
def test_configs_are_protocol_naclip(benchmark: str):
    config = config_of(benchmark)
    dataset, short_side, prob_thd, classes = TABLE[benchmark]
    assert config.test_dataloader.dataset.type == dataset
    assert find_step(config, 'Resize').scale == (2048, short_side)
    steps = [step.type for step in config.test_dataloader.dataset.pipeline]
    assert steps.index('LoadAnnotations') > steps.index('Resize')
    model = config.model
    std = chosen_method(model).gaussian_std
    assert (model.prob_thd, model.logit_scale, std, model.pamr_steps) == (prob_thd, 40, 5, 10)
    assert (model.slide_crop, model.slide_stride, tuple(model.pamr_stride)) == (224, 112, (8, 16))
    assert len(read_vocabulary(resolve_file(model.name_path))) == classes


def test_protocol_naclip_v2_differs_in_three():
    changed = {}
    for benchmark in TABLE:
        before, after = config_of(benchmark), config_of(benchmark)
        apply_protocol(after, 'naclip_v2', benchmark)
        if before.to_dict() != after.to_dict():
            changed[benchmark] = (after.model.slide_crop, find_step(after, 'Resize').scale[1])
    assert changed == {'voc21': (0, 336), 'voc20': (0, 336), 'coco_stuff164k': (224, 336)}


def test_protocol_sclip():
    """No PAMR anywhere; three benchmarks with a temperature of their own, one of them with an area threshold."""
    changed = {}
    for benchmark in TABLE:
        before, after = config_of(benchmark), config_of(benchmark)
        apply_protocol(after, 'sclip', benchmark)
        assert after.model.pamr_steps == 0
        assert find_step(after, 'Resize').scale == (2048, TABLE[benchmark][1])
        rest = {key: value for key, value in after.model.items() if value != before.model.get(key)}
        del rest['pamr_steps']
        if rest:
            changed[benchmark] = rest
    assert changed == {
        'voc21': {'logit_scale': 65, 'area_thd': 0.1},
        'context60': {'logit_scale': 50},
        'coco_object': {'logit_scale': 50},
    }


@pytest.mark.parametrize(
    ('method', 'attn', 'arch', 'pamr_steps'),
    [('naclip', 'naclip', 'reduced', 10), ('sclip', 'csa', 'vanilla', 0), ('clip', 'vanilla', 'vanilla', 0)],
)
def test_method(method: str, attn: str, arch: str, pamr_steps: int):
    config = config_of('voc21')
    apply_method(config, method)
    model, chosen = config.model, chosen_method(config.model)
    assert (model.method, chosen.attention, chosen.architecture, model.pamr_steps) == (method, attn, arch, pamr_steps)
    assert (model.prob_thd, model.logit_scale, model.slide_crop) == (0.1, 40, 224)


def test_naclip_refines_where_the_config_does_not():
    config = config_of('voc21')
    config.model.pamr_steps = 0
    apply_method(config, 'naclip')
    assert config.model.pamr_steps == 10
    config.model.pamr_steps = 3
    apply_method(config, 'naclip')
    assert config.model.pamr_steps == 3


def test_default_protocols():
    config = config_of('voc21')
    methods = [None, *map(find_method, ('naclip', 'sclip', 'clip', 'pixelclip'))]
    names = [default_protocol(config, method, 'voc21') for method in methods]
    assert names == ['naclip', 'naclip', 'sclip', 'naclip', 'naclip']
    assert default_protocol(config, find_method('pixelclip'), 'voc20') == 'pixelclip'
    config.model.type = 'CLIPForSegmentation'
    assert [default_protocol(config, method, 'voc21') for method in methods[:2]] == ['config', 'naclip']


def test_protocol_pixelclip():
    """Five benchmarks, whole pictures at a size that fits the tower, vocabularies and templates of its own."""
    for benchmark in ('coco_stuff164k', 'ade20k', 'context59', 'city_scapes', 'voc20'):
        config = config_of(benchmark)
        apply_protocol(config, 'pixelclip', benchmark)
        model = config.model
        assert find_step(config, 'Resize').scale == (2560, 640)
        assert (model.slide_crop, model.pamr_steps, model.prob_thd) == (0, 0, 0)
        assert model.input_size == {'vit': (320, 320), 'convnext': (640, 640)}
        assert model.synonyms == 'mean'
        vocabulary = read_vocabulary(resolve_file(model.name_path))
        assert len(vocabulary) == TABLE[benchmark][3]
        assert len(vocabulary.names) == len(vocabulary)
        assert len(read_templates(resolve_file(model.templates))) == 8
    with pytest.raises(ValueError, match=r'pixelclip has no settings for voc21, only for coco_stuff164k, .*voc20'):
        apply_protocol(config_of('voc21'), 'pixelclip', 'voc21')


@pytest.mark.parametrize(
    ('protocol', 'side', 'eps', 'samples'), [('cliptrase', 224, 0.7, 3), ('cliptrase_336', 336, 1.1, 7)]
)
def test_protocol_cliptrase(protocol: str, side: int, eps: float, samples: int):
    """Nine benchmarks, squares, vocabularies of its own; three count ignored pixels as background."""
    assert len(PROTOCOLS[protocol].benchmarks) == 9
    for benchmark in PROTOCOLS[protocol].benchmarks:
        config = config_of(benchmark)
        apply_method(config, 'cliptrase')
        apply_protocol(config, protocol, benchmark)
        model, method = config.model, chosen_method(config.model)
        assert (model.slide_crop, model.pamr_steps, model.prob_thd, model.logit_scale) == (0, 0, 0, 100)
        assert (method.eps, method.min_samples) == (eps, samples)
        assert method.cls_weight == (benchmark == 'voc20')
        assert config.test_evaluator.labelled_only
        steps = [step['type'] for step in config.test_dataloader.dataset.pipeline]
        loading = 'LoadWideAnnotations' if benchmark in WIDE else 'LoadAnnotations'
        assert method.background == (benchmark in ('voc21', 'coco_object', 'context60'))
        background = ['IgnoredToBackground'] if benchmark in ('voc21', 'coco_object', 'context60') else []
        assert steps == ['LoadImageFromFile', loading, 'CentreSquare', *background, 'PackSegInputs']
        assert find_step(config, 'CentreSquare').side == side
        vocabulary = read_vocabulary(resolve_file(model.name_path))
        assert len(vocabulary) == (WIDE[benchmark] if benchmark in WIDE else TABLE[benchmark][3])
        assert len(vocabulary.classes[0]) == {'voc21': 33, 'coco_object': 107}.get(benchmark, 1)


@pytest.mark.parametrize('benchmark', WIDE)
def test_wide_configs(benchmark: str):
    config = config_of(benchmark)
    assert config.test_dataloader.dataset.type == 'WideLabelDataset'
    assert config.test_evaluator.ignore_index == 65535
    assert config.model.synonyms == 'joined'
    assert len(read_vocabulary(resolve_file(config.model.name_path))) == WIDE[benchmark]


def test_a_method_that_votes_reads_whole_pictures():
    config = config_of('voc21')
    apply_method(config, 'cliptrase')
    assert (config.model.slide_crop, config.model.pamr_steps) == (0, 0)


def test_resizing_needs_a_step_that_does():
    config = config_of('voc20')
    config.test_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(ValueError, match='no Resize step'):
        apply_protocol(config, 'pixelclip', 'voc20')


def test_default_protocol_leaves_an_edited_config_alone():
    config = config_of('voc21')
    config.model.prob_thd = 0.3
    apply_protocol(config, 'naclip', 'voc21')
    assert config.model.prob_thd == 0.3


def test_unknown_protocol_lists_the_known():
    with pytest.raises(ValueError, match=', '.join(PROTOCOLS)):
        apply_protocol(config_of('voc21'), 'other', 'voc21')


def test_benchmark_is_named_after_its_config():
    assert benchmark_name('configs/cfg_voc21.py') == 'voc21'
    assert benchmark_name('/elsewhere/mine.py') == 'mine'


def test_missing_config_lists_those_there_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r'configs/cfg_ade20k\.py'):
        load_config(tmp_path / 'cfg_x.py')


@pytest.mark.parametrize(
    ('content', 'expected'),
    [('model = dict(', 'cannot be read'), ('model = dict()', 'test_dataloader, test_evaluator'),
     ('model = dict()\ntest_dataloader = dict()\ntest_evaluator = dict()', 'name_path')],
)  # fmt: skip
def test_config_that_evaluates_nothing(content: str, expected: str, tmp_path: Path):
    path = tmp_path / 'cfg.py'
    path.write_text(content)
    with pytest.raises(ValueError, match=expected):
        load_config(path)


def test_overrides_are_read_as_mmengine_reads_them():
    assert parse_overrides(['a.b=1', 'c=x=y', 'd=[1,2]']) == {'a.b': 1, 'c': 'x=y', 'd': [1, 2]}
    assert parse_overrides([]) == {}


def fill(folder: Path) -> Path:
    for name in ('JPEGImages', 'SegmentationClass'):
        (folder / name).mkdir(parents=True)
    (folder / 'val.txt').write_text('')
    return folder


def test_data_root_own_folder_or_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    own = fill(tmp_path / 'layout/VOCdevkit/VOC2012')
    assert resolve_data_root(DATASET, str(own), 'voc21') == str(own)
    assert resolve_data_root(DATASET, str(tmp_path / 'layout'), 'voc21') == str(own)
    monkeypatch.setenv('NACLIP_DATA_ROOT', str(tmp_path / 'layout'))
    assert resolve_data_root(DATASET, None, 'voc21') == str(own)
    monkeypatch.delenv('NACLIP_DATA_ROOT')
    here = fill(tmp_path / 'here/data/VOCdevkit/VOC2012')
    monkeypatch.chdir(tmp_path / 'here')
    assert Path(resolve_data_root(DATASET, None, 'voc21')).resolve() == here
    assert resolve_data_root(DATASET | {'data_root': str(own)}, None, 'voc21') == str(own)


def test_missing_data_root_tells_benchmark_layout_and_option(tmp_path: Path):
    with pytest.raises(FileNotFoundError) as info:
        resolve_data_root(DATASET, str(tmp_path), 'voc21')
    for part in (
        'voc21',
        str(tmp_path),
        'JPEGImages',
        'SegmentationClass',
        'val.txt',
        '--data-root',
        'NACLIP_DATA_ROOT',
    ):
        assert part in str(info.value)
