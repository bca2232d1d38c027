"""The doctor for data: miniatures of all benchmarks, whole and damaged in known ways."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.data import check as data_check
from tests.conftest import ROOT
from tests.datasets.scripts import load_script, run, write_png
from tests.goldens.fake_datasets import BENCHMARKS as FAKE_FOLDERS
from tests.goldens.fake_datasets import write_benchmark

NAME = 'check'
FOLDERS = {
    'voc21': 'voc',
    'voc20': 'voc',
    'context60': 'context',
    'context59': 'context',
    'ade20k': 'ade20k',
    'city_scapes': 'cityscapes',
    'coco_object': 'coco_object',
    'coco_stuff164k': 'coco_stuff164k',
    'coco_stuff10k': 'coco_stuff10k',
}
LABELS = {
    'voc': 'SegmentationClass',
    'context': 'SegmentationClassContext',
    'ade20k': 'annotations/validation',
    'cityscapes': 'gtFine/val',
    'coco_object': 'annotations/val2017',
    'coco_stuff164k': 'annotations/val2017',
    'coco_stuff10k': 'annotations/test2014',
}
Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope='session')
def fine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of every data set."""
    root = tmp_path_factory.mktemp('fine')
    for name in FAKE_FOLDERS:
        write_benchmark(root, name)
    return root


@pytest.fixture
def check(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Runs check.py's main with the miniatures' sizes as the official ones; returns exit code and output."""
    monkeypatch.setattr(data_check, 'OFFICIAL_COUNTS', dict.fromkeys(FOLDERS, 3))
    script = load_script(NAME)

    def run_main(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = script.main([*map(str, arguments), '-j', '1'])
        return code, capsys.readouterr().out

    return run_main


@pytest.fixture
def copy(fine: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a benchmark's miniature, to be damaged."""
    return lambda benchmark: Path(shutil.copytree(fine / FOLDERS[benchmark], tmp_path / FOLDERS[benchmark]))


def label_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / LABELS[root.name]).rglob('*') if path.is_file())


