"""What is right and wrong with a benchmark's data, judged by counts, pairs, files and label values."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image

from naclip.data.context import NUM_IDS as CONTEXT_IDS
from naclip.files import read_whole

VERDICTS = ('ok', 'warning', 'error')
OFFICIAL_COUNTS = {
    'voc21': 1449,
    'voc20': 1449,
    'context60': 5104,
    'context59': 5104,
    'context459': 5104,
    'ade20k': 2000,
    'ade847': 2000,
    'city_scapes': 500,
    'coco_object': 5000,
    'coco_stuff164k': 5000,
    'coco_stuff10k': 1000,
    'shapes': 200,
}
CONTEXT_ORIGINAL_COUNT = 5105
VOC_LABELS = 2913  # label maps in VOC 2012's own SegmentationClass: train and val
CONTEXT_SOURCES = 'labels of the other source may be worth about 1.5 mIoU on context60 (not verified)'
VOC, CONTEXT = ('voc21', 'voc20'), ('context60', 'context59')
LABEL_MODES = ('L', 'P', 'I', 'I;16', 'I;16L', 'I;16B')  # Pillow's names for one channel of whole numbers
SHOWN_CLASSES = 3

# Toothbrushes take about a ten-thousandth of COCO's pixels. Where labels were made from training ids in place of raw
# ones, ceilings count as toothbrushes.
TOOTHBRUSH, MAX_TOOTHBRUSH_SHARE, MIN_TOOTHBRUSH_SCANS = 80, 0.002, 200


@dataclass(frozen=True)
class Source:
    """Where a benchmark's data come from: official archives, and the command that prepares them, if one is needed."""

    archives: str
    command: str = ''
    label_suffix: str = ''  # of the files that the command writes

    def get(self, root: str | Path) -> str:
        """How to get the data into `root`."""
        command = (
            f', then: {self.command.format(root=root)}' if self.command else f', and unpack it so that {root} is there'
        )
        return f'get {self.archives} (see docs/data.md){command}'

    def remake(self, root: str | Path) -> str:
        """How to make the labels in `root` again."""
        if not self.command:
            return f'take the label maps from {self.archives} again (see docs/data.md)'
        return f'remove the files *{self.label_suffix}, then make them again: {self.command.format(root=root)}'


_VOC = Source('VOCtrainval_11-May-2012.tar')
_CONTEXT = Source(
    'VOCtrainval_03-May-2010.tar and trainval_merged.json',
    'python datasets/prepare_context.py {root} --json trainval_merged.json',
    '.png of SegmentationClassContext',
)
SOURCES = {
    'voc21': _VOC,
    'voc20': _VOC,
    'context60': _CONTEXT,
    'context59': _CONTEXT,
    'context459': Source(
        'VOCtrainval_03-May-2010.tar and trainval.tar.gz',
        'python datasets/prepare_context459.py {root} --mat TRAINVAL',
        '.tif of annotations_detectron2/pc459_val',
    ),
    'ade20k': Source('ADEChallengeData2016.zip'),
    'ade847': Source(
        "ADE20K's full release (2021_17_01)",
        'python datasets/prepare_ade847.py {root}',
        '.tif of annotations_detectron2/validation',
    ),
    'city_scapes': Source(
        'leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip',
        'python datasets/prepare_cityscapes.py {root}',
        '_gtFine_labelTrainIds.png',
    ),
    'coco_object': Source(
        'val2017.zip and stuffthingmaps_trainval2017.zip',
        'python datasets/cvt_coco_object.py data/coco_stuff164k -o {root}',
        '_instanceTrainIds.png',
    ),
    'coco_stuff164k': Source(
        'val2017.zip and stuffthingmaps_trainval2017.zip',
        'python datasets/prepare_coco_stuff164k.py {root} -o {root}',
        '_labelTrainIds.png',
    ),
    'coco_stuff10k': Source(
        'cocostuff-10k-v1.1.zip',
        'python datasets/prepare_coco_stuff10k.py {root} -o {root}',
        '_labelTrainIds.png',
    ),
}


