"""COCO-Object labels from generated miniature raw labels."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.data import coco_stuff

SCRIPT = Path(__file__).resolve().parents[2] / 'datasets' / 'cvt_coco_object.py'

# COCO's category ids as its instance annotations list them.
# fmt: off
COCO_CATEGORY_IDS = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 27, 28, 31, 32, 33, 34,
    35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
    64, 65, 67, 70, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82, 84, 85, 86, 87, 88, 89, 90,
]
# fmt: on
EXPECTED = np.array([COCO_CATEGORY_IDS.index(i) + 1 if i in COCO_CATEGORY_IDS else 0 for i in range(1, 257)])
RAW_IDS = np.array([*(i - 1 for i in COCO_CATEGORY_IDS), *range(91, 182), 255], dtype=np.uint8)


@pytest.fixture(scope='module')
def cvt():
    spec = importlib.util.spec_from_file_location('cvt_coco_object', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write_label(path, label):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(label, dtype=np.uint8)).save(path, compress_level=0)


def make_split(root, split, count=6, labels='annotations', size=(14, 19), seed=0):
    """Raw labels that together hold every raw id, and a picture for each."""
    rng = np.random.default_rng(seed)
    maps = {}
    for number in range(count):
        stem = f'{number + 1:012d}'
        maps[stem] = rng.choice(RAW_IDS, size=size)
        maps[stem].flat[: len(RAW_IDS)] = RAW_IDS
        write_label(root / labels / split / f'{stem}.png', maps[stem])
        picture = root / 'images' / split / f'{stem}.jpg'
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (19, 14), (number, 0, 0)).save(picture)
    return maps


def check_split(out, split, maps):
    folder = out / 'annotations' / split
    outputs = {path.name for path in folder.iterdir() if path.name.endswith('_instanceTrainIds.png')}
    assert outputs == {f'{stem}_instanceTrainIds.png' for stem in maps}
    for stem, raw in maps.items():
        with Image.open(folder / f'{stem}_instanceTrainIds.png') as picture:
            assert picture.mode == 'L'
            np.testing.assert_array_equal(np.asarray(picture), EXPECTED[raw])
    assert not list(out.rglob('*.tmp'))


def tree(folder):
    """Every path under a folder with its time and size, to see whether anything was touched."""
    stats = ((path, path.lstat()) for path in sorted(folder.rglob('*')))
    return {str(path): (stat.st_mtime_ns, stat.st_ino, stat.st_size) for path, stat in stats if not path.is_dir()}


def run(*args, **options):
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, **options)


def check_refused(result, *words, code=1):
    assert result.returncode == code
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert str(word) in lines[0]


def test_table():
    assert len(COCO_CATEGORY_IDS) == 80
    table = coco_stuff.object_ids()
    assert table.dtype == np.uint8
    assert table.shape == (256,)
    np.testing.assert_array_equal(table, EXPECTED)
    assert [table[0], table[10], table[12], table[89], table[91], table[181], table[255]] == [1, 11, 12, 80, 0, 0, 0]


def test_unused_ids():
    assert sorted(coco_stuff.UNUSED_IDS) == sorted(set(range(91)) - {i - 1 for i in COCO_CATEGORY_IDS})


@pytest.mark.parametrize('workers', [1, 2])
def test_val_alone(tmp_path, workers):
    root, out = tmp_path / 'stuff', tmp_path / 'deep' / 'object'
    maps = make_split(root, 'val2017', count=40)
    result = run(root, '-o', out, '--workers', workers)
    assert result.returncode == 0, result.stderr
    assert '40/40' in result.stderr  # the progress bar
    assert '40 converted, 0 skipped' in result.stdout
    check_split(out, 'val2017', maps)
    assert not (out / 'annotations' / 'train2017').exists()
    assert not (out / 'images' / 'train2017').exists()


def test_both_splits(cvt, tmp_path, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    val = make_split(root, 'val2017', count=3)
    train = make_split(root, 'train2017', count=7, seed=1)
    assert cvt.main([str(root), '-o', str(out), '--workers', '2']) == 0
    check_split(out, 'val2017', val)
    check_split(out, 'train2017', train)
    printed = capsys.readouterr().out
    assert 'val2017: 3 converted' in printed
    assert 'train2017: 7 converted' in printed


def test_one_split_of_two(cvt, tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    train = make_split(root, 'train2017', seed=1)
    assert cvt.main([str(root), '-o', str(out), '--splits', 'train2017', '--workers', '1']) == 0
    check_split(out, 'train2017', train)
    assert sorted(path.name for path in out.glob('*/*')) == ['train2017', 'train2017']


def test_default_output_is_the_data_root(tmp_path):
    maps = make_split(tmp_path / 'stuff', 'val2017')
    assert run('stuff', cwd=tmp_path).returncode == 0
    check_split(tmp_path / 'data' / 'coco_object', 'val2017', maps)
    assert len(list((tmp_path / 'data' / 'coco_object' / 'images' / 'val2017').glob('*.jpg'))) == 6


def test_folder_named_as_in_the_zip(cvt, tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017', labels='stuffthingmaps')
    write_label(root / 'annotations' / 'val2017' / '000000000001_labelTrainIds.png', [[11]])
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    check_split(out, 'val2017', maps)


def test_annotations_before_stuffthingmaps(cvt, tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017', labels='stuffthingmaps', seed=1)
    maps = make_split(root, 'val2017')
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    check_split(out, 'val2017', maps)


def test_labels_of_a_split_without_pictures_are_left_out(cvt, tmp_path, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017')
    write_label(root / 'annotations' / 'train2017' / '000000000009.png', [[0, 91]])
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    check_split(out, 'val2017', maps)
    assert 'train2017: left out' in capsys.readouterr().out
    check_refused(run(root, '-o', out, '--splits', 'train2017'), 'train2017', 'no pictures')


def test_pictures_without_label_are_named(cvt, tmp_path, capsys):
    root = tmp_path / 'stuff'
    make_split(root, 'val2017')
    (root / 'annotations' / 'val2017' / '000000000003.png').unlink()
    assert cvt.main([str(root), '-o', str(tmp_path / 'object'), '--workers', '1']) == 0
    assert '1 pictures have no label, such as 000000000003.jpg' in capsys.readouterr().out


def test_palette_label(cvt, tmp_path):
    """Indices of a palette are ids as they are."""
    image = Image.fromarray(RAW_IDS[None])
    image.putpalette((np.arange(768) % 251).tolist())
    image.save(tmp_path / 'raw.png')
    cvt.convert_label(tmp_path / 'raw.png', tmp_path / 'done.png')
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'done.png')), EXPECTED[RAW_IDS][None])


def test_mixed_folder(cvt, tmp_path):
    """Converted labels beside the raw ones are no inputs, and stay as they are."""
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017')
    for stem in maps:
        write_label(root / 'annotations' / 'val2017' / f'{stem}_labelTrainIds.png', [[11, 82]])
        write_label(root / 'annotations' / 'val2017' / f'{stem}_instanceTrainIds.png', [[11, 80]])
    before = tree(root)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    check_split(out, 'val2017', maps)
    assert tree(root) == before


def test_output_is_the_input(cvt, tmp_path, capsys):
    root = tmp_path / 'stuff'
    maps = make_split(root, 'val2017')
    before = tree(root)
    assert cvt.main([str(root), '-o', str(root / 'images' / '..'), '--workers', '1']) == 0
    check_split(root, 'val2017', maps)
    after = tree(root)
    assert {path: after[path] for path in before} == before
    assert not (root / 'images' / 'val2017').is_symlink()
    assert cvt.main([str(root), '-o', str(root), '--workers', '1']) == 0
    assert '0 converted, 6 skipped' in capsys.readouterr().out
    assert tree(root) == after


def test_second_run_changes_nothing(cvt, tmp_path, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    assert cvt.main([str(root), '-o', str(out), '--workers', '2']) == 0
    before = tree(out)
    capsys.readouterr()
    assert cvt.main([str(root), '-o', str(out), '--workers', '2']) == 0
    assert tree(out) == before
    assert 'val2017: 0 converted, 6 skipped (already there), pictures already in place' in capsys.readouterr().out


def test_restart_after_partial_output(cvt, tmp_path, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017')
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    folder = out / 'annotations' / 'val2017'
    outputs = sorted(folder.iterdir())
    outputs[0].unlink()
    outputs[1].write_bytes(outputs[1].read_bytes()[:-20])
    outputs[2].write_bytes(b'')
    (folder / f'.{outputs[0].name}.4711.tmp').write_bytes(b'half')
    kept = outputs[3].stat()
    capsys.readouterr()
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    assert '3 converted, 3 skipped' in capsys.readouterr().out
    check_split(out, 'val2017', maps)
    assert (outputs[3].stat().st_ino, outputs[3].stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_restart_after_kill(tmp_path, workers):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017', count=60, size=(400, 400))
    folder = out / 'annotations' / 'val2017'
    command = [sys.executable, str(SCRIPT), str(root), '-o', str(out), '--workers', str(workers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600
    while not list(folder.glob('0*.png')):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=600)  # returns when the workers, who share the pipes, have ended too
    assert process.returncode == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob('0*.png')}
    assert 0 < len(done) < len(maps)
    result = run(root, '-o', out)
    assert result.returncode == 0, result.stderr
    assert f'{len(maps) - len(done)} converted, {len(done)} skipped' in result.stdout
    assert {name: (folder / name).stat().st_mtime_ns for name in done} == done
    check_split(out, 'val2017', maps)


def test_interrupt(tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017', count=60, size=(400, 400))
    command = [sys.executable, str(SCRIPT), str(root), '-o', str(out), '--workers', '2']
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not list(out.glob('annotations/val2017/0*.png')):
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C reaches every process of the group
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert 'Traceback' not in errors
    assert errors.splitlines()[-1] == 'stopped: run again to go on'
    assert not list(out.rglob('*.tmp'))


def test_pictures_are_linked_not_copied(cvt, tmp_path, monkeypatch):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    monkeypatch.chdir(tmp_path)
    assert cvt.main(['stuff', '-o', 'object', '--workers', '1']) == 0
    link = out / 'images' / 'val2017'
    assert link.is_symlink()
    monkeypatch.chdir('/')
    assert link.samefile(root / 'images' / 'val2017')


@pytest.mark.parametrize('link', ['split', 'images'])
def test_right_links_stay(cvt, tmp_path, link):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    if link == 'split':
        (out / 'images').mkdir(parents=True)
        path, text = out / 'images' / 'val2017', '../../stuff/images/val2017'
    else:
        out.mkdir()
        path, text = out / 'images', '../stuff/images'
    path.symlink_to(text)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    assert os.readlink(path) == text


def test_empty_picture_folder_becomes_a_link(cvt, tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    (out / 'images' / 'val2017').mkdir(parents=True)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    assert (out / 'images' / 'val2017').is_symlink()


def refuse(*_args, **_options):
    raise OSError('not on this file system')


def test_hard_links_where_symlinks_fail(cvt, tmp_path, monkeypatch, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    picture = root / 'images' / 'val2017' / '000000000002.jpg'
    picture.rename(root / 'elsewhere.jpg')
    picture.symlink_to('../../elsewhere.jpg')
    monkeypatch.setattr(os, 'symlink', refuse)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    pictures = sorted((out / 'images' / 'val2017').iterdir())
    assert len(pictures) == 6
    assert all(path.samefile(root / 'images' / 'val2017' / path.name) for path in pictures)
    assert not any(path.is_symlink() for path in pictures)
    assert '6 by hard links, 0 copied' in capsys.readouterr().out


def test_copies_as_the_last_resort(cvt, tmp_path, monkeypatch, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    monkeypatch.setattr(os, 'symlink', refuse)
    monkeypatch.setattr(os, 'link', refuse)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    printed = capsys.readouterr()
    assert '0 by hard links, 6 copied' in printed.out
    assert 'pictures of val2017: 100%' in printed.err
    folder = out / 'images' / 'val2017'
    (folder / '000000000002.jpg').unlink()
    (folder / '.000000000002.jpg.4711.tmp').write_bytes(b'half')
    before = tree(folder)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 0
    assert '1 copied, 5 already in place' in capsys.readouterr().out
    after = tree(folder)
    assert [name for name in after if after[name] != before.get(name)] == [str(folder / '000000000002.jpg')]
    assert not list(folder.glob('.*'))
    for path in folder.iterdir():
        assert path.read_bytes() == (root / 'images' / 'val2017' / path.name).read_bytes()


@pytest.mark.parametrize('suffix', ['_instanceTrainIds', '_labelTrainIds'])
def test_only_converted_labels(tmp_path, suffix):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    for path in (root / 'annotations' / 'val2017').iterdir():
        path.rename(path.with_name(f'{path.stem}{suffix}.png'))
    check_refused(run(root, '-o', out), 'val2017 holds only converted labels', 'stuffthingmaps_trainval2017.zip')
    assert not out.exists()


def test_already_converted_under_raw_names(tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017')
    for stem, raw in maps.items():
        write_label(root / 'annotations' / 'val2017' / f'{stem}.png', EXPECTED[raw])
    result = run(root, '-o', out)
    check_refused(result, '000000000001.png', 'id 11', 'already converted', 'stuffthingmaps_trainval2017.zip')
    assert not out.exists()


def test_one_converted_split_stops_the_other(tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    make_split(root, 'train2017')
    write_label(root / 'annotations' / 'train2017' / '000000000004.png', [[11]])
    check_refused(run(root, '-o', out), root / 'annotations' / 'train2017' / '000000000004.png', 'id 11')
    assert not out.exists()


@pytest.mark.parametrize(('count', 'code'), [(19, 0), (20, 1)])
def test_labels_without_stuff(cvt, tmp_path, capsys, count, code):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    for stem in make_split(root, 'val2017', count=count):
        write_label(root / 'annotations' / 'val2017' / f'{stem}.png', [[0, 1, 255]])
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == code
    assert out.exists() == (code == 0)
    assert ('no stuff (ids 91-181) in 20 labels' in capsys.readouterr().err) == (code == 1)


def test_bad_label_past_the_sample_stops_the_run(tmp_path):
    """What the sample missed is found by a worker, and what was written by then is whole."""
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    maps = make_split(root, 'val2017', count=401, size=(160, 160))
    write_label(root / 'annotations' / 'val2017' / '000000000002.png', [[90]])
    coco_stuff.check_sample(coco_stuff.find_labels(root, 'val2017'))
    result = run(root, '-o', out, '--workers', '2')
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert '000000000002.png holds id 90' in result.stderr.splitlines()[-1]
    written = {path.name[:12] for path in (out / 'annotations' / 'val2017').iterdir()}
    assert 0 < len(written) < 250
    check_split(out, 'val2017', {stem: maps[stem] for stem in written})
    assert not (out / 'images').exists()


@pytest.mark.parametrize('value', [182, 254])
def test_ids_above_stuff(tmp_path, value):
    make_split(tmp_path / 'stuff', 'val2017')
    label = tmp_path / 'stuff' / 'annotations' / 'val2017' / '000000000003.png'
    write_label(label, [[0, value, 255]])
    check_refused(run(tmp_path / 'stuff', '-o', tmp_path / 'object'), label, f'id {value}')
    assert not (tmp_path / 'object').exists()


def broken_bytes(path):
    return path.write_bytes(b'no picture')


def cut_bytes(path):
    return path.write_bytes(path.read_bytes()[:100])


def empty_bytes(path):
    return path.write_bytes(b'')


def jpeg_bytes(path):
    return Image.new('L', (4, 4)).save(path, format='JPEG')


@pytest.mark.parametrize('spoil', [broken_bytes, cut_bytes, empty_bytes, jpeg_bytes])
def test_undecodable_label(tmp_path, spoil):
    make_split(tmp_path / 'stuff', 'val2017')
    label = tmp_path / 'stuff' / 'annotations' / 'val2017' / '000000000003.png'
    spoil(label)
    check_refused(run(tmp_path / 'stuff', '-o', tmp_path / 'object'), label, 'cannot be decoded')
    assert not (tmp_path / 'object').exists()


@pytest.mark.parametrize('mode', ['RGB', 'LA', 'RGBA', 'I;16', '1'])
def test_label_of_another_kind(cvt, tmp_path, mode):
    label = tmp_path / 'raw.png'
    Image.new(mode, (4, 4)).save(label)
    with pytest.raises(ValueError, match=r'raw\.png is not a single-channel 8-bit map'):
        cvt.convert_label(label, tmp_path / 'done.png')
    assert list(tmp_path.iterdir()) == [label]


def test_failed_write_leaves_nothing(cvt, tmp_path, monkeypatch, capsys):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')

    def fill_disk(_image, path, **_options):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(Image.Image, 'save', fill_disk)
    assert cvt.main([str(root), '-o', str(out), '--workers', '1']) == 1
    assert 'No space left on device' in capsys.readouterr().err.splitlines()[-1]
    assert not list((out / 'annotations' / 'val2017').iterdir())


def test_missing_folders(tmp_path):
    out = tmp_path / 'object'
    check_refused(run(tmp_path / 'nowhere', '-o', out), 'nowhere is not a folder')
    (tmp_path / 'empty').mkdir()
    check_refused(run(tmp_path / 'empty', '-o', out), 'no raw labels')
    make_split(tmp_path / 'stuff', 'val2017')
    check_refused(run(tmp_path / 'stuff', '-o', out, '--splits', 'val2017', 'train2017'), 'no raw labels of train2017')
    for picture in (tmp_path / 'stuff' / 'images' / 'val2017').iterdir():
        picture.unlink()
    check_refused(run(tmp_path / 'stuff', '-o', out), 'images/val2017', 'no pictures')
    assert not out.exists()


def test_output_in_the_way(tmp_path):
    root, out = tmp_path / 'stuff', tmp_path / 'object'
    make_split(root, 'val2017')
    (tmp_path / 'file').touch()
    check_refused(run(root, '-o', tmp_path / 'file'), 'file is not a folder')
    check_refused(run(root, '-o', tmp_path / 'file' / 'below'), tmp_path / 'file')
    (out / 'images').mkdir(parents=True)
    link = out / 'images' / 'val2017'
    for target in (tmp_path, tmp_path / 'gone'):
        link.symlink_to(target)
        check_refused(run(root, '-o', out), link, 'remove it')
        link.unlink()
    link.touch()
    check_refused(run(root, '-o', out), link, 'remove it')
    assert not (out / 'annotations').exists()


@pytest.mark.parametrize(
    'arguments', [[], ['x', '--workers', '0'], ['x', '--workers', 'two'], ['x', '--splits', 'test']]
)
def test_usage(arguments):
    check_refused(run(*arguments), 'cvt_coco_object.py: ', 'see --help', code=2)