def change_labels(root: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in label_files(root):
        with Image.open(path) as file:
            label = np.asarray(file)
        write_png(path, change(label.astype(int)))


@pytest.mark.parametrize('benchmark', FOLDERS)
def test_fine(check: Check, fine: Path, benchmark: str):
    code, printed = check(benchmark, '--data-root', fine / FOLDERS[benchmark])
    assert code == 0, printed
    assert 'error' not in printed
    assert 'warning' not in printed
    assert 'ok       3 pictures, the official number' in printed
    assert 'ok       3 label maps, one for each picture' in printed
    assert 'files are whole' in printed
    assert 'label values fit' in printed
    assert printed.splitlines()[-1].split()[:3] == [benchmark, '3', '3']


def test_histogram_is_of_the_labels(check: Check, fine: Path):
    """Shares as counted with one look at every map."""
    values = np.concatenate([np.asarray(Image.open(path)).ravel() for path in label_files(fine / 'voc')])
    _, printed = check('voc21', 'voc20', '--data-root', fine / 'voc')
    most = int(np.bincount(values[values < 21]).argmax())
    name = ('background', 'aeroplane')[most]
    assert f'most frequent: {name} {np.mean(values == most):.1%},' in printed
    lines = printed.splitlines()[-2:]
    assert lines[0].split() == ['voc21', '3', '3', '21/21', f'{np.mean(values == 255):.1%}', 'ok']
    assert lines[1].split() == ['voc20', '3', '3', '20/20', f'{np.mean(np.isin(values, (0, 255))):.1%}', 'ok']


def test_real_counts(capsys: pytest.CaptureFixture, fine: Path):
    """Without the miniatures' sizes all but the numbers of pictures are fine."""
    assert load_script(NAME).main(['ade20k', '--data-root', str(fine / 'ade20k'), '-j', '1']) == 1
    printed = capsys.readouterr().out
    assert '3 pictures, the official number is 2000' in printed
    assert printed.count('error') == 2  # the finding and the summary
    assert printed.count('  ok ') == 3


def test_official_counts():
    expected = dict(voc21=1449, voc20=1449, context60=5104, context59=5104, ade20k=2000, city_scapes=500)
    expected |= dict(coco_object=5000, coco_stuff164k=5000, coco_stuff10k=1000, shapes=200)
    assert expected.items() <= data_check.OFFICIAL_COUNTS.items()
    configs = {path.stem.removeprefix('cfg_') for path in (ROOT / 'configs').glob('cfg_*.py')}
    assert set(data_check.OFFICIAL_COUNTS) == configs
    assert set(data_check.SOURCES) == configs - {'shapes'}
    assert data_check.judge_count('voc21', 1449).verdict == 'ok'
    assert data_check.judge_count('context60', 5105).verdict == 'warning'
    assert data_check.judge_count('context60', 5103).verdict == 'error'
    assert 'trainval.txt' in data_check.judge_count('voc20', 2913).text


def test_defaults_are_those_of_test_all():
    script = (ROOT / 'test_all.sh').read_text()
    assert ' '.join(load_script(NAME).EIGHT) in script


@pytest.mark.parametrize('benchmark', FOLDERS)
def test_missing_folder(check: Check, tmp_path: Path, benchmark: str):
    code, printed = check(benchmark, '--data-root', tmp_path / 'nowhere')
    assert code == 1
    assert f'no data in {tmp_path / "nowhere"}' in printed
    assert '-> get ' in printed
    assert printed.splitlines()[-1].split() == [benchmark, '0', '0', '-', '-', 'error']


def test_one_of_two_is_missing(check: Check, tmp_path: Path, fine: Path):
    shutil.copytree(fine / 'voc', tmp_path / 'VOCdevkit/VOC2012')
    code, printed = check('city_scapes', 'voc21', '--data-root', tmp_path)
    assert code == 1
    assert f'prepare_cityscapes.py {tmp_path}/cityscapes' in printed
    assert [line.split()[-1] for line in printed.splitlines()[-2:]] == ['error', 'ok']


def test_missing_files(check: Check, copy: Callable):
    root = copy('coco_stuff164k')
    (root / 'annotations/val2017/000001_labelTrainIds.png').unlink()
    (root / 'images/val2017/000002.jpg').unlink()
    code, printed = check('coco_stuff164k', '--data-root', root)
    assert code == 1
    assert '1 pictures have no label map, such as' in printed
    assert '1 label maps have no picture, such as' in printed
    assert '2 pictures, the official number is 3' in printed
    assert f'prepare_coco_stuff164k.py {root} -o {root}' in printed

    root = copy('voc21')
    (root / 'JPEGImages/000000.jpg').unlink()
    code, printed = check('voc21', '--data-root', root)
    assert code == 1
    assert '1 pictures of the list are missing, such as' in printed


def test_no_labels_yet(check: Check, copy: Callable):
    """Cityscapes as unpacked: label ids, no training ids."""
    root = copy('city_scapes')
    for path in label_files(root):
        path.rename(path.with_name(path.name.replace('labelTrainIds', 'labelIds')))
    code, printed = check('city_scapes', '--data-root', root)
    assert code == 1
    assert '3 pictures have no label map' in printed
    assert f'python datasets/prepare_cityscapes.py {root}' in printed


def test_sizes(check: Check, copy: Callable):
    root = copy('ade20k')
    write_png(root / 'annotations/validation/000001.png', np.ones((128, 96)))
    code, printed = check('ade20k', '--data-root', root)
    assert code == 1
    assert '1 label maps differ in size from their pictures' in printed
    assert '000001.jpg and its label map: 128 x 97 and 128 x 96' in printed


@pytest.mark.parametrize('spoil', [lambda data: data[:-40], lambda data: b'no picture', lambda data: b''])
@pytest.mark.parametrize('which', ['images/validation/000001.jpg', 'annotations/validation/000001.png'])
def test_unreadable_files(check: Check, copy: Callable, which: str, spoil: Callable):
    root = copy('ade20k')
    (root / which).write_bytes(spoil((root / which).read_bytes()))
    code, printed = check('ade20k', '--data-root', root)
    assert code == 1
    assert (
        f'1 {"pictures" if which.endswith("jpg") else "label maps"} cannot be read, such as {root / which}' in printed
    )
    assert 'label values fit' in printed


def test_jpeg_that_is_cut_short(check: Check, copy: Callable):
    """Decoders fill its rest with grey, and say nothing."""
    root = copy('ade20k')
    path = root / 'images/validation/000001.jpg'
    with Image.open(path) as file:
        file.save(path, format='JPEG')
    assert check('ade20k', '--data-root', root)[0] == 0
    path.write_bytes(path.read_bytes()[:-200])
    code, printed = check('ade20k', '--data-root', root)
    assert code == 1
    assert f'1 pictures cannot be read, such as {path}: the file is cut short' in printed


def raw_cityscapes(label: np.ndarray) -> np.ndarray:
    ids = np.array([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33])
    return np.where(label == 255, 3, ids[np.minimum(label, 18)])


COCO_IDS = np.array([i for i in range(182) if i not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)])


