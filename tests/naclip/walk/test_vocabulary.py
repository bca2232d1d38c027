"""Class-name files and the merging of synonyms."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from naclip.walk.vocabulary import (
    Vocabulary,
    check_class_count,
    merge_synonyms,
    merge_synonyms_,
    parse_classes,
    read_vocabulary,
)

NAMES = (
    st.text(
        st.characters(
            codec='utf-8', exclude_categories=('C', 'Z'), include_characters=' ', exclude_characters=',;\ufeff'
        ),
        min_size=1,
        max_size=12,
    )
    .map(str.strip)
    .filter(bool)
)
NAMES_WITH_COMMAS = st.builds(''.join, st.lists(NAMES | st.just(', '), min_size=1, max_size=4)).map(str.strip)


def some_classes(names: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(names, min_size=1, max_size=4), min_size=1, max_size=6)


SPACES = st.sampled_from(['', ' ', '  ', '\t', '\u3000'])


def written(text: str, bom: bool = False) -> Vocabulary:
    """The vocabulary of a file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'names.txt'
        path.write_bytes(text.encode('utf-8-sig' if bom else 'utf-8'))
        return read_vocabulary(path)


@given(
    classes=some_classes(NAMES),
    bom=st.booleans(),
    newline=st.sampled_from(['\n', '\r\n']),
    blank_lines=st.integers(0, 3),
    space=SPACES,
    separator=st.sampled_from([',', ', ', ' ,', ' ,, ']),
    end=st.sampled_from(['', ',', ' , ']),
)
def test_round_trip(classes, bom, newline, blank_lines, space, separator, end):
    lines = [space + separator.join(names) + end + space for names in classes]
    text = newline.join(lines) + newline * blank_lines + space
    vocabulary = written(text, bom)
    assert vocabulary.classes == tuple(map(tuple, classes))
    assert vocabulary.separator == (',' if ',' in text else '')
    assert len(vocabulary) == len(classes)
    assert list(zip(vocabulary.query_idx, vocabulary.names, strict=True)) == [
        (i, name) for i, names in enumerate(classes) for name in names
    ]


@given(
    classes=some_classes(NAMES_WITH_COMMAS),
    bom=st.booleans(),
    newline=st.sampled_from(['\n', '\r\n']),
    blank_lines=st.integers(0, 3),
    space=SPACES,
    separator=st.sampled_from([';', '; ', ' ;', ' ;; ']),
    end=st.sampled_from(['', ';', ' ; ']),
)
def test_round_trip_by_semicolons(classes, bom, newline, blank_lines, space, separator, end):
    """Names may have commas; one name alone that has some ends with a semicolon."""
    lines = [separator.join(names) + end for names in classes]
    lines = [space + line + (';' if ',' in line and ';' not in line else '') + space for line in lines]
    text = newline.join(lines) + newline * blank_lines + space
    vocabulary = written(text, bom)
    assert vocabulary.classes == tuple(map(tuple, classes))
    assert vocabulary.separator == (';' if ';' in text else '')


@given(classes=some_classes(NAMES), mark=st.sampled_from(';,'))
def test_both_separators_read_the_same(classes, mark):
    assert written('\n'.join(map(f'{mark} '.join, classes))) == Vocabulary(tuple(map(tuple, classes)))


@pytest.mark.parametrize(
    ('text', 'classes', 'separator'),
    [
        ('sky; wall\nbuilding, edifice; house\ncat', (('sky', 'wall'), ('building, edifice', 'house'), ('cat',)), ';'),
        ('building, edifice;\ncat', (('building, edifice',), ('cat',)), ';'),
        ('; cat ;; kitten ;\ndog;', (('cat', 'kitten'), ('dog',)), ';'),
        ('cat, kitten\ndog', (('cat', 'kitten'), ('dog',)), ','),
        ('cat,\ndog', (('cat',), ('dog',)), ','),
        ('cat\ndog', (('cat',), ('dog',)), ''),
    ],
)
def test_separators(text, classes, separator):
    vocabulary = written(text)
    assert (vocabulary.classes, vocabulary.separator) == (classes, separator)
    assert parse_classes(vocabulary.classes) == classes  # as the API takes the names of a file
    assert replace(vocabulary, synonyms='mean').separator == separator


