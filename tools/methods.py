"""Print the table of methods of the README, made from METHODS: python tools/methods.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser

HEADER = (
    '`--method`',
    'method',
    'what it reads',
    'published in',
    'code it was held against',
    'licence of that',
    'protocol',
)


def table() -> str:
    """A row a method, as Markdown."""
    from naclip.methods import METHODS  # takes seconds: only once the options are known to be good

    rows = [HEADER, ['---'] * len(HEADER)]
    for method in METHODS:
        about = method.about
        origin = (about.paper, about.code, about.licence)
        rows.append((f'`{method.name}`', about.title, about.reads, *origin, f'`{method.protocol}`'))
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


if __name__ == '__main__':
    OneLineParser(description=__doc__).parse_args()
    print(table())