def raw_stuff(label: np.ndarray) -> np.ndarray:
    return np.where(label == 255, 255, COCO_IDS[np.minimum(label, 170)])


def raw_stuff_10k(label: np.ndarray) -> np.ndarray:
    return np.where(np.isin(label, (0, 255)), 0, COCO_IDS[np.clip(label, 1, 171) - 1] + 1)


def one_higher(label: np.ndarray) -> np.ndarray:
    """COCO-Stuff 10k's ids; the last class is there for sure."""
    label = np.where(label == 255, 0, label + 1)
    label[0, 0] = 171
    return label


def reduced(label: np.ndarray) -> np.ndarray:
    """As MMSegmentation reduces label maps when it reads them."""
    return np.where(np.isin(label, (0, 255)), 255, label - 1)


def reduced_voc(label: np.ndarray) -> np.ndarray:
    """The same of maps that are mostly background, as VOC's are."""
    return reduced(np.where(np.arange(label.shape[1]) % 3, 0, label))


def stuff_in_object(label: np.ndarray) -> np.ndarray:
    return np.where(label > 70, 170, label)


def no_class(label: np.ndarray) -> np.ndarray:
    return np.where(label == label[0, 0], 200, label)


def ids_of_459(label: np.ndarray) -> np.ndarray:
    return np.where(label == 255, 0, label * 4)


@pytest.mark.parametrize(
    ('benchmark', 'change', 'words'),
    [
        ('city_scapes', raw_cityscapes, 'raw labelIds in place of labelTrainIds'),
        ('coco_stuff164k', raw_stuff, 'raw COCO-Stuff ids in place of training ids'),
        ('coco_stuff164k', one_higher, "COCO-Stuff 10k's ids, which are one higher"),
        ('coco_stuff10k', raw_stuff_10k, 'raw COCO-Stuff ids in place of training ids'),
        ('coco_stuff10k', reduced, 'look already reduced'),
        ('coco_object', stuff_in_object, "COCO-Stuff's ids in place of COCO-Object's"),
        ('context59', reduced, 'look already reduced'),
        ('context60', reduced, 'look already reduced'),
        ('context60', ids_of_459, 'ids of the 459 classes in place of the 59'),
        ('voc20', reduced_voc, 'look already reduced'),
        ('voc21', reduced_voc, 'look already reduced'),
        ('ade20k', reduced, 'look already reduced'),
        ('ade20k', no_class, 'label values 200 are no classes (expected 1-150'),
        ('voc21', no_class, 'label values 200 are no classes (expected 0-20'),
        ('voc21', lambda label: np.where(label == 255, 0, label), 'no pixel is ignored (255)'),
        ('ade20k', lambda label: label * 0, 'no pixel has a class'),
    ],
)
def test_wrong_values(check: Check, copy: Callable, benchmark: str, change: Callable, words: str):
    root = copy(benchmark)
    change_labels(root, change)
    code, printed = check(benchmark, '--data-root', root)
    assert code == 1
    [line] = [line for line in printed.splitlines() if line.startswith('  error')]
    assert words in line
    assert printed.splitlines()[-1].split()[-1] == 'error'


def test_mend_of_converted_labels_removes_them_first(check: Check, copy: Callable):
    root = copy('city_scapes')
    change_labels(root, raw_cityscapes)
    _, printed = check('city_scapes', '--data-root', root)
    mend = 'remove the files *_gtFine_labelTrainIds.png, then make them again: python datasets/prepare_cityscapes.py'
    assert f'{mend} {root}' in printed


def test_colours(check: Check, copy: Callable):
    root = copy('voc21')
    path = root / 'SegmentationClass/000001.png'
    Image.open(path).convert('RGB').save(path)
    code, printed = check('voc21', '--data-root', root)
    assert code == 1
    assert '1 label maps have colours' in printed
    assert f'such as {path}: RGB' in printed


def test_palette_is_no_colour(check: Check, copy: Callable):
    """VOC's own label maps have a palette."""
    root = copy('voc21')
    for path in label_files(root):
        with Image.open(path) as file:
            label = Image.fromarray(np.asarray(file))
        label.putpalette((np.arange(768) % 251).tolist())
        label.save(path)
    code, printed = check('voc21', '--data-root', root)
    assert code == 0, printed


