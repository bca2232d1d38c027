"""Looking over class-name files from the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.vocabulary import main

SHAPES = str(ROOT / 'configs' / 'cls_shapes.txt')


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding='utf-8')
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('cls_*.txt')), ids=lambda path: path.stem)
def test_own_files_are_usable(path, capsys):
    assert main([str(path)]) == 0
    assert 'no evaluation will start' not in capsys.readouterr().out


def test_warnings(tmp_path, capsys):
    path = write(tmp_path / 'words.txt', f'cat, kitten, Cat\ntraffic_light\ndog, kitten\n{"very " * 90}big\n')
    assert main([path]) == 0
    out = capsys.readouterr().out
    assert '4 classes, 7 names' in out
    assert 'most names: cat 3, dog 2' in out
    assert "warning: 'cat' is twice in line 1 (cat)" in out
    assert "warning: 'kitten' is in several classes, lines 1 (cat), 3 (dog)" in out
    assert "warning: 'traffic_light' has an underscore: write a space" in out
    assert 'tokens of 77; no evaluation will start with it' in out


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('cat, kitten\ndog', '2 classes, 3 names, synonyms by commas'),
        ('building, edifice; house\ndog', '2 classes, 3 names, synonyms by semicolons'),
        ('cat\ndog;', '2 classes, 2 names, one name a class'),
    ],
)
def test_separator_is_said(tmp_path, capsys, text, expected):
    assert main([write(tmp_path / 'words.txt', text)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == expected
    assert 'is one name' not in out


def test_a_semicolon_that_makes_commas_part_of_a_name(tmp_path, capsys):
    assert main([write(tmp_path / 'words.txt', 'dog\ncat, kitten;\n')]) == 0
    out = capsys.readouterr().out
    assert out.startswith('2 classes, 2 names, one name a class\n')
    assert "warning: line 2 is one name, 'cat, kitten': it has ';', so its commas do not separate" in out


def test_separators_do_not_count_as_changes(tmp_path, capsys):
    other = write(tmp_path / 'other.txt', 'cat, kitten\ndog\n')
    mine = write(tmp_path / 'mine.txt', 'cat; kitten\ndog\n')
    assert main([mine, '--against', other]) == 0
    assert 'the same classes and names' in capsys.readouterr().out


def test_what_changed(tmp_path, capsys):
    other = write(tmp_path / 'other.txt', 'cat\ndog\nfish, carp\n')
    mine = write(tmp_path / 'mine.txt', 'dog\ncat, kitten\nfish\nbird\n')
    assert main([mine, '--against', other]) == 0
    out = capsys.readouterr().out
    assert '4 classes, there 3' in out
    assert 'new classes: bird' in out
    assert 'moved (line): dog 2 -> 1, cat 1 -> 2' in out
    assert 'names of cat: new kitten' in out
    assert 'names of fish: gone carp' in out
    assert main([mine, '--against', mine]) == 0
    assert 'the same classes and names' in capsys.readouterr().out


def test_nearest_by_a_backbone(tmp_path, capsys):
    assert main([SHAPES, '--backbone', 'shapes', '--top', '3', '--device', 'cpu']) == 0
    lines = capsys.readouterr().out.splitlines()
    pairs = lines[lines.index('most alike to shapes, and so likely to be confused (cosine):') + 1 :]
    cosines = [float(line.split()[0]) for line in pairs]
    assert len(cosines) == 3
    assert cosines == sorted(cosines, reverse=True)
    assert 0 < cosines[0] < 1


def test_words_that_the_backbone_has_never_seen_are_not_compared(tmp_path, capsys):
    path = write(tmp_path / 'words.txt', 'cat, aardvark\nzebra\ncar\n')
    assert main([path, '--backbone', 'shapes', '--device', 'cpu']) == 0
    out = capsys.readouterr().out
    assert 'warning: shapes has never seen aardvark, zebra; these are not compared' in out
    assert 'cat - car' in out
    assert 'zebra -' not in out
    assert '- zebra' not in out


@pytest.mark.parametrize(
    ('text', 'options', 'message'),
    [
        (None, [], 'does not exist'),
        ('', [], 'is empty'),
        ('cat\n,\ndog', [], 'line 2: no name on it'),
        ('cat; kitten\nsky, air', [], "line 2: 'sky, air' has ',' but no ';'"),
        ('cat', ['--backbone', 'ViT-Z'], 'ViT-Z'),
        ('cat', ['--against', 'nowhere.txt'], 'nowhere.txt does not exist'),
        ('cat', ['--templates', 'nowhere.txt'], 'nowhere.txt does not exist'),
    ],
)
def test_refused_in_one_line(tmp_path, capsys, text, options, message):
    path = tmp_path / 'words.txt'
    if text is not None:
        write(path, text)
    assert main([str(path), *options]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith('vocabulary.py: ')
    assert err.count('\n') == 1


@pytest.mark.slow
def test_as_a_process_and_free_of_mmseg():
    code = (
        f'import sys; sys.argv = ["vocabulary.py", {SHAPES!r}]; sys.path.insert(0, {str(ROOT)!r}); import runpy\n'
        f'try: runpy.run_path({str(ROOT / "tools" / "vocabulary.py")!r}, run_name="__main__")\n'
        'except SystemExit as end: assert not end.code\n'
        'assert "mmseg" not in sys.modules and "mmengine" not in sys.modules'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=dict(os.environ))
    assert (result.returncode, result.stderr) == (0, '')
    assert '20 classes, 20 names' in result.stdout
