"""Lists of what there is."""

import json

import pytest

from clip.releases import available_guides
from naclip.commands.listing import LISTS, benchmark_names, main
from naclip.methods import method_names
from naclip.methods.last_block import ARCHITECTURES
from naclip.protocols import PROTOCOLS
from naclip.walk.attention import ATTENTION_FORMS
from tests.conftest import ROOT

DESCRIBED = ('attentions', 'architectures')  # constants, of no source


@pytest.mark.parametrize('what', LISTS)
def test_lists(what: str, capsys: pytest.CaptureFixture):
    assert main([what]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ['name', 'is' if what in DESCRIBED else 'source'] or what == 'benchmarks'
    assert main([what, '--json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == [row['name'] for row in rows]
    assert all(row['is' if what in DESCRIBED else 'source'] for row in rows if row['name'] not in ('shapes',))


def test_everything_is_listed():
    assert [row['name'] for row in LISTS['methods']()] == method_names()
    assert [row['name'] for row in LISTS['attentions']()] == list(ATTENTION_FORMS)
    assert [row['name'] for row in LISTS['architectures']()] == list(ARCHITECTURES)
    assert [row['name'] for row in LISTS['guides']()] == available_guides()
    assert [row['name'] for row in LISTS['protocols']()] == list(PROTOCOLS)
    assert len(benchmark_names()) == len(list((ROOT / 'configs').glob('cfg_*.py')))
    assert all(row['licence'] and row['pictures'] for row in LISTS['benchmarks']())
    assert {'ViT-B/16', 'shapes'} <= {row['name'] for row in LISTS['backbones']()}
    assert all(row['licence'] for row in LISTS['backbones']())


def test_unknown_list(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        main(['method'])
    assert ended.value.code == 2
    assert "unknown list 'method': choose from methods, benchmarks" in capsys.readouterr().err