@dataclass(frozen=True)
class Finding:
    """Something looked at: the verdict on it, one of VERDICTS, and how to mend it."""

    verdict: str
    text: str
    mend: str = ''


@dataclass(frozen=True)
class Fault:
    """What is wrong with one pair: 'picture', 'label' (not readable), 'channels' or 'size', and the details."""

    kind: str
    text: str


@dataclass(frozen=True)
class PairScan:
    """What a picture and its label map hold: the values of the map, how many pixels have them, and what is wrong."""

    values: np.ndarray
    pixels: np.ndarray
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Files of one picture and its label map, which may be missing."""

    picture: Path
    label: Path

    @property
    def present(self) -> bool:
        return self.picture.is_file() and self.label.is_file()


@dataclass(frozen=True)
class Labels:
    """How a data set reads label values: class i has the value `first` + i, some values are ignored."""

    classes: Sequence[str]
    first: int
    ignored: tuple[int, ...]

    @property
    def last(self) -> int:
        return self.first + len(self.classes) - 1


@dataclass
class Report:
    """All findings on a benchmark, and what the summary shows of it."""

    benchmark: str
    place: str
    findings: list[Finding] = field(default_factory=list)
    pictures: int = 0
    scanned: int = 0
    classes: str = '-'
    ignored: str = '-'
    histogram: str = ''

    @property
    def verdict(self) -> str:
        return max((finding.verdict for finding in self.findings), key=VERDICTS.index, default='ok')


class SegmentationData(Protocol):
    """What is asked of MMSegmentation's data sets here."""

    metainfo: Mapping
    data_root: str
    data_prefix: Mapping[str, str]
    ann_file: str
    seg_map_suffix: str
    reduce_zero_label: bool
    ignore_index: int

    def __len__(self) -> int: ...
    def get_data_info(self, idx: int) -> Mapping: ...


def find_pairs(dataset: SegmentationData) -> list[Pair]:
    """The files of a data set's pictures and label maps, there or not."""
    entries = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [Pair(Path(entry['img_path']), Path(entry['seg_map_path'])) for entry in entries]


def find_labels(dataset: SegmentationData) -> Labels:
    """How a data set reads label values."""
    first = int(dataset.reduce_zero_label)
    return Labels(dataset.metainfo['classes'], first, (dataset.ignore_index, *range(first)))


def find_lonely_labels(dataset: SegmentationData, pairs: Iterable[Pair]) -> list[Path]:
    """Label maps that belong to no picture; none are looked for where a list names the pictures."""
    if dataset.ann_file and Path(dataset.ann_file).is_file():
        return []
    known = {pair.label for pair in pairs}
    folder = Path(dataset.data_prefix['seg_map_path'])
    found = (path for path in folder.rglob(f'*{dataset.seg_map_suffix}') if not path.name.startswith('.'))
    return sorted(path for path in found if path not in known)


def scan_pair(picture: Path, label: Path) -> PairScan:
    """Read a picture, as evaluation does, and its label map."""
    faults = []
    picture_size = label_size = None
    values = pixels = np.zeros(0, dtype=np.int64)
    try:
        content = cv2.imdecode(np.frombuffer(read_whole(picture), np.uint8), cv2.IMREAD_COLOR)
        if content is None:
            raise ValueError('not a picture')
        picture_size = content.shape[:2]
    except Exception as error:  # decoders raise anything
        faults.append(Fault('picture', f'{picture}: {one_line(error)}'))
    try:
        with Image.open(io.BytesIO(read_whole(label))) as file:
            mode, array = file.mode, np.asarray(file)
        label_size = array.shape[:2]
        if mode in LABEL_MODES:
            values, pixels = count_values(array)
        else:
            faults.append(Fault('channels', f'{label}: {mode}'))
    except Exception as error:
        faults.append(Fault('label', f'{label}: {one_line(error)}'))
    if picture_size and label_size and picture_size != label_size:
        sizes = ' and '.join(f'{height} x {width}' for height, width in (picture_size, label_size))
        faults.append(Fault('size', f'{picture} and its label map: {sizes}'))
    return PairScan(values, pixels, tuple(faults))