def test_lists_for_training(check: Check, copy: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(data_check.OFFICIAL_COUNTS, 'voc21', 2)
    code, printed = check('voc21', '--data-root', copy('voc21'))
    assert code == 1
    assert 'the list is not val.txt' in printed


@pytest.mark.parametrize('how', ['link', 'many'])
def test_augmented_labels(check: Check, copy: Callable, how: str):
    root = copy('voc21')
    if how == 'link':
        (root / 'SegmentationClass').rename(root / 'SegmentationClassAug')
        (root / 'SegmentationClass').symlink_to('SegmentationClassAug')
    else:
        for i in range(2911):
            (root / f'SegmentationClass/x{i}.png').touch()
    code, printed = check('voc21', '--data-root', root)
    assert code == 0
    assert 'SegmentationClassAug?' in printed
    assert printed.splitlines()[-1].split()[-1] == 'warning'


def test_object_labels_made_from_training_ids():
    """Ceilings as toothbrushes; what is normal is no finding."""

    def scans(share: float) -> list[data_check.PairScan]:
        pixels = np.array([10_000 - share * 10_000, share * 10_000])
        return [data_check.PairScan(np.array([0, 80]), pixels)] * 200

    def judge(share: float, number: int = 200) -> list[data_check.Finding]:
        chosen = scans(share)[:number]
        return data_check.judge_things(chosen, data_check.add_counts(chosen))

    assert [finding.verdict for finding in judge(0.01)] == ['warning']
    assert not judge(0.0001)
    assert not judge(0.01, number=50)


def test_sample(check: Check, copy: Callable):
    """Only the first and the last label are looked at."""
    root = copy('ade20k')
    write_png(root / 'annotations/validation/000001.png', np.full((128, 97), 200))
    code, printed = check('ade20k', '--data-root', root, '--labels', 2)
    assert code == 0
    assert printed.splitlines()[-1].split()[:3] == ['ade20k', '3', '2']
    assert check('ade20k', '--data-root', root, '--labels', 3)[0] == 1


def test_wide_labels(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(data_check.OFFICIAL_COUNTS, 'ade847', 1)
    label = tmp_path / 'annotations_detectron2/validation/a.tif'
    picture = tmp_path / 'images_detectron2/validation/a.jpg'
    label.parent.mkdir(parents=True)
    picture.parent.mkdir(parents=True)
    Image.new('RGB', (3, 2)).save(picture)
    Image.fromarray(np.array([[0, 846, 65535], [1, 1, 255]], dtype=np.uint16)).save(label)
    code, printed = check('ade847', '--data-root', tmp_path)
    assert code == 0, printed
    assert '4/847' in printed
    assert 'ignored 16.7%' in printed
    Image.fromarray(np.array([[0, 847, 65535], [1, 1, 255]], dtype=np.uint16)).save(label)
    code, printed = check('ade847', '--data-root', tmp_path)
    assert code == 1
    assert 'label values 847 are no classes (expected 0-846, 65535 ignored)' in printed


@pytest.mark.slow
def test_shapes_brings_its_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv('NACLIP_CACHE', str(tmp_path))
    assert load_script(NAME).main(['shapes', '-j', '1']) == 0
    assert '200 pictures, the official number' in capsys.readouterr().out


def test_shared_files_are_read_once(check: Check, fine: Path, monkeypatch: pytest.MonkeyPatch):
    read = []
    whole = data_check.read_whole
    monkeypatch.setattr(data_check, 'read_whole', lambda path: read.append(path) or whole(path))
    check('voc21', 'voc20', '--data-root', fine / 'voc')
    assert len(read) == len(set(read)) == 6


@pytest.mark.slow
def test_as_a_process(tmp_path: Path, fine: Path):
    shutil.copytree(fine / 'voc', tmp_path / 'VOCdevkit/VOC2012')
    result = run(NAME, '--data-root', tmp_path, '-j', 2)
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert '3/3' in result.stderr  # the progress bar, of voc21 and voc20 together
    rows = [line.split()[0] for line in result.stdout.splitlines()[-8:]]
    assert rows == [
        'voc21',
        'context60',
        'coco_object',
        'voc20',
        'city_scapes',
        'context59',
        'ade20k',
        'coco_stuff164k',
    ]


@pytest.mark.parametrize('arguments', [['voc'], ['voc21', '--labels', '0']])
def test_usage(arguments: list[str]):
    result = run(NAME, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith('check.py: ')
    assert len(result.stderr.splitlines()) == 1
