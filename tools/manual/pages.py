"""Pages of the manual: files of the repository under their place in the site, markers filled, notebooks as Markdown.

Paths are relative to the repository, with slashes: 'docs/data.md'.
"""

import base64
import posixpath
import re
from collections.abc import Mapping

from tools.manual.tables import help_of, named_table

# Files that are pages though they lie elsewhere, or are no Markdown -> their place in the site.
INCLUDED = {
    'README.md': 'index.md',
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'SECURITY.md': 'security.md',
    'docs/shapes.ipynb': 'notebook.md',
}
_LINK = re.compile(r'(?P<before>\]\(|\b(?:src|href)=")(?P<target>[^)"#\s]+)')
_MARKER = re.compile(r'^<!-- (?P<kind>table|help): (?P<name>[^>]+?) -->(?:\n\*.*\*)?$', re.MULTILINE)
MARKERS = {'table': named_table, 'help': help_of}


def place(path: str) -> str | None:
    """Where the site has a file of the repository; None where it has not."""
    if path in INCLUDED:
        return INCLUDED[path]
    return path.removeprefix('docs/') if path.startswith('docs/') else None


def origin(page: str) -> str:
    """The file of the repository that a page of the site is made from."""
    return next((path for path, included in INCLUDED.items() if included == page), f'docs/{page}')


def with_links(markdown: str, path: str) -> str:
    """The Markdown of a file with its links between files of the repository turned to links within the site.

    Raises:
        ValueError: a link to a file that the site does not have.
    """
    here = posixpath.dirname(place(path))

    def turned(match: re.Match) -> str:
        target = match['target']
        if '://' in target or target.startswith('mailto:'):
            return match[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        there = place(file)
        if there is None:
            raise ValueError(f'{path} links to {target}, which the site does not have: name the file without a link')
        return match['before'] + posixpath.relpath(there, here or '.')

    return _LINK.sub(turned, markdown)


def with_markers(markdown: str) -> str:
    """The Markdown with tables and help texts in place of their markers, lines of `<!-- table: methods -->`.

    A line in italics below a marker is for those who read the file as it is, and goes with it.

    Raises:
        ValueError: a marker for something that is not there.
    """
    return _MARKER.sub(lambda match: MARKERS[match['kind']](match['name']), markdown)


# Notebooks.


def notebook_markdown(notebook: Mapping, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook's cells and their outputs as Markdown; its pictures by file name, which begins with `name`."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook['cells']:
        text = _joined(cell['source'])
        parts.append(text if cell['cell_type'] == 'markdown' else f'```python\n{text}\n```')
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            if 'image/png' in data:
                file = f'{name}-{len(pictures)}.png'
                pictures[file] = base64.b64decode(data['image/png'])
                parts.append(f'![Output of the cell above]({file})')
            elif 'text/markdown' in data:
                parts.append(_joined(data['text/markdown']))
            else:
                parts.append(f'```text\n{_joined(output.get("text", data.get("text/plain", ""))).rstrip()}\n```')
    return '\n\n'.join(parts) + '\n', pictures


def _joined(text: str | list[str]) -> str:
    """A notebook's text: files have it as a list of lines."""
    return ''.join(text)
