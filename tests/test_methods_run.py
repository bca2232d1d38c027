"""Every method through eval.py: on the embedded benchmark, with constants of its own, and from a file of the user's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import eval as eval_script
from clip.weights import file_sha256
from naclip.commands import main as naclip_command
from naclip.methods import METHODS, for_tower, method_names
from naclip.protocols import PROTOCOLS
from tests.conftest import ROOT
from tests.naclip.methods.test_methods import MINE

Run = Callable[..., tuple[int, dict | None]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """eval.py on pictures of the embedded benchmark: the exit code, and results.json."""

    def run(*options: str) -> tuple[int, dict | None]:
        argv = ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--device', 'cpu', '--limit', '2']
        argv += ['--work-dir', str(tmp_path / 'work'), *options, '--cfg-options', 'test_dataloader.num_workers=0']
        code = eval_script.main(argv)
        results = tmp_path / 'work' / 'results.json'
        return code, json.loads(results.read_text()) if results.exists() else None

    return run


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS, ids=lambda method: method.name)
def test_every_method_runs(method, run: Run, capsys: pytest.CaptureFixture):
    import clip

    if method.needs_regions:  # with masks it runs in tests/test_guided.py
        assert run('--method', method.name) == (1, None)
        assert f'method {method.name} needs a region mask for each picture' in capsys.readouterr().err
        return
    code, record = run('--method', method.name)
    assert code == 0
    protocol = 'naclip' if PROTOCOLS[method.protocol].closed else method.protocol
    assert (record['method'], record['protocol'], record['changes'], record['images']) == (method.name, protocol, {}, 2)
    expected = for_tower(method, clip.load('shapes', 'cpu')[0].visual).constants
    assert record['settings']['constants'] == json.loads(json.dumps(expected))
    assert record['settings']['pamr_steps'] == (10 if method.pamr else 0)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith(f'shapes: method {method.name} (')
    assert all(f'{name} ' in line for name in expected)


def test_constants_on_the_command_line(run: Run, capsys: pytest.CaptureFixture):
    code, record = run('--method', 'resclip', '--method-options', 'lr=0.2', 'temp=0.1')
    assert code == 0
    assert record['changes'] == {'lr': 0.2, 'temp': 0.1}
    constants = record['settings']['constants']
    assert (constants['lr'], constants['temp'], constants['ts']) == (0.2, 0.1, 1.8)
    assert 'changed by lr=0.2, temp=0.1;' in capsys.readouterr().out


def test_a_method_of_the_users_own(run: Run, tmp_path: Path):
    """The manual's, word for word."""
    manual = (ROOT / 'docs/add-a-method.md').read_text(encoding='utf-8')
    path = tmp_path / 'mine.py'
    path.write_text(manual.split('```python\n# mine.py\n')[1].split('```')[0])
    assert len(path.read_text().splitlines()) <= 15
    code, record = run('--method', f'{path}:Mine', '--method-options', 'strength=3')
    assert code == 0
    assert (record['method'], record['settings']['constants'], record['changes']) == (
        'mine',
        {'strength': 3},
        {'strength': 3},
    )
    assert record['sha256']['method'] == file_sha256(path)
    assert run('--method', f'{path}:Mine', '--method-options', 'strength=3', '--resume')[0] == 0


def test_a_changed_method_is_another_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / 'mine.py'
    path.write_text(MINE)
    run('--method', f'{path}:Mine')
    path.write_text(MINE.replace('float = 1.0', 'float = 0.5'))
    code, _ = run('--method', f'{path}:Mine', '--resume')
    assert code == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert 'has a run under other settings' in error
    assert 'constants.strength was 1.0, is 0.5' in error
    path.write_text(MINE + '\n# The same constants, other code.\n')
    code, _ = run('--method', f'{path}:Mine', '--resume')
    assert code == 1
    assert 'sha256.method was' in capsys.readouterr().err.splitlines()[-1]


def test_a_method_in_a_config(run: Run, tmp_path: Path):
    """A dict with constants; and a class that the config imports."""
    config = tmp_path / 'cfg_shapes.py'
    text = f"_base_ = '{ROOT}/configs/cfg_shapes.py'\nmodel = dict(method=dict(type='gem', depth=2), pamr_steps=0)\n"
    config.write_text(text)
    code, record = run('--config', str(config))
    assert code == 0
    assert (record['method'], record['settings']['constants']['depth']) == ('gem', 2)


def test_a_published_config_under_another_method(run: Run, tmp_path: Path):
    """What a config says of the last block is for methods that have one."""
    config = tmp_path / 'cfg_shapes.py'
    keys = "attn_strategy='naclip', arch='reduced', gaussian_std=5., method=None"
    config.write_text(f"_base_ = '{ROOT}/configs/cfg_shapes.py'\nmodel = dict({keys})\n")
    assert run('--config', str(config))[1]['method'] == 'naclip'
    assert run('--config', str(config), '--method', 'pearl')[1]['method'] == 'pearl'


@pytest.mark.parametrize('protocol', [name for name in PROTOCOLS if name not in ('naclip', 'naclip_v2', 'config')])
def test_protocols_are_for_benchmarks_they_have_settings_for(protocol: str, run: Run, capsys: pytest.CaptureFixture):
    code, _ = run('--protocol', protocol)
    if not PROTOCOLS[protocol].closed:
        assert code == 0
        return
    assert code == 1
    assert f'protocol {protocol} has no settings for shapes, only for ' in capsys.readouterr().err


def test_all_methods_are_offered(capsys: pytest.CaptureFixture):
    """The help says where they are listed, and there they all are."""
    with pytest.raises(SystemExit):
        eval_script.main(['--help'])
    assert 'naclip ls methods' in ' '.join(capsys.readouterr().out.split())
    assert naclip_command(['ls', 'methods']) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert set(method_names()) <= set(listed)
