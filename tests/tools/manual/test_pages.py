"""Pages of the manual: links, markers, notebooks."""

import base64
import re

import pytest

from tests.conftest import ROOT
from tools.manual.pages import INCLUDED, notebook_markdown, origin, place, with_links, with_markers

PAGES = [
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'docs').rglob('*.md')),
    *(path for path in INCLUDED if path.endswith('.md')),
]


@pytest.mark.parametrize('path', [*INCLUDED, 'docs/data.md', 'docs/reference/lists.md'])
def test_places(path: str):
    assert origin(place(path)) == path
    assert (ROOT / path).is_file()


def test_what_the_site_has_not():
    assert place('naclip/api.py') is None


@pytest.mark.parametrize(
    ('path', 'given', 'expected'),
    [
        ('README.md', '[data](docs/data.md#shapes)', '[data](data.md#shapes)'),
        ('README.md', '![it](docs/shapes.png) <img src="docs/app.png">', '![it](shapes.png) <img src="app.png">'),
        ('README.md', '[it](docs/reference/lists.md) [here](#methods)', '[it](reference/lists.md) [here](#methods)'),
        ('CONTRIBUTING.md', '[start](README.md)', '[start](index.md)'),
        ('docs/rooms.md', '[how](../CONTRIBUTING.md)', '[how](contributing.md)'),
        ('docs/shapes.md', '[a notebook](shapes.ipynb)', '[a notebook](notebook.md)'),
        ('docs/reference/lists.md', '[up](../data.md) [beside](commands.md)', '[up](../data.md) [beside](commands.md)'),
        ('docs/reference/lists.md', '[start](../../README.md)', '[start](../index.md)'),
        (
            'docs/data.md',
            '[far](https://a.org/b.md) [to](mailto:a@b)',
            '[far](https://a.org/b.md) [to](mailto:a@b)',
        ),
    ],
)
def test_links(path: str, given: str, expected: str):
    assert with_links(given, path) == expected


def test_a_link_out_of_the_site():
    message = r'^docs/walk.md links to \.\./naclip/api\.py, which the site does not have: name the file without a link$'
    with pytest.raises(ValueError, match=message):
        with_links('[code](../naclip/api.py)', 'docs/walk.md')


@pytest.mark.parametrize('path', PAGES)
def test_links_work_in_the_repository(path: str):
    text = (ROOT / path).read_text(encoding='utf-8')
    for target in re.findall(r'(?:\]\(|src=")([^)"#\s]+)', re.sub(r'(?s)```.*?```|`[^`\n]*`', '', text)):
        if '://' not in target:
            assert ((ROOT / path).parent / target).is_file(), f'{path}: {target}'


def test_markers():
    text = 'before\n\n<!-- table: commands -->\n\nafter'
    filled = with_markers(text)
    assert filled.startswith('before\n\n| command |')
    assert filled.endswith('|\n\nafter')
    hinted = 'before\n\n<!-- table: commands -->\n*`naclip --help` has it.*\n\nafter'
    assert with_markers(hinted) == filled
    assert with_markers('`<!-- table: NAME -->` is a marker') == '`<!-- table: NAME -->` is a marker'
    assert with_markers('<!-- a comment -->') == '<!-- a comment -->'
    with pytest.raises(ValueError, match=r"unknown table 'comands'.*did you mean commands"):
        with_markers('<!-- table: comands -->')


def test_a_notebook_as_markdown():
    picture = base64.b64encode(b'PNG').decode()
    outputs = {
        '1 + 1': {'output_type': 'execute_result', 'data': {'text/plain': ['2']}},
        'show()': {'data': {'image/png': picture, 'text/plain': ['<Figure>']}},
        'table()': {'data': {'text/markdown': '| a |', 'text/plain': 'x'}},
        'print(3)': {'output_type': 'stream', 'text': ['3\n']},
    }
    cells = [
        {'cell_type': 'markdown', 'source': ['# Title\n', 'text']},
        *({'cell_type': 'code', 'source': source, 'outputs': [output]} for source, output in outputs.items()),
        {'cell_type': 'code', 'source': 'x = 1', 'outputs': []},
    ]
    text, pictures = notebook_markdown({'cells': cells}, 'page')
    assert pictures == {'page-0.png': b'PNG'}
    assert text.split('\n\n') == [
        *('# Title\ntext', '```python\n1 + 1\n```', '```text\n2\n```'),
        *('```python\nshow()\n```', '![Output of the cell above](page-0.png)'),
        *('```python\ntable()\n```', '| a |', '```python\nprint(3)\n```', '```text\n3\n```', '```python\nx = 1\n```\n'),
    ]
