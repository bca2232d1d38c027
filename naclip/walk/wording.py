"""What may go wrong with class names: repeats, strange characters, length, names that mean nearly the same.

K classes; Q names, class by class.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip.tokenizer import CONTEXT_LENGTH, default_tokenizer
from naclip.walk.vocabulary import Vocabulary

ENDS = 2  # tokens for start and end


def normalised(name: str) -> str:
    """A name as the tokenizer sees it: case and spacing do not count."""
    return ' '.join(name.lower().split())


def repeats(vocabulary: Vocabulary) -> dict[str, list[int]]:
    """The names that are there more than once, each with its classes, in order; a class twice has it twice."""
    places = defaultdict(list)
    for index, names in enumerate(vocabulary.classes):
        for name in names:
            places[normalised(name)].append(index)
    return {name: classes for name, classes in places.items() if len(classes) > 1}


def oddities(name: str) -> list[str]:
    """What is unusual in a name: characters that are no part of plain English words."""
    found = ['an underscore: write a space'] if '_' in name else []
    found += ['two spaces in a row'] if '  ' in name else []
    strange = dict.fromkeys(char for char in name if not (char.isascii() and char.isprintable()))
    found += [f'{char!r} ({unicodedata.name(char, "control character")})' for char in strange]
    return found


def count_tokens(text: str) -> int:
    """The tokens of a text, without start and end."""
    return len(default_tokenizer().encode(text))


@dataclass(frozen=True)
class TooLong:
    """A name that does not fit into a prompt template, and the tokens that both take together."""

    name: str
    template: str
    tokens: int


def too_long(names: Sequence[str], templates: Sequence[str], context_length: int = CONTEXT_LENGTH) -> list[TooLong]:
    """The names that are too long for the text tower in some template, each with the longest prompt."""
    found = []
    for name in names:
        tokens, template = max((count_tokens(t.replace('{}', name)) + ENDS, t) for t in templates)
        if tokens > context_length:
            found.append(TooLong(name, template, tokens))
    return found


def nearest_pairs(embeddings: Tensor, query_idx: Sequence[int], count: int) -> list[tuple[int, int, float]]:
    """The names of different classes whose text embeddings (Q, C), unit vectors, are most alike: (i, j, cosine)."""
    classes = torch.as_tensor(query_idx, device=embeddings.device)
    cosines = embeddings @ embeddings.T
    apart = torch.triu(classes[:, None] != classes, diagonal=1)
    values, places = cosines.masked_fill(~apart, -torch.inf).flatten().topk(min(count, int(apart.sum())))
    rows, columns = places.div(len(classes), rounding_mode='floor').tolist(), (places % len(classes)).tolist()
    return list(zip(rows, columns, values.tolist(), strict=True))


@dataclass(frozen=True)
class Difference:
    """How a vocabulary differs from another: classes by their first name, or (name, here, there)."""

    added: Sequence[str]
    removed: Sequence[str]
    moved: Sequence[tuple[str, int, int]]  # place here, place there
    renamed: Sequence[tuple[str, Sequence[str], Sequence[str]]]  # synonyms here only, synonyms there only


def compare(vocabulary: Vocabulary, other: Vocabulary) -> Difference:
    """What changed against another vocabulary. Classes are the same if their first names are."""
    mine, theirs = (
        {normalised(names[0]): (place, names) for place, names in reversed(list(enumerate(v.classes)))}
        for v in (vocabulary, other)
    )
    common = sorted((name for name in mine if name in theirs), key=lambda name: mine[name][0])
    changed = []
    for name in common:
        here, there = ([normalised(n) for n in side[name][1]] for side in (mine, theirs))
        if set(here) != set(there):
            changed.append((name, [n for n in here if n not in there], [n for n in there if n not in here]))
    return Difference(
        added=[name for name in sorted(mine, key=lambda name: mine[name][0]) if name not in theirs],
        removed=[name for name in sorted(theirs, key=lambda name: theirs[name][0]) if name not in mine],
        moved=[(name, mine[name][0], theirs[name][0]) for name in common if mine[name][0] != theirs[name][0]],
        renamed=changed,
    )
