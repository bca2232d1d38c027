"""Nothing heavy is imported before it is needed: help and wrong options are answered first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import eval as eval_script
from naclip.commands import COMMANDS
from tests.conftest import ROOT

HEAVY = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmseg', 'matplotlib', 'scipy', 'gradio')
SCRIPTS = [ROOT / 'eval.py', *sorted(path for path in (ROOT / 'tools').glob('*.py') if path.name != '__init__.py')]
# Run a script or a module as a program, then tell on standard error what of the heavy packages was imported.
PROBE = f"""
import runpy, sys
run, what, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = what
try:
    getattr(runpy, run)(what, run_name='__main__')
except SystemExit as end:
    code = end.code or 0
else:
    code = 0
print(*sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def imported(run: str, what: str, *options: str, code: int = 0) -> tuple[str, list[str]]:
    """What a program prints, and the heavy packages it has imported."""
    command = [sys.executable, '-c', PROBE, run, what, *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {'COLUMNS': '200'})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr, done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_help_of_scripts(script: Path):
    said, heavy = imported('run_path', str(script), '--help')
    assert said.startswith('usage: ')
    assert heavy == []


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_subcommands(name: str):
    said, heavy = imported('run_module', 'naclip', name, '--help')
    assert said.startswith(f'usage: naclip {name} ')
    assert heavy == []


@pytest.mark.parametrize(
    'options',
    [
        ('eval.py', '--config', 'x', '--limit', '0'),
        ('tools/benchmark.py', '--rounds', 'few'),
        ('tools/segment.py', 'x.png', '--classes', 'cat', '--dtype', 'float8'),
        ('tools/train.py',),
    ],
    ids=lambda options: options[0],
)
def test_wrong_options(options: tuple[str, ...]):
    _, heavy = imported('run_path', *options, code=2)
    assert heavy == []


def test_names_in_help():
    said, _ = imported('run_path', 'eval.py', '--help')
    for name in ('ViT-B/16', 'shapes', 'dinov2_vitb14_reg', 'naclip_v2', 'bfloat16', 'naclip ls methods'):
        assert name in said


@pytest.mark.slow
def test_packages_without_their_parts():
    code = (
        'import sys, clip, naclip, clip.releases; clip.available_models(), clip.MEAN;'
        'assert not {"torch", "numpy"} & set(sys.modules), sys.modules.keys();'
        'from clip import load, DTYPES; import torch; assert DTYPES["float16"] is torch.float16;'
        'assert load is clip.load and "load" in dir(clip) and set(clip.__all__) <= set(dir(clip));'
        'assert all(hasattr(clip, name) for name in clip.__all__) and not hasattr(clip, "nothing");'
        'assert "torchvision" not in sys.modules and "torch._dynamo" not in sys.modules'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_a_backbone_is_loaded_without_the_compiler():
    """On the meta device, some operations import torch._dynamo, which takes as long as PyTorch itself."""
    code = (
        'import sys, clip; clip.load("shapes", "cpu"); assert not {"torch._dynamo", "torchvision"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_harness_leaves_out_what_it_does_not_need():
    code = (
        'import sys; from naclip.commands.imports import NOT_NEEDED, harness_imports\n'
        'with harness_imports():\n    import naclip.harness.evaluation\n'
        'assert not {"torchvision", "torch._dynamo", "matplotlib", *NOT_NEEDED} & set(sys.modules)'
    )
    done = subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ''


@pytest.mark.parametrize(
    ('option', 'name', 'meant'),
    [
        ('--method', 'nacllip', 'naclip'),
        ('--attn', 'vanila', 'vanilla'),
        ('--arch', 'reduce', 'reduced'),
    ],
)
def test_unknown_names_are_answered_before_weights_are_loaded(
    option: str, name: str, meant: str, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr('clip.sources.find', lambda *_: pytest.fail('weights are loaded'))
    argv = ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--work-dir', str(tmp_path / 'work'), option, name]
    assert eval_script.main(argv) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(f'did you mean {meant}?') or f'did you mean {meant}?; ' in line
    assert not (tmp_path / 'work').exists()
