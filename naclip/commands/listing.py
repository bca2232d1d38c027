"""What there is: methods, benchmarks, protocols, backbones and guides, with where they come from and under which terms.

Attentions and architectures are those of the last block, for methods that have these constants.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from clip.releases import BUNDLED, BUNDLED_GUIDES, GUIDES, RELEASES
from naclip.cli import OneLineParser
from naclip.files import REPOSITORY
from naclip.names import unknown
from naclip.protocols import PROTOCOLS

OWN_LICENCE = 'Apache-2.0'
# Terms of the data, as docs/data.md has them; the page of a data set has the last word.
FLICKR, COCO, ADE = (
    'Flickr terms of use',
    'annotations CC BY 4.0, pictures Flickr terms of use',
    'research and education',
)
TERMS = {
    'voc': FLICKR,
    'context': FLICKR,
    'coco': COCO,
    'ade': f'non-commercial {ADE}',
    'city_scapes': 'non-commercial, with registration',
    'shapes': OWN_LICENCE,
}
Rows = list[dict[str, object]]


def benchmark_names() -> list[str]:
    """The benchmarks that have a config here."""
    return sorted(path.stem.removeprefix('cfg_') for path in (REPOSITORY / 'configs').glob('cfg_*.py'))


# Imports within functions take seconds.


def methods() -> Rows:
    from naclip.methods import METHODS

    return [
        {
            'name': method.name,
            'source': PROTOCOLS[method.protocol].source,
            'protocol': method.protocol,
            'constants': method.constants,
            'pamr': method.pamr,
            'licence': OWN_LICENCE,
        }
        for method in METHODS
    ]


def benchmarks() -> Rows:
    from naclip.data.check import OFFICIAL_COUNTS, SOURCES

    return [
        {
            'name': name,
            'config': f'configs/cfg_{name}.py',
            'pictures': OFFICIAL_COUNTS.get(name),
            'source': SOURCES[name].archives if name in SOURCES else None,
            'licence': next((terms for start, terms in TERMS.items() if name.startswith(start)), None),
        }
        for name in benchmark_names()
    ]


def protocols() -> Rows:
    return [
        {
            'name': name,
            'source': protocol.source,
            'methods': list(protocol.methods),
            'benchmarks': list(protocol.benchmarks) if protocol.closed else 'all',
        }
        for name, protocol in PROTOCOLS.items()
    ]


def backbones() -> Rows:
    released = [
        {'name': name, 'source': release.url, 'licence': 'MIT (OpenAI CLIP)', 'sha256': release.sha256}
        for name, release in RELEASES.items()
    ]
    return released + [{'name': name, 'source': 'comes with the toolkit', 'licence': OWN_LICENCE} for name in BUNDLED]


def guides() -> Rows:
    published = [{'name': name, 'source': guide.url, 'licence': None} for name, guide in GUIDES.items()]
    return published + [
        {'name': name, 'source': 'comes with the toolkit', 'licence': OWN_LICENCE} for name in BUNDLED_GUIDES
    ]


def attentions() -> Rows:
    from naclip.walk.attention import ATTENTION_FORMS

    return _described(ATTENTION_FORMS)


def architectures() -> Rows:
    from naclip.methods.last_block import ARCHITECTURES

    return _described(ARCHITECTURES)


def _described(functions: Mapping[str, Callable]) -> Rows:
    return [{'name': name, 'is': inspect.getdoc(function).splitlines()[0]} for name, function in functions.items()]


LISTS: Mapping[str, Callable[[], Rows]] = {
    listing.__name__: listing
    for listing in (methods, benchmarks, protocols, backbones, guides, attentions, architectures)
}


def text_of(value: object) -> str:
    if isinstance(value, Mapping):
        return ' '.join(f'{key}={item}' for key, item in value.items()) or '-'
    if isinstance(value, list):
        return ' '.join(map(str, value)) or '-'
    return '-' if value is None else str(value)


def table(rows: Rows) -> str:
    """Aligned columns, without those that only --json shows."""
    columns = [key for key in rows[0] if key not in ('constants', 'config', 'pamr')]
    lines = [columns, *([text_of(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    padded = ('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return '\n'.join(map(str.rstrip, padded))


def main(argv: Sequence[str] | None = None, prog: str = 'naclip ls') -> int:
    parser: argparse.ArgumentParser = OneLineParser(prog=prog, description=__doc__)
    parser.add_argument('what', metavar='WHAT', help=', '.join(LISTS))
    parser.add_argument('--json', action='store_true', help='with everything known, for programs')
    options = parser.parse_args(argv)
    if options.what not in LISTS:
        parser.error(unknown('list', options.what, LISTS))
    rows = LISTS[options.what]()
    try:
        print(json.dumps(rows, indent=1, ensure_ascii=False) if options.json else table(rows))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough
        sys.stdout = None
    return 0
