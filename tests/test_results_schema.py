"""docs/results.schema.json: what runs write fits it, and so do files of earlier layouts, which reports read."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest

import eval as eval_script
from naclip.commands.score import main as score
from naclip.reports.page import make_report
from naclip.reports.runs import find_runs, settings_of
from naclip.runs.predictions import write_prediction
from naclip.runs.results import SCHEMA, write_results
from naclip.shapes import generator as shapes
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures('default_scope_given_back')
DEFINITION = json.loads((ROOT / 'docs/results.schema.json').read_text(encoding='utf-8'))
VALIDATOR = jsonschema.Draft202012Validator(DEFINITION)
EARLIER = sorted((ROOT / 'tests/data/results').glob('*.json'))


@pytest.fixture(scope='module')
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """A real record of an evaluation, and one of a scoring."""
    root = tmp_path_factory.mktemp('shapes')
    shapes.write_dataset(root / 'data', count=2)
    options = ['--config', str(ROOT / 'configs/cfg_shapes.py'), '--data-root', str(root / 'data')]
    single = ['--device', 'cpu', '--cfg-options', 'test_dataloader.num_workers=0']
    assert eval_script.main([*options, '--work-dir', str(root / 'evaluated'), *single]) == 0
    for i in range(2):
        _, label = shapes.draw(shapes.RandomState([shapes.VAL_SEED, i]), shapes.VAL_SIZE)
        write_prediction(root / 'predictions', f'{i:06d}.png', label, shapes.PALETTE)
    scored = ['--predictions', str(root / 'predictions'), '--method-name', 'perfect', '--work-dir']
    assert score([*options, *scored, str(root / 'scored')]) == 0
    found = {name: json.loads((root / name / 'results.json').read_text()) for name in ('evaluated', 'scored')}
    return {name: {'schema': SCHEMA} | record for name, record in found.items()}


def test_the_definition_is_one():
    jsonschema.Draft202012Validator.check_schema(DEFINITION)


@pytest.mark.parametrize('kind', ['evaluated', 'scored'])
def test_what_runs_write(kind: str, records: dict[str, dict]):
    record = records[kind]
    VALIDATOR.validate(record)
    assert record['schema'] == SCHEMA
    # Whoever adds a key says what it is.
    assert record.keys() <= DEFINITION['properties'].keys()
    assert record['settings'].keys() <= DEFINITION['properties']['settings']['properties'].keys()


def test_perfect_predictions(records: dict[str, dict]):
    assert records['scored']['metrics']['mIoU'] == 100


@pytest.mark.parametrize('kind', ['evaluated', 'scored'])
def test_what_lacks_something_does_not_fit(kind: str, records: dict[str, dict]):
    record = records[kind]
    required = DEFINITION['required'] + ([] if kind == 'scored' else DEFINITION['then']['else']['required'])
    for key in required:
        assert not VALIDATOR.is_valid({k: v for k, v in record.items() if k != key}), key
    wrong = copy.deepcopy(record)
    wrong['classes'][0]['label'] = -1
    assert not VALIDATOR.is_valid(wrong)
    wrong = copy.deepcopy(record)
    del wrong['sha256']['predictions' if kind == 'scored' else 'weights']
    assert not VALIDATOR.is_valid(wrong)


@pytest.mark.parametrize('path', EARLIER, ids=lambda path: path.stem)
def test_earlier_layouts(path: Path):
    record = json.loads(path.read_text(encoding='utf-8'))
    assert 'schema' not in record
    VALIDATOR.validate(record)


def test_reports_read_all(records: dict[str, dict], tmp_path: Path):
    assert len(EARLIER) == 4
    for path in EARLIER:
        write_results(tmp_path / path.stem / 'results.json', json.loads(path.read_text(encoding='utf-8')))
    for kind, record in records.items():
        write_results(tmp_path / kind / 'results.json', record)
    runs = find_runs([tmp_path])
    assert runs.left_out == ()
    # The release and the layout after it are the same run, but for where constants are.
    shown_once = [note for note in runs.notes if note.endswith('with the same counts: shown once')]
    assert len(runs.runs) + len(shown_once) == 6
    for run in runs.runs:
        assert run.miou() == pytest.approx(run.get('metrics.mIoU'))
        if run.benchmark == 'voc21':
            assert settings_of(run)['gaussian_std'] in (3.0, 5.0)
    files, left_out, _ = make_report(runs)
    assert left_out == []
    assert b'perfect (scored)' in files['report.md']


def test_a_later_layout_is_told(records: dict[str, dict], tmp_path: Path):
    write_results(tmp_path / 'results.json', records['evaluated'] | {'schema': SCHEMA + 1})
    (note,) = find_runs([tmp_path]).notes
    assert f'schema {SCHEMA + 1}' in note
