"""Label maps on disk, scored as an evaluation scores its own."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import eval as eval_script
from naclip.commands.score import main
from naclip.reports.page import make_report
from naclip.reports.runs import compare, find_runs
from naclip.runs.predictions import write_prediction
from tests.conftest import ROOT
from tests.goldens.fake_datasets import write_benchmark

pytestmark = pytest.mark.usefixtures('default_scope_given_back')
SAME = ('images', 'metrics', 'classes')
Score = Callable[..., tuple[int, dict | None]]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of two data sets; in Cityscapes, pictures and label maps have different names."""
    root = tmp_path_factory.mktemp('data')
    for name in ('voc', 'cityscapes'):
        write_benchmark(root, name)
    return root


@pytest.fixture
def score(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Score:
    """Runs score.py's main on VOC; returns the exit code, and results.json (None if there is none)."""
    monkeypatch.chdir(tmp_path)

    def run(predictions: Path, *options: str, benchmark: str = 'voc21', folder: str = 'voc') -> tuple[int, dict | None]:
        argv = ['--config', str(ROOT / f'configs/cfg_{benchmark}.py'), '--predictions', str(predictions)]
        code = main(
            [*argv, '--data-root', str(data / folder), '--work-dir', 'scored', '--method-name', 'SAN', *options]
        )
        results = tmp_path / 'scored/results.json'
        return code, json.loads(results.read_text()) if results.exists() else None

    return run


def random_predictions(data: Path, out: Path, classes: int = 21) -> dict[str, np.ndarray]:
    """A random label map for each picture of VOC, written flat; the maps by stem."""
    maps = {}
    for number, label in enumerate(sorted((data / 'voc/SegmentationClass').iterdir())):
        with Image.open(label) as file:
            size = file.size[::-1]
        maps[label.stem] = np.random.RandomState(number).randint(0, classes, size)
        write_prediction(out, f'{label.stem}.jpg', maps[label.stem], np.zeros((classes, 3), int))
    return maps


def test_counts_are_those_of_the_evaluation(data: Path, score: Score, checkpoint_file: Path, tmp_path: Path):
    """What an evaluation predicts, written down and scored, gives what the evaluation gave."""
    saved, root = tmp_path / 'evaluated/predictions', data / 'voc'
    argv = ['--config', str(ROOT / 'configs/cfg_voc20.py'), '--backbone', str(checkpoint_file)]
    argv += ['--data-root', str(root), '--work-dir', str(tmp_path / 'evaluated'), '--device', 'cpu', '--pamr', 'off']
    argv += ['--save-predictions', '--save-confusion', '--per-image', '--cfg-options', 'test_dataloader.num_workers=0']
    assert eval_script.main(argv) == 0
    evaluated = json.loads((tmp_path / 'evaluated/results.json').read_text())
    code, scored = score(saved, '--save-confusion', '--per-image', benchmark='voc20')
    assert code == 0
    assert {key: scored[key] for key in SAME} == {key: evaluated[key] for key in SAME}
    assert evaluated['files'] == scored['files'] | {'predictions': 'predictions'}
    for name in ('confusion.npy', 'per_image.csv'):
        assert (tmp_path / 'scored' / name).read_bytes() == (tmp_path / 'evaluated' / name).read_bytes()


def test_counts_are_those_of_brute_force(data: Path, score: Score, tmp_path: Path):
    maps = random_predictions(data, tmp_path / 'flat')
    code, record = score(tmp_path / 'flat')
    assert code == 0
    assert record['images'] == 3
    pairs = [(maps[p.stem], np.asarray(Image.open(p))) for p in (data / 'voc/SegmentationClass').iterdir()]
    for index, row in enumerate(record['classes']):
        expected = {
            'intersect': sum(((m == index) & (g == index)).sum() for m, g in pairs),
            'label': sum((g == index).sum() for m, g in pairs),
            'pred': sum(((m == index) & (g != 255)).sum() for m, g in pairs),
        }
        assert {key: row[key] for key in expected} == expected


def test_the_record_says_what_was_scored(data: Path, score: Score, tmp_path: Path):
    random_predictions(data, tmp_path / 'flat')
    _, record = score(tmp_path / 'flat', '--limit', '2', '--per-image')
    assert (record['method'], record['protocol'], record['changes'], record['images']) == ('SAN', 'scored', {}, 2)
    assert record['settings']['limit'] == 2
    assert record['settings']['labelled_only'] is False
    assert len((tmp_path / 'scored/per_image.csv').read_text().splitlines()) == 3
    before = record['sha256']['predictions']
    first = tmp_path / 'flat/000000.png'
    with Image.open(first) as file:
        labels = np.array(file)
    Image.fromarray(labels).save(first, compress_level=0)  # grey, and larger
    assert score(tmp_path / 'flat', '--limit', '2')[1]['sha256']['predictions'] == before
    labels[0, 0] = (labels[0, 0] + 1) % 21
    Image.fromarray(labels).save(first)
    assert score(tmp_path / 'flat', '--limit', '2')[1]['sha256']['predictions'] != before


def test_a_config_decides_over_which_classes_the_mean_is(data: Path, score: Score, tmp_path: Path):
    random_predictions(data, tmp_path / 'flat')
    config = tmp_path / 'cfg_mine.py'
    config.write_text(f"_base_ = '{ROOT}/configs/cfg_voc21.py'\ntest_evaluator = dict(labelled_only=True)\n")
    code, record = score(tmp_path / 'flat', '--config', str(config))
    assert code == 0
    assert record['settings']['labelled_only'] is True


def test_names_of_other_layouts_are_found_by_stem(data: Path, score: Score, tmp_path: Path):
    for picture in (data / 'cityscapes/leftImg8bit').rglob('*.png'):
        with Image.open(picture) as file:
            write_prediction(tmp_path / 'flat', picture.name, np.zeros(file.size[::-1], int), np.zeros((19, 3), int))
    code, record = score(tmp_path / 'flat', benchmark='city_scapes', folder='cityscapes')
    assert (code, record['images']) == (0, 3)


def test_ids_of_16_bits(score: Score, data: Path, tmp_path: Path):
    labels = np.random.RandomState(0).randint(0, 459, (24, 30)).astype(np.uint16)
    labels[:3] = 65535
    root = data / 'wide'
    for name in ('JPEGImages', 'annotations_detectron2/pc459_val', 'ImageSets/SegmentationContext'):
        (root / name).mkdir(parents=True)
    Image.new('RGB', (30, 24)).save(root / 'JPEGImages/a.jpg')
    Image.fromarray(labels).save(root / 'annotations_detectron2/pc459_val/a.tif')
    (root / 'ImageSets/SegmentationContext/val.txt').write_text('a\n')
    ids = np.where(labels == 65535, 458, labels)
    write_prediction(tmp_path / 'wide', 'a.jpg', ids, np.zeros((459, 3), int))
    code, record = score(tmp_path / 'wide', benchmark='context459', folder='wide')
    assert code == 0
    assert record['metrics']['aAcc'] == 100
    assert sum(row['label'] for row in record['classes']) == 21 * 30


def spoil(folder: Path, kind: str) -> None:
    path = folder / '000001.png'
    if kind == 'missing':
        path.unlink()
    elif kind == 'size':
        Image.new('L', (97, 127)).save(path)
    elif kind == 'ids':
        Image.new('L', (97, 128), 21).save(path)
    else:
        Image.new('RGB', (97, 128)).save(path)


@pytest.mark.parametrize(
    ('kind', 'said'),
    [
        ('missing', 'is missing, the prediction of JPEGImages/000001.jpg (1 of 3 pictures have none)'),
        ('size', 'has 127x97 pixels, expected 128x97'),
        ('ids', 'has ids that are no class: 21, expected 0 to 20'),
        ('colours', 'is a picture in colours'),
    ],
)
def test_bad_predictions_cost_one_line_with_the_name(
    kind: str, said: str, data: Path, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture
):
    random_predictions(data, tmp_path / 'flat')
    assert score(tmp_path / 'flat')[0] == 0
    before = (tmp_path / 'scored/results.json').read_bytes()
    capsys.readouterr()
    spoil(tmp_path / 'flat', kind)
    assert score(tmp_path / 'flat')[0] == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('score.py: ')
    assert '000001.png' in error
    assert said in error
    assert (tmp_path / 'scored/results.json').read_bytes() == before  # an earlier result stays


def test_reports_show_it_beside_others(data: Path, score: Score, tmp_path: Path):
    random_predictions(data, tmp_path / 'flat')
    score(tmp_path / 'flat', '--method-name', 'naclip', '--save-confusion')
    runs = find_runs([tmp_path / 'scored'])
    assert runs.notes == ()
    (run,) = runs.runs
    assert run.name == 'naclip (scored)'
    assert compare(run).note == 'not published'  # a name proves nothing
    files, left_out, _ = make_report(runs)
    assert left_out == []
    assert b'naclip (scored)' in files['report.md']


@pytest.mark.parametrize('name', ['', ' ', 'a\nb'])
def test_a_name_that_no_table_can_show(name: str, score: Score, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert score(tmp_path, '--method-name', name)[0] == 1
    assert '--method-name is' in capsys.readouterr().err
