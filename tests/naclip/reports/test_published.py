"""Results beside published numbers."""

import json
import re
from types import SimpleNamespace

import pytest

from clip.weights import RELEASES
from naclip.methods.clip import CLIP
from naclip.reports import published
from naclip.reports.published import FILE, find_published, published_miou


def record(**changes) -> dict:
    base = dict(
        benchmark='context59',
        method='naclip',
        protocol='naclip',
        changes={},
        backbone='ViT-B/16',
        settings={'limit': None},
        sha256={'weights': RELEASES['ViT-B/16'].sha256},
    )
    return base | changes


@pytest.mark.parametrize(
    ('benchmark', 'protocol', 'expected'),
    [
        ('voc21', 'naclip', 62.36),
        ('voc21', 'naclip_v2', 64.07),
        ('coco_stuff164k', 'naclip_v2', 25.69),
        ('ade20k', 'naclip', 19.05),
    ],
)
def test_number_of_the_protocol(benchmark: str, protocol: str, expected: float):
    value, note = published_miou(record(benchmark=benchmark, protocol=protocol))
    assert value == expected
    assert 'NACLIP README' in note


@pytest.mark.parametrize(('benchmark', 'expected'), [('voc21', 59.63), ('coco_stuff10k', 25.91)])
def test_number_of_another_method(benchmark: str, expected: float):
    value, note = published_miou(record(benchmark=benchmark, method='sclip', protocol='sclip'))
    assert (value, note) == (expected, 'SCLIP README')


@pytest.mark.parametrize(('benchmark', 'expected'), [('voc21', 53.04), ('context459', 9.95), ('ade847', 5.89)])
def test_number_of_a_method_at_one_size(benchmark: str, expected: float):
    value, note = published_miou(record(benchmark=benchmark, method='cliptrase', protocol='cliptrase_336'))
    assert value == expected
    assert note.startswith('CLIPtrase README')
    assert published_miou(record(benchmark=benchmark, method='cliptrase', protocol='cliptrase'))[0] is None


def test_methods_with_weights_of_their_own():
    ours = dict(benchmark='voc20', method='pixelclip', protocol='pixelclip', backbone='model_final.pth')
    value, note = published_miou(record(**ours, sha256={'weights': 'other'}))
    assert (value, note) == (85.9, 'PixelCLIP README, ViT-B/16, SA-1B masks')
    _, note = published_miou(record(**ours | {'backbone': 'ViT-B/16'}))
    assert note == 'other settings: backbone ViT-B/16'


@pytest.mark.parametrize('protocol', ['naclip', 'config'])
def test_another_protocol_is_said(protocol: str):
    value, note = published_miou(record(benchmark='voc21', method='sclip', protocol=protocol))
    assert (value, note) == (59.63, f'other settings: protocol {protocol}')


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'changes': {'gaussian_std': 3.0}}, 'gaussian_std 3.0'),
        ({'sha256': {'weights': 'other'}, 'backbone': 'ViT-L/14'}, 'backbone ViT-L/14'),
        ({'settings': {'limit': 10}}, 'the first 10 pictures'),
    ],
)
def test_other_settings_are_said(changes: dict, expected: str):
    value, note = published_miou(record(**changes))
    assert value == 38.35
    assert note == f'other settings: {expected}'


@pytest.mark.parametrize(
    'changes', [{'benchmark': 'shapes'}, {'method': 'kk/reduced'}, {'method': 'clip', 'benchmark': 'ade847'}]
)
def test_nothing_published(changes: dict):
    assert published_miou(record(**changes)) == (None, 'not published')


@pytest.mark.parametrize(
    ('method', 'benchmark', 'expected', 'note'),
    [
        ('gem', 'ade20k', 15.7, "GEM's paper$"),
        ('gem', 'context60', 32.6, "GEM's paper; Context, listed as 60 classes by ResCLIP"),
        ('gem', 'coco_object', None, 'not published$'),
        ('maskclip', 'context59', 26.4, "MaskCLIP, ClearCLIP's rerun in its protocol$"),
        ('maskclip', 'city_scapes', 12.6, "MaskCLIP, ClearCLIP's rerun in its protocol; 24.9 in other papers"),
        ('clip_surgery', 'context59', None, 'not published; Context 29.3 in figure 6'),
        ('clip_surgery', 'voc20', None, 'not published$'),
    ],
)
def test_notes_of_single_numbers(method: str, benchmark: str, expected: float | None, note: str):
    value, source, _ = find_published(record(method=method, protocol=method, benchmark=benchmark))
    assert value == expected
    assert re.match(note, source)


def test_a_method_called_like_a_protocol_of_another(monkeypatch):
    ours = record(method='clip', protocol='clip_surgery', benchmark='city_scapes')
    monkeypatch.setattr(published, 'METHODS', [CLIP(), SimpleNamespace(name='clip_surgery', protocol='clip_surgery')])
    assert published_miou(ours) == (5.5, 'other settings: protocol clip_surgery')


def test_a_protocol_of_its_own_beside_a_rerun():
    ours = dict(method='gem', benchmark='voc20')
    assert published_miou(record(**ours, protocol='gem_clearclip')) == (79.9, "GEM, ClearCLIP's rerun in its protocol")
    assert find_published(record(**ours, protocol='gem'))[0] is None
    assert published_miou(record(method='gem', benchmark='voc21', protocol='gem_clearclip'))[0] is None


def test_rows_are_whole():
    """A number or null for each benchmark; notes are of benchmarks."""
    table = json.loads(FILE.read_text(encoding='utf-8'))
    for row in table['methods'].values():
        assert set(row) <= {'miou', 'further', 'pamr', 'own_weights', 'source', 'notes'}
        assert len(row['miou']) == len(table['benchmarks'])
        assert set(row.get('notes', {})) <= set(table['benchmarks'])
        assert all(value is None or 0 < value < 100 for value in row['miou'])


def test_means_of_the_published_rows():
    methods = json.loads(FILE.read_text(encoding='utf-8'))['methods']
    for name, mean in (('naclip', 41.87), ('naclip_v2', 42.46), ('corrclip', 48.66)):
        assert sum(methods[name]['miou']) / 8 == pytest.approx(mean, abs=0.006)


def test_numbers_of_guided_methods():
    ours = dict(method='proxyclip', protocol='proxyclip')
    assert published_miou(record(**ours)) == (39.1, 'ProxyCLIP README, with DINO ViT-B/8')
    assert published_miou(record(method='lposs', protocol='lposs'))[0] is None  # only LPOSS+ is
    assert published_miou(record(method='lposs_plus', protocol='lposs', sha256={'weights': 'other'}))[0] == 37.8
    ranked = {'weights': RELEASES['ViT-B/16'].sha256, 'template_ranking': 'any'}
    assert published_miou(record(protocol='floss', sha256=ranked)) == (35.9, 'FLOSS on NACLIP, v2')
    value, note = published_miou(record(protocol='floss'))  # without a ranking it is NACLIP under other settings
    assert (value, note) == (38.35, 'other settings: protocol floss')
