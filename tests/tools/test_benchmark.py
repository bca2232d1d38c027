"""The benchmark script: its literal pipeline is right, and it reports what it measured."""

import json
from pathlib import Path

import pytest
import torch

from clip.guides import GuideSizes
from clip.model import CLIP
from naclip.methods.naclip import NACLIP
from naclip.pipeline import Pipeline, Settings, queries_of
from naclip.walk.pamr import pamr
from naclip.walk.text import text_embeddings
from naclip.walk.vocabulary import Vocabulary
from tests.conftest import ROOT
from tools import benchmark
from tools.benchmarks import literal, methods, plans
from tools.benchmarks.clock import peak_bytes


@pytest.fixture
def pipeline(model: CLIP, voc21: Vocabulary, golden: dict) -> Pipeline:
    settings = Settings(slide_crop=64, slide_stride=32, pamr_steps=3, prob_thd=0.05)
    return Pipeline(model, NACLIP(), voc21, golden['query_features'], settings)


@torch.no_grad()
def test_literal_pipeline_labels_as_the_pipeline(pipeline: Pipeline, golden: dict):
    for i in range(3):
        images = golden[f'image_{i}']
        torch.testing.assert_close(literal.literal_logits(pipeline, images), pipeline.logits(images))
        labels, _ = pipeline(images, (90, 120))
        assert (literal.literal_prediction(pipeline, images, (90, 120)) == labels).float().mean() > 0.999


@pytest.mark.parametrize('key', ['10/8-16', '3/1-2-4-8-12-24'])
def test_literal_pamr_as_golden(golden: dict, key: str):
    steps, dilations = int(key.split('/')[0]), [int(d) for d in key.split('/')[1].split('-')]
    published = literal.literal_pamr(golden['pamr/image'], golden['pamr/mask'], steps, dilations)
    torch.testing.assert_close(published, golden[f'pamr/{key}'], rtol=0, atol=1e-5)
    torch.testing.assert_close(pamr(golden['pamr/image'], golden['pamr/mask'], steps, dilations), published)


@torch.no_grad()
def test_literal_text_as_the_text_stage(model: CLIP):
    names, templates = ['cat', 'tv monitor'], ['a photo of a {}.', 'the {} in a very long scene.']
    mine = text_embeddings(model, names, templates, progress=False)
    torch.testing.assert_close(literal.literal_text(model, names, templates), mine)


def test_peak_memory_is_that_of_the_tensors():
    def call():
        first = torch.zeros(1000)
        second = first + 1
        del first
        return second + torch.zeros(500).sum()

    call()
    assert 8_000 <= peak_bytes(torch.device('cpu'), call) <= 11_000


def test_report(tmp_path: Path, checkpoint_file: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    config = tmp_path / 'cfg_x.py'
    config.write_text(
        f"_base_ = '{ROOT}/configs/cfg_voc20.py'\n"
        f"model = dict(slide_crop=64, slide_stride=32, name_path='{ROOT}/configs/cls_voc20.txt')\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(2048, 80), keep_ratio=True),\n"
        "                 dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n'
    )
    out = tmp_path / 'report.json'
    argv = ['--config', str(config), '--backbone', str(checkpoint_file), '--size', '90', '120', '--device', 'cpu']
    argv += ['--rounds', '1', '--maps', '3', '--prompts', '80', '--dtype', 'bfloat16', '--json', str(out)]
    benchmark.main(argv)
    record, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert (record['input'], record['windows'], record['names']) == ([80, 107], 6, 30)
    assert record['dtype'] == 'bfloat16'
    assert 0.8 < record['agreement'] <= 1
    assert record['pamr'][0]['maps'] == 3
    for stage in ('whole', 'tower alone', 'PAMR', 'literal', 'decision'):
        assert record['seconds'][stage] > 0
        assert stage in printed
    assert record['whole_to_tower'] > 0
    assert f'literal / whole {record["literal_to_whole"]:.1f}' in printed


def test_methods_with_a_second_tower_beside_clip(tmp_path, capsys, monkeypatch):
    tower = dict(embed_dim=32, image_resolution=64, vision_width=64, transformer_width=64, transformer_layers=1)
    monkeypatch.setattr(benchmark, 'VIT_B_16', benchmark.VIT_B_16 | tower)
    small = {name: GuideSizes(64, 2, sizes.patch_size, 4) for name, sizes in methods.GUIDE_SIZES.items()}
    monkeypatch.setattr(methods, 'GUIDE_SIZES', small)
    names, out = ['clip', 'proxyclip', 'lposs', 'lposs_plus', 'corrclip'], tmp_path / 'methods.json'
    argv = ['--config', str(ROOT / 'configs' / 'cfg_shapes.py'), '--device', 'cpu']
    argv += ['--size', '72', '96', '--rounds', '1', '--json', str(out), '--methods', *names]
    benchmark.main(argv)
    rows = json.loads(out.read_text())
    assert [row['method'] for row in rows] == names
    assert all(row['maps_seconds'] > 0 and row['maps_ratio'] > 0 and row['whole_ratio'] > 0 for row in rows)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[-len(names) - 1 :]] == ['method', *names]


@pytest.mark.slow
def test_sweep_draws_a_plot(tmp_path: Path):
    rows = benchmark.sweep(torch.device('cpu'), 1, tmp_path / 'plot.png', scale=0.1)
    assert {row['swept'] for row in rows} == {'pixels', 'names'}
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_plans_are_timed(model: CLIP, monkeypatch: pytest.MonkeyPatch):
    """Every plan has its row; what is timed counts every picture of every run."""
    counted = []
    count = plans.count_table
    monkeypatch.setattr(plans, 'count_table', lambda *args: counted.append(args[2]) or count(*args))
    monkeypatch.setattr(plans, 'SIZE', (64, 80))
    monkeypatch.setattr(plans, 'embeddings', lambda words, method: torch.randn(len(queries_of(words, method)), 64))
    monkeypatch.setattr(plans, 'METHODS', ('clip', 'naclip', 'sclip'))
    rows = plans.time_plans(model, rounds=1)
    assert [row['runs'] for row in rows] == [1, 3, 2, 25, 20]
    assert all(row['ratio'] > 0 for row in rows)
    assert rows[1]['alone'] > 0
    assert {21, 20} == set(counted)
