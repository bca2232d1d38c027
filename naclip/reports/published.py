"""Published mIoU to hold a run's result against."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from clip.weights import RELEASES
from naclip.methods import METHODS
from naclip.runs.results import SCORED

FILE = Path(__file__).with_name('published.json')
BACKBONE = 'ViT-B/16'  # what all the published numbers were taken with


@cache
def _read(path: Path) -> Mapping:
    return json.loads(path.read_text(encoding='utf-8'))


def published_miou(record: Mapping) -> tuple[float | None, str]:
    """The published mIoU of a results.json record's method on its benchmark, and a note.

    The number is None where none is published. The note says what differs from the settings it was published under,
    or, where nothing does, its source.
    """
    value, source, differences = find_published(record)
    return value, f'other settings: {", ".join(differences)}' if differences else source


def find_published(record: Mapping) -> tuple[float | None, str, list[str]]:
    """The published mIoU as above, its source ('not published' without one), and the settings that differ.

    What is to be known of the number, or of why there is none, follows the source.
    """
    if record['protocol'] == SCORED:  # whatever the name says, nothing is known of how the label maps were made
        return None, 'not published', []
    published = _read(FILE)
    method, protocol = record['method'], record['protocol']
    # NACLIP's second release is its first one's method under another protocol; CLIP Surgery is no protocol of CLIP's.
    own = protocol.startswith(f'{method}_') and all(other.name != protocol for other in METHODS)
    # FLOSS is what a template ranking makes of NACLIP.
    own = own or (method == 'naclip' and protocol == 'floss' and 'template_ranking' in record['sha256'])
    row = published['methods'].get(protocol if own else method)
    if row is None:
        return None, 'not published', []
    numbers = dict(zip(published['benchmarks'], row['miou'], strict=True)) | row.get('further', {})
    value, note = numbers.get(record['benchmark']), row.get('notes', {}).get(record['benchmark'])
    source = '; '.join(filter(None, ['not published' if value is None else row['source'], note]))
    if value is None:
        return None, source, []
    native = {other.protocol for other in METHODS if other.name == method}
    differences = [f'protocol {protocol}'] if protocol not in native and not own else []
    differences += [f'{key} {value}' for key, value in record['changes'].items()]
    weights, released = record['sha256']['weights'], {release.sha256 for release in RELEASES.values()}
    if weights in released if row.get('own_weights') else weights != RELEASES[BACKBONE].sha256:
        differences.append(f'backbone {record["backbone"]}')
    if record['settings']['limit']:
        differences.append(f'the first {record["settings"]["limit"]} pictures')
    return value, source, differences
