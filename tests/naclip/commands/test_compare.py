"""Several methods on one picture, and settings as the end of an address."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naclip import segment
from naclip.api import Segmenter
from naclip.commands.compare import (
    MOST_LETTERS,
    Settings,
    compare_upload,
    compared_settings,
    largest,
    link_of,
    settings_of,
)
from naclip.commands.page import shown, write_examples

METHODS, BACKBONES = ('naclip', 'sclip', 'gem'), ('ViT-B/16', 'shapes')
USUAL = Settings(backbone='ViT-B/16')
TEXTS = st.text(max_size=30)
NUMBERS = st.none() | st.floats(-10, 10, allow_nan=False)


@given(
    TEXTS,
    TEXTS,
    st.sampled_from(BACKBONES),
    st.sampled_from(METHODS),
    NUMBERS,
    st.sampled_from(['method', 'on', 'off']),
)
def test_an_address_restores_settings(classes, background, backbone, method, number, pamr):
    settings = Settings(classes, background, backbone, method, number, pamr, number)
    link = link_of(settings)
    assert link.startswith('?')
    assert link.isascii()
    assert not set(link) & set(' <>"#')
    assert settings_of(link, USUAL, METHODS, BACKBONES) == settings


def test_what_cannot_be_is_as_usual():
    query = '?method=evil&backbone=/etc/passwd&pamr=maybe&std=nan&prob_thd=x&other=1&classes=' + 'a' * 9999
    restored = settings_of(query, USUAL, METHODS, BACKBONES)
    assert restored == replace(USUAL, classes='a' * MOST_LETTERS)
    assert settings_of('', USUAL, METHODS, BACKBONES) == USUAL
    assert link_of(Settings()) == '?'


@pytest.fixture(scope='module')
def segmenter() -> Segmenter:
    return Segmenter('shapes', 'cpu')


def test_each_method_as_alone(segmenter, tmp_path):
    path = write_examples(tmp_path / 'examples')[0]
    settings = Settings('cat; house; grass', '', 'shapes', std=3.0)
    several = compared_settings(settings, ['naclip', 'sclip', 'gem'])
    drawn = compare_upload(lambda name: segmenter, str(path), several)
    assert [caption.split(':')[0] for _, caption in drawn] == ['naclip', 'sclip', 'gem']
    for (picture, caption), (method, std) in zip(drawn, [('naclip', 3.0), ('sclip', 3.0), ('gem', None)], strict=True):
        seen = segment(path, settings.classes, backbone='shapes', device='cpu', method=method, gaussian_std=std)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(shown(seen, -1)))
        assert caption.endswith(largest(seen.names, seen.shares))
    pair = compare_upload(lambda name: segmenter, str(path), compared_settings(settings, ['naclip'], both=True))
    assert [caption.split(':')[0] for _, caption in pair] == ['naclip, no PAMR', 'naclip, PAMR']
    assert not np.array_equal(np.asarray(pair[0][0]), np.asarray(pair[1][0]))
    np.testing.assert_array_equal(np.asarray(pair[1][0]), np.asarray(drawn[0][0]))


@pytest.mark.parametrize(('methods', 'both'), [([], False), (['naclip'] * 5, True), (['naclip'] * 9, False)])
def test_too_few_or_too_many(methods, both):
    with pytest.raises(ValueError, match='expected 1 to 8'):
        compared_settings(Settings(), methods, both)


def test_largest_classes_in_words():
    assert largest(['a', 'b', 'c', 'd', 'e'], [0.1, 0, 0.6, 0.2, 0.1]) == 'c 60.0 %, d 20.0 %, a 10.0 %'
    assert set(asdict(Settings())) == {'classes', 'background', 'backbone', 'method', 'std', 'pamr', 'prob_thd'}
