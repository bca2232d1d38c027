"""What a click shows of attention, without a browser."""

from dataclasses import replace

import numpy as np
import pytest

from naclip.api import Segmenter
from naclip.commands.attention import Comparison, Result, attention_html, attention_maps, looked_into, shares
from naclip.commands.compare import Settings, compared_settings
from naclip.commands.page import EXAMPLES, read_upload, segment_upload, write_examples

SETTINGS = Settings(EXAMPLES[0][1], '', 'shapes')


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory) -> Segmenter:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('NACLIP_CACHE', str(tmp_path_factory.mktemp('attention-cache')))
        yield Segmenter('shapes', 'cpu')


@pytest.fixture(scope='module')
def result(segmenter, tmp_path_factory) -> Result:
    path = str(write_examples(tmp_path_factory.mktemp('pictures') / 'examples')[0])
    seen, _ = segment_upload(lambda _: segmenter, path, SETTINGS.classes, '', 'naclip', 'shapes', None, 'on', None)
    return Result(seen, replace(SETTINGS, pamr='on'), path)


def test_the_method_that_is_shown_and_those_compared_with_it(result):
    assert looked_into(result, None) == [SETTINGS]
    compared = compared_settings(SETTINGS, ['clip', 'naclip', 'gem'], both=True)
    here = Comparison(compared, result.path)
    assert [one.method for one in looked_into(result, here)] == ['naclip', 'clip', 'gem']  # once each
    assert looked_into(result, Comparison(compared, '/another/picture.png')) == [SETTINGS]


def test_what_else_differs_is_looked_into(result):
    """σ and the words may change the attention; thresholds do not."""
    given = [replace(SETTINGS, std=2.0), replace(SETTINGS, classes='cat'), replace(SETTINGS, prob_thd=0.5)]
    assert looked_into(result, Comparison(given, result.path)) == [SETTINGS, *given[:2]]


def test_maps_are_those_of_the_function(segmenter, result):
    several = [SETTINGS, replace(SETTINGS, std=2.0), replace(SETTINGS, method='maskclip')]
    drawn = attention_maps(lambda _: segmenter, result.seen.picture, several, 123, 81)
    for (picture, caption), given in zip(drawn, several, strict=True):
        prepared = segmenter.prepare(given.classes, method=given.method, gaussian_std=given.std)
        found = prepared.attention(read_upload(result.path), 123, 81)
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(found.heat_map()))
        assert caption.endswith(shares(found))
    assert [caption.split(':')[0] for _, caption in drawn] == ['naclip', 'naclip, σ 2', 'maskclip']
    assert drawn[2][1] == 'maskclip: itself 100.0 %'
    assert 'CLS' in drawn[0][1]


def test_what_it_says():
    text = attention_html(123, 81)
    for word in ('123, 81', 'mean over heads', 'whose centre is nearest', 'CLS token', 'left out'):
        assert word in text
