"""Backbones at the command line: what is said of their towers is recorded, and wrong ones cost one line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import safetensors.torch
import torch

import eval as eval_script
from clip import ACTIVATIONS
from clip.weights import file_sha256
from naclip.cli import OneLineParser, add_form
from tests.clip.references import hugging_face_model, openclip_config, openclip_model, write_openclip
from tests.conftest import ROOT
from tests.goldens.fake_datasets import write_benchmark

Run = Callable[..., tuple[int, dict | None, str]]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture of PASCAL VOC's layout, and one prompt template."""
    root = tmp_path_factory.mktemp('data')
    folder = write_benchmark(root, 'voc')
    (folder / 'ImageSets/Segmentation/val.txt').write_text('000000\n')
    (root / 'template.txt').write_text('a photo of a {}.\n')
    return root


@pytest.fixture
def run(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture) -> Run:
    """Runs eval.py on one picture; returns the exit code, results.json, and what was printed."""

    def evaluate(*options: str) -> tuple[int, dict | None, str]:
        work_dir = tmp_path / 'work'
        argv = ['--config', str(ROOT / 'configs/cfg_voc20.py'), '--work-dir', str(work_dir), '--device', 'cpu']
        argv += ['--data-root', str(data / 'voc'), '--templates', str(data / 'template.txt'), '--pamr', 'off', *options]
        code = eval_script.main([*argv, '--cfg-options', 'test_dataloader.num_workers=0'])
        results = work_dir / 'results.json'
        printed = capfd.readouterr()
        return code, json.loads(results.read_text()) if results.exists() else None, printed.out + printed.err

    return evaluate


@pytest.fixture
def bare(state_dict: dict, tmp_path: Path) -> str:
    """The stand-in without OpenAI's entries."""
    safetensors.torch.save_file(state_dict, tmp_path / 'bare.safetensors')
    return str(tmp_path / 'bare.safetensors')


def test_the_form_is_recorded(run: Run, bare: str):
    code, record, printed = run('--backbone', bare, '--activation', 'gelu', '--head-width', '32')
    assert code == 0
    settings = record['settings']
    assert (settings['activation'], settings['head_width']) == ('gelu', 32)
    assert (settings['text_activation'], settings['text_head_width']) == ('gelu', 64)
    assert settings['form_known_by'] == 'the options activation and head_width'
    assert record['changes'].keys() == {'templates', 'pamr_steps'}  # of the protocol, which has no backbone
    assert record['backbone_revision'] is None
    tower = 'a ViT of 3 blocks, 128 wide, patch 16'
    assert f"bare.safetensors ({tower}; the method's settings were published for ViT-B/16)" in printed.splitlines()[0]


def test_the_form_is_part_of_a_runs_identity(run: Run, bare: str):
    backbone = ['--backbone', bare, '--head-width', '64', '--activation']
    assert run(*backbone, 'gelu')[0] == 0
    code, _, printed = run(*backbone, 'quick_gelu', '--resume')
    assert code == 1
    assert 'settings.activation was gelu, is quick_gelu' in printed


def test_another_form_gives_other_numbers(run: Run, bare: str):
    """Text embeddings, too, which are kept on disk."""
    labels = {}
    for activation in ACTIVATIONS:
        _, record, _ = run('--backbone', bare, '--head-width', '64', '--activation', activation)
        labels[activation] = [row['pred'] for row in record['classes']]
    assert labels['gelu'] != labels['quick_gelu']


def test_pictures_are_normalised_as_the_source_says(run: Run, tmp_path: Path):
    config = openclip_config('B/16')
    write_openclip(tmp_path / 'model', openclip_model(config), config, dict(mean=[0.5] * 3, std=[0.25] * 3))
    backbone = ['--backbone', f'local-dir:{tmp_path}/model']
    _, record, _ = run(*backbone)
    assert (record['settings']['mean'], record['settings']['std']) == ([0.5] * 3, [0.25] * 3)
    assert record['settings']['form_known_by'] == 'open_clip_config.json'


def test_weights_in_several_files(run: Run, tmp_path: Path):
    """Numbers as from one file; the recorded SHA-256 is that of all files."""
    model = hugging_face_model()
    model.save_pretrained(tmp_path / 'one')
    model.save_pretrained(tmp_path / 'many', max_shard_size='1MB')
    (_, one, _), (code, many, _) = (run('--backbone', f'local-dir:{tmp_path}/{name}') for name in ('one', 'many'))
    assert code == 0
    assert many['metrics'] == one['metrics']
    files = sorted((tmp_path / 'many').glob('model-*.safetensors'))
    lines = ''.join(f'{file_sha256(path)}  {path.name}\n' for path in files)
    assert len(files) > 2
    assert many['sha256']['weights'] == hashlib.sha256(lines.encode()).hexdigest()
    definition = json.loads((ROOT / 'docs/results.schema.json').read_text(encoding='utf-8'))
    jsonschema.Draft202012Validator(definition).validate(many)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'weights do not tell their activation and head width'),
        (['--activation', 'gelu'], '--head-width N is needed, too'),
        (['--activation', 'gelu', '--head-width', '48'], '128 wide cannot have heads 48 wide'),
    ],
)
def test_a_bare_file(run: Run, bare: str, options: list[str], message: str):
    assert_refused(run('--backbone', bare, *options), message)


def assert_refused(outcome: tuple[int, dict | None, str], message: str) -> None:
    code, record, printed = outcome
    assert (code, record) == (1, None)
    (line,) = [line for line in printed.splitlines() if line.startswith('eval.py: ')]
    assert message in line
    assert 'Traceback' not in printed


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ('vit-b/16', 'did you mean ViT-B/16?'),
        ('local-dir:nowhere', 'there is no such folder'),
        ('hf-hub:a/b/c', 'expected hf-hub:ORG/NAME'),
    ],
)
def test_unknown_backbones(run: Run, backbone: str, message: str):
    assert_refused(run('--backbone', backbone), message)


def test_options_that_contradict(run: Run):
    assert_refused(run('--backbone', 'shapes', '--activation', 'gelu'), 'leave out --activation and --head-width')


def test_towers_that_there_are_not(run: Run, tmp_path: Path):
    torch.save({'logit_bias': torch.zeros(1)}, tmp_path / 'siglip.pt')
    assert_refused(run('--backbone', str(tmp_path / 'siglip.pt')), 'SigLIP')
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model/config.json').write_text('{"model_type": "siglip"}')
    torch.save({}, tmp_path / 'model/pytorch_model.bin')
    assert_refused(run('--backbone', str(tmp_path / 'model')), "of a model of type 'siglip'")


@pytest.mark.parametrize('options', [['--activation', 'relu'], ['--head-width', '0'], ['--head-width', 'x']])
def test_options_that_are_none(options: list[str], capsys: pytest.CaptureFixture):
    parser = OneLineParser(prog='test')
    add_form(parser)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(options)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count('\n') == 1


def test_options_have_the_activations_that_there_are():
    parser = OneLineParser()
    add_form(parser)
    for activation in ACTIVATIONS:
        assert parser.parse_args(['--activation', activation, '--head-width', '80']).head_width == 80
