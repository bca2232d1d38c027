"""The journal: what it keeps, against counting pixel by pixel and MMSegmentation's areas, and what damage costs."""

import json
import logging
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmseg.evaluation import IoUMetric

from naclip.runs.journal import (
    Journal,
    Record,
    confusion_matrix,
    count_cells,
    decode,
    encode,
    journal_files,
    picture_key,
    pixel_counts,
    read_file,
    read_journal,
)

CLASSES, IGNORED = 5, 255


@st.composite
def pictures(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and labelled classes (h, w), some pixels ignored."""
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    pred = draw(st.lists(st.integers(0, CLASSES - 1), min_size=h * w, max_size=h * w))
    label = draw(st.lists(st.sampled_from([*range(CLASSES), IGNORED]), min_size=h * w, max_size=h * w))
    return torch.tensor(pred).view(h, w), torch.tensor(label, dtype=torch.uint8).view(h, w)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Records as they may come, whatever their picture is called."""
    name = draw(st.text(st.characters(exclude_characters='\0'), min_size=1, max_size=20))
    pairs = draw(st.dictionaries(st.tuples(*[st.integers(0, 846)] * 2), st.integers(1, 2**40), max_size=6))
    cells = np.array([(*pair, n) for pair, n in pairs.items()], np.int64).reshape(-1, 3)
    return Record(name, cells, draw(st.floats(0, 1e6)))


def assert_same(got: Record, expected: Record) -> None:
    assert got.image == expected.image
    assert got.seconds == pytest.approx(expected.seconds, abs=0.0006)
    np.testing.assert_array_equal(got.cells, expected.cells)
    assert got.cells.dtype == np.int64


@given(pictures())
def test_cells_are_the_pixels(picture: tuple[torch.Tensor, torch.Tensor]):
    pred, label = picture
    pairs = zip(label.flatten().tolist(), pred.flatten().tolist(), strict=True)
    expected = Counter(pair for pair in pairs if pair[0] != IGNORED)
    cells = count_cells(pred, label, CLASSES, IGNORED)
    assert {(row[0], row[1]): row[2] for row in cells.tolist()} == expected
    assert len(cells) == len(expected)


@given(st.lists(pictures(), max_size=4))
def test_areas_are_those_of_mmsegmentation(many: list[tuple[torch.Tensor, torch.Tensor]]):
    areas = [IoUMetric.intersect_and_union(p, t.to(p), CLASSES, IGNORED) for p, t in many]
    cells = [count_cells(p, t, CLASSES, IGNORED) for p, t in many]
    for each, theirs in zip(cells, areas, strict=True):
        counts = pixel_counts(confusion_matrix([each], CLASSES))
        assert [counts.intersect, counts.union, counts.pred, counts.label] == [a.long().tolist() for a in theirs]
    total = pixel_counts(confusion_matrix(cells, CLASSES))
    for ours, theirs in zip(
        (total.intersect, total.union, total.pred, total.label), zip(*areas, strict=True), strict=False
    ):
        assert ours == sum(theirs, torch.zeros(CLASSES)).long().tolist()


@given(st.lists(pictures(), max_size=4))
def test_confusion_matrix_against_counting_one_by_one(many: list[tuple[torch.Tensor, torch.Tensor]]):
    expected = np.zeros((CLASSES, CLASSES), np.int64)
    for pred, label in many:
        for t, p in zip(label.flatten().tolist(), pred.flatten().tolist(), strict=True):
            if t != IGNORED:
                expected[t, p] += 1
    got = confusion_matrix([count_cells(p, t, CLASSES, IGNORED) for p, t in many], CLASSES)
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == np.int64


def test_labels_of_16_bits():
    label = torch.tensor([[0, 255, 846, 65535]], dtype=torch.int32)
    cells = count_cells(torch.tensor([[846, 255, 0, 3]]), label, 847, 65535)
    assert cells.tolist() == [[0, 846, 1], [255, 255, 1], [846, 0, 1]]


@given(records())
def test_a_line_is_json_and_reads_back(record: Record):
    line = encode(record)
    assert line.endswith(b'\n')
    assert line.count(b'\n') == 1
    assert json.loads(line)['image'] == record.image
    assert_same(decode(line), record)


@given(records(), st.data())
def test_any_changed_byte_is_found(record: Record, data: st.DataObject):
    line = bytearray(encode(record))
    at = data.draw(st.integers(0, len(line) - 2))
    line[at] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(line)) is None


