"""Class-name files, and what follows from a class having several names.

Q names (synonyms included), K classes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from naclip.names import did_you_mean

Query = str | tuple[str, ...]  # one text, or several that share an embedding


def best(names: tuple[str, ...]) -> tuple[Query, ...]:
    """Each name is a query of its own; the best of them counts."""
    return names


def mean(names: tuple[str, ...]) -> tuple[Query, ...]:
    """The names share one text embedding."""
    return (names,)


def joined(names: tuple[str, ...]) -> tuple[Query, ...]:
    """All names, with commas between them, are one text."""
    return (', '.join(names),)


SYNONYMS: Mapping[str, Callable[[tuple[str, ...]], tuple[Query, ...]]] = {
    way.__name__: way for way in (best, mean, joined)
}


@dataclass(frozen=True)
class Vocabulary:
    """The names of every class, in class order.

    `synonyms`, of SYNONYMS, tells how they become the Q queries, each of which gets a text embedding. `separator` is
    what stood between names in the file they were read from: ',', ';', or '' where there was neither.

    Raises:
        ValueError: an unknown way; lists the valid ones.
    """

    classes: tuple[tuple[str, ...], ...]
    synonyms: str = 'best'
    separator: str = field(default='', compare=False, repr=False)

    def __post_init__(self):
        if self.synonyms not in SYNONYMS:
            meant = did_you_mean(self.synonyms, SYNONYMS)
            raise ValueError(f'synonyms is {self.synonyms!r}: choose from {", ".join(SYNONYMS)}{meant}')

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, class by class."""
        return tuple(name for synonyms in self.classes for name in synonyms)

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """The Q queries, class by class."""
        return tuple(query for names in self.classes for query in SYNONYMS[self.synonyms](names))

    @cached_property
    def query_idx(self) -> tuple[int, ...]:
        """The class of each of the Q queries."""
        return tuple(i for i, names in enumerate(self.classes) for _ in SYNONYMS[self.synonyms](names))

    def __len__(self) -> int:
        return len(self.classes)


def read_vocabulary(path: str | os.PathLike) -> Vocabulary:
    """Read a class-name file: one class a line, synonyms separated by commas or by semicolons.

    In a file without any ';', commas separate. A line with ';' is split there only: its commas belong to the names.
    So in a file with ';' in some line, a line with ',' but without ';' may be synonyms or one name with a comma: it is
    refused. A ';' at its end makes it one name.

    A byte-order mark, CRLF, stray spaces, a separator too many and blank lines at the end are forgiven.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no class in it, a blank line between classes, a line without a name, a line that cannot be told, or
            not UTF-8.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'class-name file {path} does not exist; name_path must point to a text file')
    try:
        lines = path.read_text(encoding='utf-8-sig').rstrip().split('\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'class-name file {path} is not UTF-8 text ({error}); save it as UTF-8') from None
    if lines == ['']:
        raise ValueError(
            f'class-name file {path} is empty; expected one class a line, commas or semicolons between synonyms'
        )
    separator = next((mark for mark in ';,' if any(mark in line for line in lines)), '')
    classes = []
    for number, line in enumerate(lines, 1):
        synonyms = tuple(name for name in map(str.strip, line.split(separator or ',')) if name)
        if not synonyms:
            raise ValueError(f'class-name file {path}, line {number}: no name on it; every line is one class, in order')
        if separator == ';' and ',' in line and ';' not in line:
            other = next(i for i, text in enumerate(lines, 1) if ';' in text)
            raise ValueError(
                f"class-name file {path}, line {number}: {line.strip()!r} has ',' but no ';', which line {other} has: "
                "cannot tell synonyms from one name with a comma; put ';' between synonyms, or after the one name"
            )
        classes.append(synonyms)
    return Vocabulary(tuple(classes), separator=separator)


def parse_classes(classes: str | Sequence[str | Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """'cat, kitten; dog' -> (('cat', 'kitten'), ('dog',)): semicolons separate classes, commas synonyms.

    Also from a sequence of classes, each a text or a sequence of names.

    Raises:
        ValueError: no class, or a class without a name.
    """
    items = classes
    if isinstance(classes, str):
        text = classes.strip().removesuffix(';')
        items = text.split(';') if text else ()
    parsed = []
    for item in items:
        names = item.split(',') if isinstance(item, str) else item
        parsed.append(tuple(name for name in map(str.strip, names) if name))
    if not parsed or not all(parsed):
        raise ValueError(
            f'classes {classes!r}: {"a class has no name" if parsed else "there is none"}; expected names such as '
            "'cat, kitten; dog', semicolons between classes, commas between synonyms"
        )
    return tuple(parsed)


def unknown_names(names: Sequence[str], words: frozenset[str] | None) -> list[str]:
    """The names with a word that is not among the known `words`; none where any word may be known (None)."""
    return [] if words is None else [name for name in names if not set(name.lower().split()) <= words]


def check_class_count(vocabulary: Vocabulary, path: str | os.PathLike, class_names: Sequence[str]) -> None:
    """Make sure that a vocabulary names every class of a data set.

    Raises:
        ValueError: the counts differ; has both numbers and the file.
    """
    if len(vocabulary) != len(class_names):
        raise ValueError(
            f'class-name file {path} has {len(vocabulary)} classes, the data set has {len(class_names)} '
            f'({class_names[0]!r} to {class_names[-1]!r}); give it one line a class, in that order'
        )


def merge_synonyms(scores: Tensor, query_idx: Sequence[int]) -> Tensor:
    """Scores of names (B, Q, H, W) -> of classes (B, K, H, W): the best of a class's names.

    `query_idx` (Q,) is the class of each name, ascending from 0.
    """
    return merge_synonyms_(scores.clone(), query_idx)


def merge_synonyms_(scores: Tensor, query_idx: Sequence[int]) -> Tensor:
    """As `merge_synonyms`, but the result is the first K of `scores`, which are overwritten."""
    counts = torch.bincount(torch.as_tensor(query_idx)).tolist()
    if len(counts) < scores.shape[1]:
        first = 0  # of the class's names; never before the class's own place, so nothing is lost that is still needed
        for k, count in enumerate(counts):
            if count > 1:
                scores[:, k] = scores[:, first : first + count].amax(dim=1)
            elif first != k:
                scores[:, k] = scores[:, first]
            first += count
    return scores[:, : len(counts)]
