"""Segmenting pictures from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from naclip.data.run_lengths import decode
from naclip.shapes import generator as shapes
from tools.segment import find_pictures, main, output_names

ROOT = Path(__file__).parents[2]
CLASSES = 'cat, frog; ball; grass; sky'
OPTIONS = ['--classes', CLASSES, '--backbone', 'shapes', '--device', 'cpu']


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels, _ = shapes.draw(np.random.RandomState(3), shapes.VAL_SIZE)
    Image.fromarray(pixels).save(tmp_path / 'garden.png')
    return tmp_path / 'garden.png'


def test_one_picture(picture, tmp_path, capsys):
    assert main([str(picture), *OPTIONS]) == 0
    out, err = capsys.readouterr()
    assert 'garden.png: ' in out
    assert '1 of 1 pictures segmented into segmented' in out
    assert err == ''
    files = {file.name for file in (tmp_path / 'segmented').iterdir()}
    assert files == {'garden_overlay.png', 'garden_labels.png'}
    with Image.open('segmented/garden_labels.png') as labels:
        assert labels.mode == 'P'
        assert labels.size == shapes.VAL_SIZE[::-1]
        shares = np.bincount(np.asarray(labels).ravel(), minlength=4) / np.asarray(labels).size
    assert f'{100 * shares.max():.1f} %' in out
    with Image.open('segmented/garden_overlay.png') as drawn:
        assert drawn.width > 320


def test_coco_json_is_of_the_label_map(picture, tmp_path):
    assert main([str(picture), *OPTIONS, '--coco-json']) == 0
    record = json.loads((tmp_path / 'segmented/garden_coco.json').read_text('utf-8'))
    assert [category['name'] for category in record['categories']] == ['cat', 'ball', 'grass', 'sky']
    (annotation,) = record['annotations']
    assert annotation['file_name'] == 'garden_labels.png'
    with Image.open(tmp_path / 'segmented' / annotation['file_name']) as file:
        labels = np.asarray(file)
    for segment in annotation['segments_info']:
        np.testing.assert_array_equal(decode(segment['segmentation'], *labels.shape), labels == segment['id'])
    assert sum(segment['area'] for segment in annotation['segments_info']) == labels.size


def test_scores_and_background(picture, tmp_path):
    options = ['--background', 'sky, water', '--scores', '-o', 'out', '--std', '3', '--pamr', 'off']
    assert main([str(picture), '--classes', 'cat; ball', *OPTIONS[2:], *options]) == 0
    names = sorted(file.name for file in (tmp_path / 'out').glob('*score*'))
    assert names == [f'garden_score_{name}.png' for name in ('000_background', '001_cat', '002_ball')]


def test_a_folder_with_good_and_bad_pictures(picture, tmp_path, capsys):
    folder = tmp_path / 'folder'
    folder.mkdir()
    with Image.open(picture) as image:
        image.save(folder / 'a.png')
        image.convert('CMYK').save(folder / 'a.jpg')
    (folder / 'broken.png').write_bytes((folder / 'a.png').read_bytes()[:3000])
    (folder / 'notes.txt').write_text('no picture')
    assert main([str(folder), 'missing.png', *OPTIONS, '-o', 'out']) == 1
    out, err = capsys.readouterr()
    assert '2 of 4 pictures segmented into out; 1 other files in the folders' in out
    assert 'cannot read' in err
    assert 'missing.png does not exist' in err
    assert f'2 failed: {folder / "broken.png"}, missing.png' in err
    assert sorted(file.name for file in Path('out').iterdir()) == [
        f'a.{suffix}_{kind}.png' for suffix in ('jpg', 'png') for kind in ('labels', 'overlay')
    ]


def test_classes_from_a_file(picture, tmp_path):
    (tmp_path / 'words.txt').write_text('cat, frog\nball\n')
    assert main([str(picture), '--classes-file', 'words.txt', *OPTIONS[2:]]) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['empty', *OPTIONS], 'folder empty has no picture in it'),
        (['garden.png', '--classes', '', *OPTIONS[2:]], 'there is none'),
        (['garden.png', '--classes', 'cat;;dog', *OPTIONS[2:]], 'a class has no name'),
        (['garden.png', '--classes', 'cat; cat', *OPTIONS[2:]], "'cat' belongs to two classes"),
        (['garden.png', '--classes-file', 'no.txt', *OPTIONS[2:]], 'class-name file no.txt does not exist'),
        (['garden.png', *OPTIONS[:2], '--backbone', 'ViT-Z'], 'ViT-Z'),
        (['garden.png', *OPTIONS, '--prob-thd', '0.3'], 'needs a background'),
        (['garden.png', *OPTIONS, '--templates', 'no.txt'], 'prompt-template file no.txt does not exist'),
        (['garden.png', *OPTIONS, '--device', 'abacus'], 'abacus'),
    ],
)
def test_refused_in_one_line_and_nothing_written(picture, tmp_path, capsys, arguments, message):
    (tmp_path / 'empty').mkdir()
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == ''
    assert message in err
    assert err.startswith('segment.py: ')
    assert err.count('\n') == 1
    assert not Path('segmented').exists()


def test_output_names_never_meet():
    paths = [Path(p) for p in ('x/a.png', 'x/a.jpg', 'y/a.jpg', 'b.png', 'y/a.jpg-2.png')]
    names = output_names(paths)
    assert names == ['a.png', 'a.jpg', 'a.jpg-2', 'b', 'a.jpg-2-2']
    assert len(set(names)) == len(paths)


def test_a_picture_given_twice_is_segmented_once(picture):
    assert find_pictures([picture, picture.parent])[0] == [picture]


@pytest.mark.slow
def test_as_a_process(picture):
    command = [sys.executable, str(ROOT / 'tools' / 'segment.py'), str(picture), *OPTIONS]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {'OMP_NUM_THREADS': '1'})
    assert (result.returncode, result.stderr) == (0, '')
    assert Path('segmented/garden_overlay.png').is_file()
