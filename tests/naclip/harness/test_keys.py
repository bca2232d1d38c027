"""Overrides of configs: keys that something reads, and those that nothing does."""

import pytest
from mmengine.config import Config

from naclip.harness.configuration import load_config
from naclip.harness.datasets import register_all
from naclip.harness.keys import arguments, check_keys
from naclip.harness.metric import PixelCountIoUMetric
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures('default_scope_given_back')


@pytest.fixture(params=['shapes', 'voc21', 'context459'])
def config(request: pytest.FixtureRequest) -> dict:
    register_all()
    return load_config(ROOT / f'configs/cfg_{request.param}.py').to_dict()


@pytest.mark.parametrize(
    'key',
    [
        *('model.prob_thd', 'model.anything', 'env_cfg.anything', 'log_level', 'randomness.seed', 'visualizer'),
        *('test_dataloader.num_workers', 'test_dataloader.persistent_workers', 'test_dataloader.prefetch_factor'),
        *('test_dataloader.dataset.indices', 'test_dataloader.dataset.data_root', 'test_dataloader.dataset.type'),
        *('test_dataloader.dataset.data_prefix.img_path', 'test_dataloader.dataset.pipeline.0.anything'),
        *('test_evaluator.labelled_only', 'test_evaluator.ignore_index', 'test_evaluator.prefix'),
    ],
)
def test_keys_that_are_read(config: dict, key: str):
    check_keys(config, [key])


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('tset_dataloader.num_workers', 'it has .*, test_dataloader, .*; did you mean test_dataloader'),
        ('test_dataloader.num_worker', 'test_dataloader has .*; did you mean num_workers'),
        ('test_dataloader.dataset.data_rot', 'test_dataloader.dataset has .*; did you mean data_root'),
        ('test_evaluator.labeled_only', 'test_evaluator has .*; did you mean labelled_only'),
        ('prob_thd', 'it has .*; did you mean model.prob_thd'),
        ('pamr_step', 'it has .*; did you mean model.pamr_steps'),
        ('colour', 'it has .*, work_dir$'),
    ],
)
def test_keys_that_nothing_reads(config: dict, key: str, message: str):
    with pytest.raises(ValueError, match=rf"the config has no key '{key}': {message}") as raised:
        check_keys(config, ['log_level', key])
    assert '\n' not in str(raised.value)


def test_a_data_set_that_nobody_knows_may_take_anything():
    config = Config(dict(test_dataloader=dict(dataset=dict(type='SomebodysOwn')))).to_dict()
    check_keys(config, ['test_dataloader.dataset.anything'])


def test_arguments_of_a_class_and_its_bases():
    found = arguments(PixelCountIoUMetric)
    assert {'labelled_only', 'ignore_index', 'prefix'} <= set(found)
    assert arguments(dict(a=int)['a']) == []