@pytest.mark.slow
@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda record: record.image))
def test_a_cut_loses_at_most_the_record_it_is_in(tmp_path_factory: pytest.TempPathFactory, many: list[Record]):
    path = tmp_path_factory.mktemp('cut') / '1-0.jsonl'
    lines = [encode(record) for record in many]
    whole = b''.join(lines)
    starts = np.cumsum([0, *map(len, lines)])
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        good = [record for _, record in read_file(path)]
        finished = int((starts[1:] <= length).sum())
        # A line that lacks nothing but its line break is as good.
        assert len(good) in (finished, int((starts[1:] - 1 <= length).sum()))
        for got, expected in zip(good, many, strict=False):
            assert_same(got, expected)


def test_a_cut_is_no_damage_but_anything_else_is(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    lines = [encode(Record(f'{i}.jpg', np.array([[0, i, 7]]), i)) for i in range(3)]
    path = tmp_path / '1-0.jsonl'
    path.write_bytes(lines[0] + lines[1] + lines[2][:-5])
    with caplog.at_level(logging.WARNING):
        assert [record.image for _, record in read_file(path)] == ['0.jpg', '1.jpg']
    assert not caplog.records
    for middle in (lines[1].replace(b'[0,1,7]', b'[0,1,8]'), lines[1][:9] + b'\n', b'\0' * 40 + b'\n', b'\n', b'{}\n'):
        caplog.clear()
        path.write_bytes(lines[0] + middle + lines[2])
        with caplog.at_level(logging.WARNING):
            assert [record.image for _, record in read_file(path)] == ['0.jpg', '2.jpg']
        (warning,) = caplog.messages
        assert f'{path}, line 2 is damaged' in warning
    path.write_bytes(lines[0] + lines[1][:-5] + b'\n')
    with caplog.at_level(logging.WARNING):
        assert len(list(read_file(path))) == 1
    assert len(caplog.messages) == 2  # the last line is whole, and damaged


def test_each_picture_once_the_way_mmengine_collects(tmp_path: Path):
    """Two processes share three pictures: the first is repeated to fill up the second's."""
    for name, images in {'1-0': 'ac', '1-1': 'ba', '2-0': 'cd', '10-0': 'd'}.items():
        lines = [encode(Record(c, np.array([[0, 0, 10 * i + len(name)]]), i + 1)) for i, c in enumerate(images)]
        (tmp_path / f'{name}.jsonl').write_bytes(b''.join(lines))
    (tmp_path / 'other.jsonl').write_text('not ours')
    assert list(journal_files(tmp_path)) == [(1, 0), (1, 1), (2, 0), (10, 0)]
    found, seconds = read_journal(tmp_path)
    assert {image: record.cells[0, 2] for image, record in found.items()} == {'a': 3, 'b': 3, 'c': 13, 'd': 13}
    assert seconds == 2 + 2 + 1
    assert read_journal(tmp_path / 'nowhere') == ({}, 0)


def test_keys_of_pictures():
    assert picture_key('/data/voc/JPEGImages/a.jpg', '/data/voc') == 'JPEGImages/a.jpg'
    assert picture_key('/data/voc/JPEGImages/a.jpg', '/data/voc/') == 'JPEGImages/a.jpg'
    assert picture_key('data/x/a.jpg', 'data') == 'x/a.jpg'
    assert picture_key('/elsewhere/x/a.jpg', '/data/voc') == '/elsewhere/x/a.jpg'
    assert picture_key('/elsewhere/x/a.jpg', None) == '/elsewhere/x/a.jpg'


def test_files_are_never_shared(tmp_path: Path):
    journal = Journal(tmp_path, 1, 0)
    with pytest.raises(FileExistsError):
        Journal(tmp_path, 1, 0)
    journal.append('a', np.array([[1, 2, 3]]))
    journal.close()
    journal.close()
    assert list(read_journal(tmp_path)[0]) == ['a']


def _write_and_die(folder: Path) -> None:
    journal = Journal(folder, 1, 0)
    for i in range(20):
        journal.append(f'{i}.jpg', np.array([[0, 1, i]]))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_records_outlive_a_kill(tmp_path: Path):
    process = multiprocessing.get_context('spawn').Process(target=_write_and_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    found, _ = read_journal(tmp_path)
    assert [record.cells.tolist() for record in found.values()] == [[[0, 1, i]] for i in range(20)]