def one_line(error: Exception) -> str:
    """The message of an error of a decoder, which may have lines and addresses of objects in it."""
    return 'cannot be decoded' if isinstance(error, Image.UnidentifiedImageError) else ' '.join(str(error).split())


def count_values(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sorted values in an array of whole numbers, and how often each is there."""
    if array.dtype.kind == 'u':
        counts = np.bincount(array.ravel())
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(array.astype(np.int64), return_counts=True)


def add_counts(scans: Iterable[PairScan]) -> dict[int, int]:
    """Pixels of each value in all label maps."""
    total: dict[int, int] = {}
    for scan in scans:
        for value, pixels in zip(scan.values.tolist(), scan.pixels.tolist(), strict=True):
            total[value] = total.get(value, 0) + pixels
    return total


def judge_count(benchmark: str, pictures: int) -> Finding:
    """Compare the number of pictures with the official one."""
    official = OFFICIAL_COUNTS.get(benchmark)
    if official is None or pictures == official:
        return Finding('ok', f'{pictures} pictures{"" if official is None else ", the official number"}')
    text = f'{pictures} pictures, the official number is {official}'
    if benchmark in CONTEXT and pictures == CONTEXT_ORIGINAL_COUNT:
        return Finding(
            'warning',
            f'{text}: a list with one picture more, as VOC 2010 has it, so labels of the .mat files, it seems',
            f'published numbers come from trainval_merged.json; {CONTEXT_SOURCES}',
        )
    if benchmark in VOC and pictures > official:
        return Finding(
            'error',
            f'{text}: the list is not val.txt (trainval.txt has 2913 pictures, lists for training have more)',
            'take ImageSets/Segmentation/val.txt from VOCtrainval_11-May-2012.tar again',
        )
    mend = 'remove what does not belong to the split' if pictures > official else 'unpack the pictures again'
    return Finding('error', text, f'{mend}; published numbers are of all {official}')


def judge_pairs(source: Source, root: str, pairs: Sequence[Pair], lonely: Sequence[Path]) -> list[Finding]:
    """Look whether every picture has a label map, and the other way round."""
    findings = []
    pictures = [pair.picture for pair in pairs if not pair.picture.is_file()]
    if pictures:
        text = f'{len(pictures)} pictures of the list are missing, such as {pictures[0]}'
        findings.append(Finding('error', text, f'unpack the pictures again: {source.archives}'))
    labels = [pair.label for pair in pairs if not pair.label.is_file()]
    if labels:
        text = f'{len(labels)} pictures have no label map, such as {labels[0]}'
        findings.append(Finding('error', text, source.get(root)))
    if lonely:
        text = f'{len(lonely)} label maps have no picture, such as {lonely[0]}'
        findings.append(Finding('warning', text, 'they are not evaluated; are pictures missing?'))
    return findings or [Finding('ok', f'{len(pairs)} label maps, one for each picture')]


def judge_files(source: Source, root: str, scans: Sequence[PairScan]) -> list[Finding]:
    """Look whether files can be read, are label maps, and have the sizes of their pictures."""
    kinds = {
        'picture': ('pictures cannot be read', f'unpack the pictures again: {source.archives}'),
        'label': ('label maps cannot be read', source.remake(root)),
        'channels': (
            "label maps have colours (Pillow's mode after the colon) where class indices are expected",
            f'{source.remake(root)}; a tool may have turned indexed PNGs to RGB',
        ),
        'size': (
            'label maps differ in size from their pictures',
            f'take both from the same release: {source.archives}',
        ),
    }
    findings = []
    for kind, (text, mend) in kinds.items():
        faults = [fault.text for scan in scans for fault in scan.faults if fault.kind == kind]
        if faults:
            findings.append(Finding('error', f'{len(faults)} {text}, such as {faults[0]}', mend))
    return findings or [Finding('ok', 'files are whole, sizes of pictures and label maps agree')]


def judge_values(benchmark: str, labels: Labels, counts: dict[int, int]) -> list[str]:
    """What is wrong with the label values, one line a fault; none where they fit."""
    seen = set(counts)
    strange = sorted(
        value for value in seen if not labels.first <= value <= labels.last and value not in labels.ignored
    )
    faults = []
    if strange:
        shown = ', '.join(map(str, strange[:8])) + (', ...' if len(strange) > 8 else '')
        ignored = ' and '.join(map(str, sorted(labels.ignored)))
        expected = f'expected {labels.first}-{labels.last}, {ignored} ignored'
        faults.append(f'label values {shown} are no classes ({expected}){guess_origin(benchmark, seen, strange)}')
    elif looks_reduced(benchmark, labels, counts):
        unclassed = 'background' if benchmark in VOC + CONTEXT else 'what has no class'
        faults.append(
            f'label values look already reduced: 255 is there, {labels.last} ({labels.classes[-1]}) is not, '
            f'so 0 seems to be {labels.classes[1 - labels.first]}; expected {unclassed} at 0 and it at 1'
        )
    if not any(labels.first <= value <= labels.last for value in seen):
        faults.append('no pixel has a class')
    return faults


def guess_origin(benchmark: str, seen: set[int], strange: Sequence[int]) -> str:
    """What labels with values outside the classes seem to be, with a colon before; empty where nothing is known."""
    top = max(strange)
    guess = ''
    if benchmark == 'city_scapes' and top <= 33:
        guess = 'raw labelIds in place of labelTrainIds'
    elif benchmark == 'coco_stuff164k' and strange == [171] and 255 not in seen:
        guess = "COCO-Stuff 10k's ids, which are one higher"
    elif (benchmark == 'coco_stuff164k' and top <= 181) or (benchmark == 'coco_stuff10k' and top <= 182):
        guess = 'raw COCO-Stuff ids in place of training ids'
    elif benchmark == 'coco_object' and top <= 181:
        guess = "COCO-Stuff's ids in place of COCO-Object's"
    elif benchmark in CONTEXT and top <= CONTEXT_IDS:
        guess = 'ids of the 459 classes in place of the 59'
    return guess and f': {guess}'


def looks_reduced(benchmark: str, labels: Labels, counts: dict[int, int]) -> bool:
    """Whether 0 seems to have been made 255, and the other values one less.

    Then the highest value is never there, and 255 is. Only VOC has 255 (object borders) in its own label maps, less of
    it than of background.
    """
    if benchmark not in (*VOC, *CONTEXT, 'ade20k', 'coco_stuff10k') or labels.last in counts or 255 not in counts:
        return False
    return benchmark not in VOC or counts[255] > counts.get(0, 0)


def judge_voc(dataset: SegmentationData, counts: dict[int, int]) -> list[Finding]:
    """Look for the augmented labels (SBD's) in place of VOC 2012's own."""
    folder = Path(dataset.data_prefix['seg_map_path'])
    mend = 'use SegmentationClass of VOCtrainval_11-May-2012.tar'
    findings = []
    number = sum(1 for _ in folder.glob('*.png'))
    if 'aug' in folder.resolve().name.lower() or number > VOC_LABELS:
        text = f'{folder.resolve()} holds {number} label maps, VOC 2012 has {VOC_LABELS}: SegmentationClassAug?'
        findings.append(Finding('warning', text, mend))
    if counts and 255 not in counts:
        text = 'no pixel is ignored (255), but VOC ignores the borders of objects: labels of another source (SBD)?'
        findings.append(Finding('error', text, mend))
    return findings


def judge_things(scans: Sequence[PairScan], counts: dict[int, int]) -> list[Finding]:
    """Look for COCO-Object labels that were made from converted labels."""
    share = counts.get(TOOTHBRUSH, 0) / max(1, sum(counts.values()))
    if len(scans) < MIN_TOOTHBRUSH_SCANS or share <= MAX_TOOTHBRUSH_SHARE:
        return []
    text = f'{share:.1%} of the pixels are toothbrush, far too many: made from training ids in place of raw labels?'
    return [Finding('warning', text, SOURCES['coco_object'].remake('data/coco_object'))]


def describe_labels(labels: Labels, counts: dict[int, int]) -> tuple[str, str, str]:
    """Classes seen, the ignored share, and the most frequent classes with their shares, as text."""
    total = max(1, sum(counts.values()))
    shares = [(counts.get(labels.first + i, 0) / total, name) for i, name in enumerate(labels.classes)]
    ignored = sum(counts.get(value, 0) for value in labels.ignored) / total
    frequent = sorted(shares, key=lambda entry: -entry[0])[:SHOWN_CLASSES]
    histogram = ', '.join(f'{name} {share:.1%}' for share, name in frequent if share)
    seen = sum(share > 0 for share, _ in shares)
    return f'{seen}/{len(shares)}', f'{ignored:.1%}', histogram


def judge(benchmark: str, dataset: SegmentationData, pairs: Sequence[Pair], scans: Sequence[PairScan]) -> Report:
    """All findings on a benchmark, from its files and the scans of some or all of its pairs."""
    root = str(dataset.data_root)
    source = SOURCES.get(benchmark, Source('the data set'))
    labels, counts = find_labels(dataset), add_counts(scans)
    report = Report(benchmark, root, pictures=len(pairs), scanned=len(scans))
    report.findings.append(judge_count(benchmark, len(pairs)))
    if not pairs:
        return report
    report.findings += judge_pairs(source, root, pairs, find_lonely_labels(dataset, pairs))
    if not scans:
        return report
    report.findings += judge_files(source, root, scans)
    report.classes, report.ignored, report.histogram = describe_labels(labels, counts)
    if counts:
        faults = judge_values(benchmark, labels, counts)
        report.findings += [Finding('error', fault, source.remake(root)) for fault in faults]
        if not faults:
            report.findings.append(Finding('ok', 'label values fit the classes'))
    if benchmark in VOC:
        report.findings += judge_voc(dataset, counts)
    if benchmark in CONTEXT and len(pairs) != CONTEXT_ORIGINAL_COUNT:
        text = 'whether the label maps come from trainval_merged.json or the .mat files does not show in them'
        report.findings.append(Finding('ok', f'{text}: {CONTEXT_SOURCES}'))
    if benchmark == 'coco_object':
        report.findings += judge_things(scans, counts)
    return report


def report_missing(benchmark: str, place: str, error: Exception) -> Report:
    """The report on a benchmark whose data cannot be found."""
    source = SOURCES.get(benchmark)
    return Report(benchmark, place, [Finding('error', str(error), source.get(place) if source else '')])


def format_report(report: Report) -> str:
    """A report as a block of lines."""
    lines = [f'{report.benchmark}: {report.place}']
    for finding in report.findings:
        lines.append(f'  {finding.verdict:8} {finding.text}')
        if finding.mend:
            lines.append(f'  {"":8} -> {finding.mend}')
    if report.histogram:
        lines.append(
            f'  {"labels":8} {report.scanned} scanned: {report.classes} classes seen; most frequent: '
            f'{report.histogram}; ignored {report.ignored}'
        )
    return '\n'.join(lines)


def format_summary(reports: Sequence[Report]) -> str:
    """A table with a row for each report."""
    rows = [('benchmark', 'pictures', 'scanned', 'classes', 'ignored', 'verdict')]
    rows += [(r.benchmark, str(r.pictures), str(r.scanned), r.classes, r.ignored, r.verdict) for r in reports]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
