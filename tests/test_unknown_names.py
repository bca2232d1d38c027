"""Names that nothing has: each is refused in one line that says what was probably meant."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from naclip.commands import main
from tools import make_regions

EVAL = ('eval', '--config', 'shapes')
pytestmark = pytest.mark.usefixtures('default_scope_given_back')


def refusal(argv: Sequence[str], capsys: pytest.CaptureFixture, run=main) -> str:
    """What a command says that does not run."""
    try:
        code = run(argv)
    except SystemExit as stop:  # argparse
        code = stop.code
    said = capsys.readouterr().err
    assert code not in (0, None)
    assert 'Traceback' not in said
    return said.rstrip()


@pytest.mark.parametrize(
    ('argv', 'meant'),
    [
        (['evla', '--config', 'shapes'], 'eval'),
        (['ls', 'metods'], 'methods'),
        (['eval', '--confg', 'shapes'], '--config'),
        (['eval', '--confg=shapes'], '--config'),
        (['segment', 'cat.jpg', '--clases', 'cat'], '--classes'),
        ([*EVAL, '--pamr', 'of'], 'off'),
        ([*EVAL, '--protocol', 'naclpi'], 'naclip'),
        ([*EVAL, '--dtype', 'flaot16'], 'float16'),
        ([*EVAL, '--device', 'cdua'], 'cuda'),
        (['eval', '--config', 'voc2l'], 'configs/cfg_voc21.py'),
        ([*EVAL, '--backbone', 'shpaes'], 'shapes'),
        ([*EVAL, '--backbone', 'vit-b16'], 'ViT-B/16'),
        ([*EVAL, '--method', 'nacilp'], 'naclip'),
        ([*EVAL, '--method', 'resclip', '--method-options', 'tmep=1'], 'temp'),
        ([*EVAL, '--attn', 'nonyl'], 'nonly'),
        ([*EVAL, '--arch', 'reducde'], 'reduced'),
        ([*EVAL, '--cfg-options', 'test_dataloader.num_worker=0'], 'num_workers'),
        ([*EVAL, '--cfg-options', 'model.prob_thr=0.1'], 'prob_thd'),
        ([*EVAL, '--cfg-options', 'model.type=NACLPI'], 'NACLIP'),
        ([*EVAL, '--sweep', 'prob_thd=0,0.1'], 'model.prob_thd'),
        ([*EVAL, '--sweep', 'method.gaussian_sdt=1,2'], 'gaussian_std'),
        (['check', 'voc2l'], 'voc21'),
        (['train', 'configs/train_pixelclip_shape.py'], 'configs/train_pixelclip_shapes.py'),
    ],
    ids=lambda part: part if isinstance(part, str) else ' '.join(part[-2:]),
)
def test_what_was_meant(argv: list[str], meant: str, capsys: pytest.CaptureFixture):
    assert f'did you mean {meant}?' in refusal(argv, capsys)


def test_kinds_of_regions(tmp_path: Path, capsys: pytest.CaptureFixture):
    line = refusal([str(tmp_path), '--kind', 'slcic', '-o', str(tmp_path)], capsys, make_regions.main)
    assert line.endswith("choice: 'slcic' (choose from felzenszwalb, slic, sam); did you mean slic? (see --help)")


def test_options_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / 'plan.json').write_text(json.dumps([{'config': 'shapes', 'protcol': 'naclip'}]))
    assert 'did you mean protocol?' in refusal(['eval', '--plan', str(tmp_path / 'plan.json')], capsys)


def test_methods_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / 'mine.py').write_text('from naclip.methods.naclip import NACLIP\n\nclass Mine(NACLIP):\n    pass\n')
    line = refusal([*EVAL, '--method', f'{tmp_path}/mine.py:Mien'], capsys)
    assert line.endswith('the file has Mine; did you mean Mine?')


@pytest.mark.parametrize('argv', [['a.jpg', '--classes', '--clases y'], ['a.jpg', '--', '--clases'], ['-x']])
def test_what_only_looks_like_an_option(argv: list[str], capsys: pytest.CaptureFixture):
    """A value with a space in it, what comes after '--', and one letter: as in argparse."""
    assert 'did you mean' not in refusal(['segment', *argv], capsys)


def test_names_that_are_like_none(capsys: pytest.CaptureFixture):
    assert 'did you mean' not in refusal([*EVAL, '--protocol', 'xyz'], capsys)
