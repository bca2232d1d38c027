"""What may go wrong with class names, against brute force."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clip.tokenizer import tokenize
from naclip.walk import wording
from naclip.walk.vocabulary import Vocabulary

NAMES = st.text('ab Ü_', min_size=1, max_size=3).filter(str.strip)
CLASSES = st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=5).map(tuple)


@given(CLASSES)
def test_repeats_are_all_that_is_there_twice(classes):
    places = [(' '.join(name.lower().split()), i) for i, names in enumerate(classes) for name in names]
    expected = {a[0] for a, b in combinations(places, 2) if a[0] == b[0]}
    found = wording.repeats(Vocabulary(classes))
    assert set(found) == expected
    for name, owners in found.items():
        assert owners == [i for other, i in places if other == name]


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('traffic_light', ['an underscore: write a space']),
        ('tv  set', ['two spaces in a row']),
        ('caf\u00e9', ["'é' (LATIN SMALL LETTER E WITH ACUTE)"]),
        ('a\tb', ["'\\t' (control character)"]),
        ('man’s hat', ["'’' (RIGHT SINGLE QUOTATION MARK)"]),
        ("man's hat, 3", []),
    ],
)
def test_oddities(name, said):
    assert wording.oddities(name) == said


@given(st.text('abcdefgh .', min_size=1, max_size=60))
def test_tokens_are_those_of_the_tokenizer(text):
    row = tokenize(text, 77)[0]
    assert wording.count_tokens(text) == int(row.argmax()) - 1


def test_too_long_names_the_longest_prompt():
    templates = ('a {}.', 'a photo of the very large {}.')
    name = 'cat ' * 70
    [long] = wording.too_long(['dog', name.strip()], templates)
    assert (long.name, long.template) == (name.strip(), templates[1])
    assert long.tokens == 70 + 7 + 2
    with pytest.raises(ValueError, match=f'needs {long.tokens} tokens'):
        tokenize(templates[1].replace('{}', name))
    assert wording.too_long(['cat ' * 68], templates) == []  # 77 tokens: it just fits
    assert tokenize(templates[1].replace('{}', 'cat ' * 68)).argmax() == 76


@given(st.integers(0, 100), st.integers(1, 40))
def test_nearest_pairs_are_those_of_brute_force(seed, count):
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(8, 5, generator=generator), dim=-1)
    owners = [0, 0, 1, 2, 2, 2, 3, 4]
    pairs = [(i, j) for i, j in combinations(range(8), 2) if owners[i] != owners[j]]
    pairs.sort(key=lambda pair: -float(embeddings[pair[0]] @ embeddings[pair[1]]))
    found = wording.nearest_pairs(embeddings, owners, count)
    assert [(i, j) for i, j, _ in found] == pairs[:count]
    for i, j, cosine in found:
        assert cosine == pytest.approx(float(embeddings[i] @ embeddings[j]), abs=1e-6)


def test_nearest_pairs_of_one_class():
    assert wording.nearest_pairs(torch.eye(2), [0, 0], 5) == []


def test_compare():
    mine = Vocabulary((('sky',), ('Cat', 'kitten'), ('dog', 'puppy'), ('bird',)))
    theirs = Vocabulary((('cat',), ('sky', 'air'), ('fish',), ('bird',)))
    difference = wording.compare(mine, theirs)
    assert difference.added == ['dog']
    assert difference.removed == ['fish']
    assert difference.moved == [('sky', 0, 1), ('cat', 1, 0)]
    assert difference.renamed == [('sky', [], ['air']), ('cat', ['kitten'], [])]


@given(CLASSES)
def test_the_same_vocabulary_does_not_differ(classes):
    assert wording.compare(Vocabulary(classes), Vocabulary(classes)) == wording.Difference([], [], [], [])