def test_a_line_that_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match=r'names\.txt, line 3') as caught:
        written('cat\nsky; wall\n building, edifice \nbed, cot\nsea; lake\n')
    message = str(caught.value)
    assert "'building, edifice' has ',' but no ';', which line 2 has:" in message
    assert "put ';' between synonyms, or after the one name" in message
    assert '\n' not in message


def test_voc21_as_golden(voc21, golden):
    assert len(voc21) == 21
    assert list(voc21.query_idx) == golden['query_idx'].tolist()
    assert voc21.classes[0][0] == 'sky'
    assert voc21.classes[20] == ('television monitor', 'tv monitor', 'monitor', 'television', 'screen')


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.txt does not exist'):
        read_vocabulary(tmp_path / 'none.txt')
    with pytest.raises(FileNotFoundError):
        read_vocabulary(tmp_path)  # a folder


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'\xef\xbb\xbf \r\n \n', 'is empty'),
        (b'cat\n\ndog\n', 'line 2: no name'),
        (b'\ncat\n', 'line 1: no name'),
        (b'cat\n , ,\n', 'line 2: no name'),
        (b'cat; kitten\n ; ;\n', 'line 2: no name'),
        (b'caf\xe9\n', 'is not UTF-8'),
        ('cat'.encode('utf-16'), 'is not UTF-8'),
    ],
)
def test_unusable_file(tmp_path, content, message):
    path = tmp_path / 'names.txt'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'names\.txt.*{message}'):
        read_vocabulary(path)


def test_class_count():
    vocabulary = Vocabulary((('cat', 'kitten'), ('dog',)))
    check_class_count(vocabulary, 'names.txt', ['cat', 'dog'])
    with pytest.raises(ValueError, match=r"names\.txt has 2 classes, the data set has 3 \('a' to 'c'\)"):
        check_class_count(vocabulary, 'names.txt', ['a', 'b', 'c'])


@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    batch=st.integers(1, 3),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    as_tensor=st.booleans(),
    seed=st.integers(0, 99),
)
def test_merge_synonyms_as_brute_force(counts, batch, height, width, as_tensor, seed):
    query_idx = [i for i, count in enumerate(counts) for _ in range(count)]
    scores = torch.randn(batch, len(query_idx), height, width, generator=torch.Generator().manual_seed(seed))
    merged = merge_synonyms(scores, torch.tensor(query_idx) if as_tensor else query_idx)
    assert merged.shape == (batch, len(counts), height, width)
    for b in range(batch):
        for k in range(len(counts)):
            for y in range(height):
                for x in range(width):
                    best = max(float(scores[b, q, y, x]) for q, owner in enumerate(query_idx) if owner == k)
                    assert merged[b, k, y, x] == best
    in_place = merge_synonyms_(scores, query_idx)
    assert torch.equal(in_place, merged)
    assert in_place.data_ptr() == scores.data_ptr()


def test_merge_synonyms_leaves_the_scores():
    scores = torch.rand(1, 3, 2, 2)
    before = scores.clone()
    merge_synonyms(scores, [0, 0, 1])
    assert torch.equal(scores, before)


def test_names_together():
    apart = Vocabulary((('cat',), ('tv', 'screen')))
    assert (apart.queries, apart.query_idx) == (('cat', 'tv', 'screen'), (0, 1, 1))
    together = Vocabulary(apart.classes, synonyms='mean')
    assert (together.queries, together.query_idx) == ((('cat',), ('tv', 'screen')), (0, 1))
    assert together.names == apart.names
    joined = Vocabulary(apart.classes, synonyms='joined')
    assert (joined.queries, joined.query_idx) == (('cat', 'tv, screen'), (0, 1))
    with pytest.raises(ValueError, match="synonyms is 'worst': choose from best, mean, joined"):
        Vocabulary(apart.classes, synonyms='worst')
    with pytest.raises(ValueError, match=r'did you mean joined\?$'):
        Vocabulary(apart.classes, synonyms='joint')
