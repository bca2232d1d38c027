"""Look over a class-name file: vocabulary.py FILE [--against OTHER] [--backbone NAME]"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import HINT, available_models
from naclip.cli import OneLineParser, add_form, answer, positive

if TYPE_CHECKING:
    from naclip.walk.vocabulary import Vocabulary

SHOWN = 10  # of anything there may be many of
SEPARATORS = {',': 'synonyms by commas', ';': 'synonyms by semicolons'}


def some(items: Sequence[str]) -> str:
    """The first of the items, and how many more there are."""
    more = f' and {len(items) - SHOWN} more' if len(items) > SHOWN else ''
    return ', '.join(items[:SHOWN]) + more


def look_over(vocabulary: 'Vocabulary', templates: Sequence[str]) -> Iterator[str]:
    """Counts, and warnings of what may be a mistake, line by line."""
    from naclip.walk import wording

    names, classes = vocabulary.names, vocabulary.classes
    several = len(names) > len(classes)
    yield (
        f'{len(classes)} classes, {len(names)} names, '
        f'{SEPARATORS.get(vocabulary.separator, "synonyms") if several else "one name a class"}'
    )
    largest = sorted(((len(c), c[0]) for c in classes if len(c) > 1), key=lambda item: -item[0])
    if largest:
        yield f'most names: {some([f"{name} {count}" for count, name in largest])}'
    tokens = {name: wording.count_tokens(name) for name in names}
    longest = sorted(tokens, key=lambda name: -tokens[name])
    yield f'tokens a name: {min(tokens.values())} to {max(tokens.values())}, in the mean {mean(tokens):.1f}'
    yield f'longest: {some([f"{name} {tokens[name]}" for name in islice(longest, SHOWN)])}'
    for name, places in wording.repeats(vocabulary).items():
        lines = ', '.join(f'{place + 1} ({classes[place][0]})' for place in dict.fromkeys(places))
        where = 'twice in line' if len(set(places)) == 1 else 'in several classes, lines'
        yield f'warning: {name!r} is {where} {lines}'
    for number, (name, *others) in enumerate(classes, 1):
        if vocabulary.separator == ';' and ',' in name and not others:
            yield f"warning: line {number} is one name, {name!r}: it has ';', so its commas do not separate"
    for name in names:
        for oddity in wording.oddities(name):
            yield f'warning: {name!r} has {oddity}'
    for long in wording.too_long(names, templates):
        yield (
            f'warning: {long.name!r} does not fit into {long.template!r}: {long.tokens} tokens of '
            f'{wording.CONTEXT_LENGTH}; no evaluation will start with it'
        )


def mean(tokens: dict[str, int]) -> float:
    """The mean of the values."""
    return sum(tokens.values()) / len(tokens)


def changes(vocabulary: 'Vocabulary', other: 'Vocabulary', path: Path) -> Iterator[str]:
    """What is different from another vocabulary, line by line."""
    from naclip.walk import wording

    difference = wording.compare(vocabulary, other)
    yield f'against {path}: {len(vocabulary)} classes, there {len(other)}'
    if len(vocabulary) != len(other):
        yield 'warning: a benchmark takes one of the two only, as classes are told by their line'
    if difference.added:
        yield f'new classes: {some(difference.added)}'
    if difference.removed:
        yield f'classes no longer there: {some(difference.removed)}'
    if difference.moved:
        yield f'moved (line): {some([f"{name} {there + 1} -> {here + 1}" for name, here, there in difference.moved])}'
    for name, here, there in difference.renamed:
        parts = [f'new {", ".join(here)}'] if here else []
        parts += [f'gone {", ".join(there)}'] if there else []
        yield f'names of {name}: {"; ".join(parts)}'
    if not (difference.added or difference.removed or difference.moved or difference.renamed):
        yield 'the same classes and names'


def nearest(vocabulary: 'Vocabulary', templates: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The names of different classes that a backbone finds most alike, line by line."""
    from clip import load_checkpoint
    from clip.weights import known_words
    from naclip.walk import wording
    from naclip.walk.text import cached_text_embeddings
    from naclip.walk.vocabulary import unknown_names

    net, _, checkpoint = load_checkpoint(
        options.backbone, options.device, 'auto', options.download_root, options.activation, options.head_width
    )
    unknown = unknown_names(vocabulary.names, known_words(checkpoint.metadata))
    if unknown:
        yield f'warning: {options.backbone} has never seen {some(unknown)}; these are not compared'
    known = [(index, name) for index, names in enumerate(vocabulary.classes) for name in names if name not in unknown]
    if not known:
        return
    places, names = zip(*known, strict=True)
    embeddings = cached_text_embeddings(net, checkpoint.sha256, names, templates, progress=sys.stderr.isatty())
    first = [vocabulary.classes[place][0] for place in places]
    shown = [name if name == owner else f'{name} [{owner}]' for name, owner in zip(names, first, strict=True)]
    yield f'most alike to {options.backbone}, and so likely to be confused (cosine):'
    for i, j, cosine in wording.nearest_pairs(embeddings.float(), places, options.top):
        yield f'  {cosine:.3f}  {shown[i]} - {shown[j]}'


def main(argv: Sequence[str] | None = None) -> int:
    parser = OneLineParser(description='Look over a class-name file: repeats, lengths, names that will be confused.')
    add = parser.add_argument
    add('file', type=Path, metavar='FILE', help="one class a line, synonyms separated by commas or by ';'")
    add('--against', type=Path, metavar='OTHER', help='tell what is different from this class-name file')
    add('--backbone', help=f'compare text embeddings of one of {", ".join(available_models())}, or {HINT}')
    add_form(parser)
    add('--templates', type=Path, metavar='FILE', help='prompt templates; default: the 80 of CLIP')
    add('--top', type=positive, default=15, metavar='N', help='pairs of names shown; default: %(default)s')
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--download-root', metavar='DIR', help='where known backbones are kept; default: ~/.cache/clip')
    options = parser.parse_args(argv)
    return answer('vocabulary.py', lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Print what the options ask for.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
    # These take seconds: only once the options are known to be good.
    from naclip.walk.text import DEFAULT_TEMPLATES, read_templates
    from naclip.walk.vocabulary import read_vocabulary

    vocabulary, templates = read_vocabulary(options.file), read_templates(options.templates or DEFAULT_TEMPLATES)
    for line in look_over(vocabulary, templates):
        print(line)
    if options.against:
        for line in changes(vocabulary, read_vocabulary(options.against), options.against):
            print(line)
    if options.backbone:
        for line in nearest(vocabulary, templates, options):
            print(line)


if __name__ == '__main__':
    sys.exit(main())
