"""CLIP's byte-pair encoding of lower-cased text (Sennrich et al., 2016, over bytes as in GPT-2).

The merge list `bpe_merges.txt.gz` is data of OpenAI's CLIP (MIT licence): one merge a line, in order of rank.
"""

import gzip
import html
from functools import cache
from itertools import pairwise
from pathlib import Path

import ftfy
import regex
import torch
from torch import Tensor

MERGES_FILE = Path(__file__).with_name('bpe_merges.txt.gz')
CONTEXT_LENGTH = 77
VOCABULARY = 49408  # ids of the tokenizer
START, END = '<|startoftext|>', '<|endoftext|>'
_WORDS = regex.compile(
    rf"{regex.escape(START)}|{regex.escape(END)}|'s|'t|'re|'ve|'m|'ll|'d|\p{{L}}+|\p{{N}}|[^\s\p{{L}}\p{{N}}]+",
    regex.IGNORECASE,
)


class Tokenizer:
    """Texts to token ids. `ids` maps every token to its id; the two special tokens come last."""

    def __init__(self, merges_file: Path = MERGES_FILE):
        merges = [tuple(line.split()) for line in gzip.decompress(merges_file.read_bytes()).decode().splitlines()]
        letters = list(_byte_letters().values())
        tokens = letters + [letter + '</w>' for letter in letters] + [''.join(pair) for pair in merges] + [START, END]
        self.ids = {token: i for i, token in enumerate(tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._known = {START: (self.ids[START],), END: (self.ids[END],)}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without the start and end tokens."""
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        return [i for word in _WORDS.findall(' '.join(text.split()).lower()) for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            *letters, last = (_byte_letters()[byte] for byte in word.encode())
            parts = [*letters, last + '</w>']
            while len(parts) > 1:
                pair = min(pairwise(parts), key=lambda p: self._ranks.get(p, len(self._ranks)))
                if pair not in self._ranks:
                    break
                parts = _merge(parts, pair)
            self._known[word] = tuple(self.ids[part] for part in parts)
        return self._known[word]


def tokenize(texts: str | list[str], context_length: int = CONTEXT_LENGTH, truncate: bool = False) -> Tensor:
    """Token ids of texts, with start and end tokens, padded with zeros: int64 (len(texts), context_length).

    Raises:
        ValueError: a text needs more than `context_length` tokens and `truncate` is off; names the text.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    tokenizer = default_tokenizer()
    start, end = tokenizer.ids[START], tokenizer.ids[END]
    result = torch.zeros(len(texts), context_length, dtype=torch.long)
    for row, text in zip(result, texts, strict=True):
        ids = [start, *tokenizer.encode(text), end]
        if len(ids) > context_length:
            if not truncate:
                raise ValueError(
                    f'the text {text!r} needs {len(ids)} tokens, the text tower reads {context_length}; '
                    'shorten it, or pass truncate=True'
                )
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = torch.tensor(ids)
    return result


@cache
def default_tokenizer() -> Tokenizer:
    """The tokenizer of all published CLIP models, read once."""
    return Tokenizer()


@cache
def _byte_letters() -> dict[int, str]:
    """A printable letter for every byte: itself where it is printable, else one from U+0100 on."""
    printable = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """`parts` with every occurrence of `pair`, from the left, made one part."""
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if tuple(parts[i : i + 2]) == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged
