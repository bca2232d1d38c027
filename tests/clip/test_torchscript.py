"""TorchScript archives, read without running them, against PyTorch's own reader."""

import pickle
import shutil
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import clip
from clip import weights
from clip.torchscript import read_torchscript
from tests.clip.test_weights import RunsCode, save_torchscript


def read_by_torch(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.jit.load(path, map_location='cpu').state_dict()


def save(module: nn.Module, path: Path, scripted: bool = True) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.jit.save(torch.jit.script(module) if scripted else torch.jit.trace(module, torch.zeros(2, 3)), path)


def assert_same(path: Path) -> None:
    ours, expected = read_torchscript(path), read_by_torch(path)
    assert ours.keys() == expected.keys()
    for name, tensor in expected.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor)


@pytest.fixture
def archive(tiny_state_dict, tmp_path) -> Path:
    save_torchscript(tiny_state_dict, tmp_path / 'm.pt')
    return tmp_path / 'm.pt'


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_clip(tiny_state_dict, tmp_path, dtype):
    save_torchscript(tiny_state_dict, tmp_path / 'm.pt', dtype)
    assert_same(tmp_path / 'm.pt')


class Odd(nn.Module):
    """Shared and sliced numbers, buffers of all kinds, and tensors that are no weights."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.twin = self.linear
        self.norm = nn.BatchNorm1d(4)
        base = torch.arange(24.0).view(4, 6)
        self.sliced = nn.Parameter(base[:, 1:4].t())
        self.register_buffer('count', torch.tensor(7))
        self.register_buffer('flags', torch.tensor([True, False]))
        self.register_buffer('doubles', torch.ones(2, dtype=torch.float64))
        self.register_buffer('empty', torch.empty(0, 3))
        self.register_buffer('passing', torch.ones(2), persistent=False)
        self.mask = torch.ones(3)  # a tensor, but neither parameter nor buffer
        self.sizes = [1, 2, 3]
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.twin(self.linear(x)[:, :3])) + self.mask.sum() + self.sizes[0]
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize('scripted', [True, False])
def test_any_module(tmp_path, scripted):
    save(Odd().eval(), tmp_path / 'odd.pt', scripted)
    ours, expected = read_torchscript(tmp_path / 'odd.pt'), read_by_torch(tmp_path / 'odd.pt')
    assert 'mask' not in ours
    assert ours.keys() - {'passing'} == expected.keys() - {'passing'}
    for name in expected:
        assert torch.equal(ours[name], expected[name])


def test_nothing_is_run(archive, monkeypatch):
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('was run'))
    assert clip.load(archive, device='cpu')[0].visual.input_resolution == 64


def replace_in(archive: Path, name: str, content: bytes) -> None:
    """The archive with another file of a name in it."""
    old = archive.with_suffix('.old')
    shutil.move(archive, old)
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(archive, 'w') as after:
        for info in before.infolist():
            after.writestr(info.filename, content if info.filename.endswith(name) else before.read(info))


def test_a_pickle_in_an_archive_cannot_run_code(archive, tmp_path):
    trace = tmp_path / 'trace'
    replace_in(archive, '/data.pkl', pickle.dumps(RunsCode(trace), protocol=2))
    with pytest.raises(ValueError, match=r'cannot read the checkpoint .*m\.pt.*neither a module nor a tensor'):
        clip.load(archive)
    assert not trace.exists()


@pytest.mark.parametrize('name', ['os system', 'builtins eval', 'torch load', 'torch._utils _rebuild_parameter'])
def test_only_modules_and_tensors(archive, name):
    module, function = name.split()
    replace_in(archive, '/data.pkl', f'c{module}\n{function}\n.'.encode())
    with pytest.raises(pickle.UnpicklingError, match=rf'it has {module}\.{function}, which is neither'):
        read_torchscript(archive)


def test_no_module(archive):
    replace_in(archive, '/data.pkl', pickle.dumps([1], protocol=2))
    with pytest.raises(pickle.UnpicklingError, match='it has a list, expected a module'):
        read_torchscript(archive)


def test_too_few_numbers(archive):
    replace_in(archive, '/data/0', b'12')
    with pytest.raises(ValueError, match=r'cannot read .*data/0 has 2 bytes, expected'):
        clip.load(archive)


def test_other_byte_order(archive):
    replace_in(archive, '/byteorder', b'big')
    with pytest.raises(pickle.UnpicklingError, match='big-endian'):
        read_torchscript(archive)


def test_what_cannot_be_read_is_left_to_pytorch_only_if_it_is_openais(archive, monkeypatch):
    def broken(path: Path) -> None:
        raise pickle.UnpicklingError('no')

    monkeypatch.setattr(weights, 'read_torchscript', broken)
    with pytest.raises(ValueError, match='cannot read the checkpoint'):
        clip.load(archive, device='cpu')
    known = weights.Release('http://nowhere/m.pt', weights.file_sha256(archive))
    monkeypatch.setattr(weights, 'RELEASES', weights.RELEASES | {'ViT-B/16': known})
    assert clip.load(archive, device='cpu')[0].visual.input_resolution == 64


@given(sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4), bias=st.booleans())
def test_any_stack_of_layers(tmp_path_factory, sizes, bias):
    path = tmp_path_factory.mktemp('stack') / 'm.pt'
    save(nn.Sequential(*(nn.Linear(a, b, bias) for a, b in pairwise(sizes))), path)
    assert_same(path)
