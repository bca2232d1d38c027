"""The embedded benchmark: its pictures, captions, weights, and what the method reaches on it."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from numpy.random import RandomState
from PIL import Image

import clip
from clip.weights import BUNDLED, known_words, read_checkpoint
from naclip.shapes import generator as shapes
from naclip.walk.text import read_templates
from naclip.walk.vocabulary import read_vocabulary
from tests.conftest import ROOT

FEW = 4


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes.ensure_dataset(tmp_path_factory.mktemp('cache'))


def pairs(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    names = sorted(path.name for path in (folder / shapes.PICTURES).iterdir())
    assert names == sorted(path.name for path in (folder / shapes.LABELS).iterdir())
    loaded = []
    for name in names:
        with Image.open(folder / shapes.PICTURES / name) as picture, Image.open(folder / shapes.LABELS / name) as label:
            loaded.append((np.asarray(picture), np.asarray(label)))
    return loaded


@pytest.mark.slow
def test_pictures_are_those_of_every_machine(folder: Path):
    assert shapes.pixel_checksum(folder) == shapes.VAL_SHA256


def test_one_picture_pixel_by_pixel():
    picture, label = shapes.draw(RandomState(0))
    digest = hashlib.sha256(picture.tobytes() + label.tobytes()).hexdigest()
    assert digest == 'ae6380a4a9db686e93c62386b33449f8d9ecaddaf7603d9090a9df7117bf8ff5'


@pytest.mark.slow
def test_validation_set(folder: Path):
    loaded = pairs(folder)
    assert len(loaded) == shapes.VAL_COUNT >= 200
    assert all(picture.shape == (*shapes.VAL_SIZE, 3) for picture, _ in loaded)
    assert all(label.shape == shapes.VAL_SIZE for _, label in loaded)
    assert min(shapes.VAL_SIZE) > shapes.TRAIN_SIDE  # so windows slide
    labels = np.stack([label for _, label in loaded])
    assert labels.max() < len(shapes.CLASSES)  # every pixel is labelled
    pictures_with = [(labels == i).any(axis=(1, 2)).sum() for i in range(len(shapes.CLASSES))]
    assert min(pictures_with) >= 20
    bare = (labels < len(shapes.STUFF)).all(axis=(1, 2)).mean()
    assert 0.05 < bare < 0.5  # some pictures have no objects


def test_drawing_is_deterministic_and_varied():
    again = [shapes.draw(RandomState(5), (40, 72)) for _ in range(2)]
    np.testing.assert_array_equal(again[0][0], again[1][0])
    other, _ = shapes.draw(RandomState(6), (40, 72))
    assert (other != again[0][0]).mean() > 0.5
    assert (again[0][0].shape, again[0][1].shape) == ((40, 72, 3), (40, 72))


def test_second_use_makes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, 'draw', None)
    assert shapes.ensure_dataset(folder.parent) == folder


def test_other_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shapes, 'VAL_COUNT', FEW)
    monkeypatch.setattr(shapes.write_dataset, '__defaults__', (FEW, *shapes.write_dataset.__defaults__[1:]))
    with pytest.raises(RuntimeError, match='delete that folder'):
        shapes.ensure_dataset(tmp_path)


def test_folder_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(rng: RandomState, size: tuple[int, int]):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, 'draw', fail)
    with pytest.raises(KeyboardInterrupt):
        shapes.write_dataset(tmp_path / 'cache' / 'x', count=FEW)
    assert list((tmp_path / 'cache').iterdir()) == []


def _write(root: Path) -> bool:
    try:
        shapes.write_dataset(root, count=FEW)
    except FileExistsError:
        return False
    return True


@pytest.mark.slow
def test_two_processes_may_race(tmp_path: Path):
    with multiprocessing.get_context('spawn').Pool(2) as pool:
        wrote = pool.map(_write, [tmp_path / 'x'] * 2)
    assert sorted(wrote) == [False, True]
    assert [path.name for path in tmp_path.iterdir()] == ['x']
    assert len(pairs(tmp_path / 'x')) == FEW


def test_captions_name_only_what_is_there():
    rng = RandomState(0)
    counts = set()
    for _ in range(200):
        _, label = shapes.draw(rng)
        present = shapes.classes_present(label)
        text, named = shapes.caption(rng, present, ['a photo of a {}.'])
        words = text.removeprefix('a photo of a ').removesuffix('.').replace(' and ', ', ').split(', ')
        assert sorted(words) == sorted(np.array(shapes.CLASSES)[named])
        assert not (named & ~present).any()
        counts.add((present.sum(), named.sum()))
    assert (1, 1) in counts
    assert any(named < present for present, named in counts)  # captions leave things out
    assert any(named == present > 2 for present, named in counts)  # or tell all


def test_classes_present_leaves_out_specks():
    label = np.zeros((64, 64), np.uint8)
    label[0, :63] = 3
    label[1:] = 5
    present = shapes.classes_present(label)
    assert np.flatnonzero(present).tolist() == [5]
    label[1, 0] = 3
    assert np.flatnonzero(shapes.classes_present(label)).tolist() == [3, 5]


def test_vocabulary_is_the_classes():
    assert read_vocabulary(ROOT / 'configs/cls_shapes.txt').names == shapes.CLASSES
    assert len(shapes.PALETTE) == len(set(shapes.PALETTE)) == len(shapes.CLASSES) == 20


def test_shipped_weights():
    path = BUNDLED['shapes']
    assert path.stat().st_size <= 9_000_000
    checkpoint = read_checkpoint(path)
    assert known_words(checkpoint.metadata) == set(shapes.CLASSES)
    assert json.loads(checkpoint.metadata['training']).keys() >= {'seed', 'steps', 'batch', 'pool'}
    with safetensors.safe_open(path, 'pt') as file:
        rows = file.get_tensor('token_embedding.weight')
    prompts = [t.replace('{}', f'{name}, {name} and {name}') for t in read_templates() for name in shapes.CLASSES]
    seen = torch.zeros(len(rows), dtype=torch.bool)
    seen[clip.tokenize(prompts).unique()] = True
    assert (rows[~seen] == 0).all()
    assert (rows[seen] != 0).any(dim=1).all()


def test_shipped_weights_know_a_picture_from_another():
    """CLIP's own task: of two captions, the true one is closer."""
    model, _ = clip.load('shapes', device='cpu')
    rng = RandomState(77)
    right = 0
    for _ in range(40):
        picture, label = shapes.draw(rng)
        present = shapes.classes_present(label)
        name, other = rng.choice(np.flatnonzero(present)), rng.choice(np.flatnonzero(~present))
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        image = (image - torch.tensor(clip.MEAN)[:, None, None]) / torch.tensor(clip.STD)[:, None, None]
        texts = clip.tokenize([f'a photo of a {shapes.CLASSES[i]}.' for i in (name, other)])
        logits, _ = model(image, texts)
        right += bool(logits[0, 0] > logits[0, 1])
    assert right >= 36
