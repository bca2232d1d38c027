"""Print the table of methods, made from METHODS: python tools/methods.py, or --short, as the README has it"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser

# A column's head -> what it says of a method, where `about` says where the method is from.
COLUMNS: Mapping[str, Callable] = {
    '`--method`': lambda method: f'`{method.name}`',
    'method': lambda method: method.about.title,
    'what it reads': lambda method: method.about.reads,
    'published in': lambda method: method.about.paper,
    'code it was held against': lambda method: method.about.code,
    'licence of that': lambda method: method.about.licence,
    'protocol': lambda method: f'`{method.protocol}`',
}
SHORT = ('`--method`', 'method', 'published in')


def table(heads: tuple[str, ...] = tuple(COLUMNS)) -> str:
    """A row a method, as Markdown."""
    from naclip.methods import METHODS  # takes seconds: only once the options are known to be good

    rows = [heads, ['---'] * len(heads), *([COLUMNS[head](method) for head in heads] for method in METHODS)]
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


if __name__ == '__main__':
    parser = OneLineParser(description=__doc__)
    parser.add_argument('--short', action='store_true', help='names and papers only')
    print(table(SHORT) if parser.parse_args().short else table())
