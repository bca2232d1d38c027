"""The weights of a TorchScript archive, read without running anything that is in it.

An archive is a zip file: data.pkl has the modules as a pickle, data/ the numbers of each tensor, code/ the modules'
source. Of the pickle only modules, tensors and plain values are made; of the source only the lists of parameters and
buffers are looked at.
"""

import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}
LISTS = ('build_intlist', 'build_doublelist', 'build_boollist', 'build_tensorlist')
CLASS = re.compile(r'^class (\w+)\(Module\):$')
NAMES = re.compile(r'^  __(?:parameters|buffers)__ = \[(.*)\]$')


class Module:
    """A module as its pickle has it: attributes by name, and the dotted name of its class."""

    kind: str

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.attributes = dict(state)


class Reader(pickle.Unpickler):
    """Makes modules, tensors and plain values, and nothing else."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(archive.open(f'{root}/data.pkl'))
        self.archive = archive
        self.root = root
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> object:
        """What a name in the pickle stands for.

        Raises:
            UnpicklingError: nothing that weights need.
        """
        if module == '__torch__' or module.startswith('__torch__.'):
            return type('Module', (Module,), {'kind': f'{module}.{name}'})
        if module == 'torch._utils' and name == '_rebuild_tensor_v2':
            return rebuild
        if module == 'torch' and name in DTYPES:
            return DTYPES[name]
        if module == 'torch.jit._pickle' and name in LISTS:
            return list
        if module == 'torch.jit._pickle' and name == 'restore_type_tag':
            return lambda value, _: value
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        raise pickle.UnpicklingError(f'it has {module}.{name}, which is neither a module nor a tensor')

    def persistent_load(self, key: tuple) -> Tensor:
        """The numbers that a tensor is a view of (n,).

        Raises:
            UnpicklingError: no reference to numbers, or one that does not fit what is there.
        """
        kind, dtype, name, _, count = key
        if kind != 'storage' or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f'it refers to {kind!r}, expected numbers')
        if name not in self.storages:
            content = bytearray(self.archive.read(f'{self.root}/data/{name}'))
            if len(content) < count * dtype.itemsize:
                raise pickle.UnpicklingError(f'data/{name} has {len(content)} bytes, expected {count} of {dtype}')
            self.storages[name] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        return self.storages[name]


def rebuild(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    """A tensor of its numbers."""
    return storage.as_strided(size, stride, offset)


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The state dict of the archive's module: its parameters and buffers, by dotted names.

    Raises:
        pickle.UnpicklingError: there is something else than modules and tensors in it.
        zipfile.BadZipFile, KeyError, ...: a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next(name.rsplit('/', 1)[0] for name in names if name.endswith('/data.pkl') and name.count('/') == 1)
        order = archive.read(f'{root}/byteorder').decode().strip() if f'{root}/byteorder' in names else 'little'
        if order != sys.byteorder:
            raise pickle.UnpicklingError(f'its numbers are {order}-endian, this machine is {sys.byteorder}-endian')
        reader = Reader(archive, root)
        module = reader.load()
        if not isinstance(module, Module):
            raise pickle.UnpicklingError(f'it has a {type(module).__name__}, expected a module')
        return dict(walk(module, declared(archive, root)))


def declared(archive: zipfile.ZipFile, root: str) -> dict[str, set[str]]:
    """The names of the parameters and buffers of each class, from the archive's source."""
    found: dict[str, set[str]] = {}
    for name in archive.namelist():
        if not (name.startswith(f'{root}/code/') and name.endswith('.py')):
            continue
        package = name.removeprefix(f'{root}/code/').removesuffix('.py').replace('/', '.')
        here: set[str] = set()
        for line in archive.read(name).decode().splitlines():
            if match := CLASS.match(line):
                here = found.setdefault(f'{package}.{match[1]}', set())
            elif match := NAMES.match(line):
                here.update(re.findall(r'"([^"]+)"', match[1]))
    return found


def walk(module: Module, names: Mapping[str, set[str]], prefix: str = '') -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a module and of those in it, by dotted names."""
    own = names.get(module.kind, set())
    for name, value in module.attributes.items():
        if isinstance(value, Module):
            yield from walk(value, names, f'{prefix}{name}.')
        elif isinstance(value, Tensor) and name in own:
            yield f'{prefix}{name}', value
