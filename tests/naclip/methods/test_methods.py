"""The list of methods: found by name, in files, with constants; and what is refused."""

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from clip.model import VisionTransformer
from naclip.methods import (
    METHODS,
    build_method,
    find_method,
    for_tower,
    load_method,
    method_name,
    method_names,
    with_constants,
)
from naclip.methods.cliptrase import CLIPtrase
from naclip.methods.last_block import LastBlock, last_block, last_weights
from naclip.methods.method import Method
from naclip.methods.naclip import NACLIP
from naclip.methods.sc_clip import SCCLIP
from naclip.protocols import PROTOCOLS
from naclip.walk.attention import Term

MINE = """
from dataclasses import dataclass

from naclip.methods.last_block import last_block
from naclip.methods.method import Method
from naclip.walk.attention import Term


@dataclass(frozen=True)
class Mine(Method):
    strength: float = 1.0

    def features(self, reading, texts):
        tokens = last_block(reading, lambda q, k, v, grid: [Term(self.strength * v, v)])
        return reading.patches(tokens)


ready = Mine(strength=2.0)
number = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / 'mine.py').write_text(MINE)
    return tmp_path / 'mine.py'


def test_a_file_that_changed_at_once_is_read_anew(mine: Path, monkeypatch: pytest.MonkeyPatch):
    """Within a second and at the same size, where Python's own cache takes the old for the new."""
    monkeypatch.setattr(sys, 'dont_write_bytecode', False)
    assert load_method(mine, 'Mine').strength == 1.0
    before = mine.stat()
    mine.write_text(MINE.replace('float = 1.0', 'float = 0.5'))
    os.utime(mine, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_method(mine, 'Mine').strength == 0.5


def test_names_are_unique_and_found():
    assert len(set(method_names())) == len(METHODS)
    for method in METHODS:
        assert find_method(method.name) is method
        assert method_name(method) == method.name


def test_published_under_known_protocols():
    for method in METHODS:
        assert method.protocol in PROTOCOLS
        published = [name for name, protocol in PROTOCOLS.items() if method.name in protocol.methods]
        assert method.protocol in published or method.name == 'clip'
    assert {name for protocol in PROTOCOLS.values() for name in protocol.methods} <= set(method_names())
    assert [method.name for method in METHODS if method.pamr] == ['naclip']


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_protocols_set_constants_that_their_methods_have(protocol):
    for benchmark in (*PROTOCOLS[protocol].benchmarks, 'another'):
        constants = PROTOCOLS[protocol].changes(benchmark).get('constants', {})
        for name in PROTOCOLS[protocol].methods:
            with_constants(find_method(name), constants)


def test_every_method_says_where_it_comes_from():
    for method in METHODS:
        about = dataclasses.asdict(method.about)
        assert all(value and value == value.strip() for value in about.values())


def test_unknown_names_are_answered_with_the_known():
    with pytest.raises(ValueError, match=r"unknown method .*'nacllip': choose from naclip, .*did you mean naclip\?"):
        find_method('nacllip')
    with pytest.raises(ValueError, match=r'or FILE\.py:NAME, a method of your own'):
        find_method('sam')


def test_a_method_with_constants():
    method = build_method(dict(type='cliptrase', eps=0.3, min_samples=2))
    assert method == CLIPtrase(eps=0.3, min_samples=2)
    assert build_method('cliptrase') == CLIPtrase()
    assert build_method(method) is not None
    assert build_method('naclip', 'kk', 'vanilla', 2.0) == NACLIP('kk', 'vanilla', 2.0)
    assert build_method(dict(type='naclip', gaussian_std=3.0), gaussian_std=2.0).gaussian_std == 2.0
    assert build_method(dict(type=NACLIP, gaussian_std=3.0)) == NACLIP(gaussian_std=3.0)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (
            dict(type='cliptrase', epsilon=0.3),
            "cliptrase has no constant 'epsilon': its constants are .*, eps, ",
        ),
        (dict(type='cliptrase', eps='wide'), "eps of method cliptrase is 'wide', expected something like 1.1"),
        (dict(type='cliptrase', eps=True), 'eps of method cliptrase is True'),
        (dict(type='cliptrase', min_samples=2.5), 'min_samples of method cliptrase is 2.5'),
        (dict(type='cliptrase', cls_weight=1), 'cls_weight of method cliptrase is 1, expected something like False'),
        (dict(type='cliptrase', eps=0), 'eps 0, min_samples 7: expected > 0 and >= 1'),
        (dict(type='cliptrase', min_samples=0), 'min_samples 0'),
        (dict(type='pixelclip', feature_grid=[0, 3]), 'feature_grid is'),
        (dict(eps=0.3), 'has no type: expected dict'),
        (dict(type='naclip', attention='clip'), "attention .*'clip': choose from naclip, nonly, gav, kk, csa, vanilla"),
        (dict(type='naclip', architecture='naclip'), "architecture .*'naclip': choose from reduced, vanilla"),
        (dict(type='naclip', gaussian_std=0), 'gaussian_std is 0, expected a number > 0'),
        (dict(type='naclip', gaussian_std=-5.0), 'gaussian_std is -5.0'),
        (dict(type='naclip', gaussian_std=float('nan')), 'gaussian_std is nan'),
    ],
)
def test_bad_constants(spec, message):
    with pytest.raises(ValueError, match=message):
        build_method(spec)


def test_a_method_without_constants_says_so():
    @dataclass(frozen=True)
    class Plain(Method):
        pass

    with pytest.raises(ValueError, match="method plain has no constant 'x': it has no constants"):
        with_constants(Plain(), {'x': 1})


def test_lists_serve_as_tuples_and_whole_numbers_as_numbers():
    method = build_method(dict(type='pixelclip', feature_grid=[32, 16], gaussian_std=2))
    assert (method.feature_grid, method.gaussian_std) == ((32, 16), 2)
    assert hash(method) == hash(build_method(dict(type='pixelclip', feature_grid=(32, 16), gaussian_std=2)))


@pytest.mark.parametrize(
    ('method', 'name'),
    [
        (NACLIP(gaussian_std=2.0), 'naclip'),
        (NACLIP(attention='csa', architecture='vanilla'), 'sclip'),
        (NACLIP(attention='kk'), 'kk/reduced'),
        (LastBlock(), 'clip'),
        (CLIPtrase(attention='kk'), 'cliptrase'),
    ],
)
def test_names_of_ablations(method, name):
    assert method_name(method) == name


def test_layers_of_a_tower_with_fewer_blocks():
    visual = VisionTransformer(64, 16, 64, 2, 8)
    assert for_tower(SCCLIP(), visual) == SCCLIP(early=1, middle=1, levels=(1, 1))
    assert for_tower(SCCLIP(early=0), visual) == SCCLIP(early=0, middle=1, levels=(1, 1))  # chosen ones stay
    assert for_tower(SCCLIP(), VisionTransformer(64, 16, 64, 12, 8)) == SCCLIP()
    assert for_tower(NACLIP(), visual) == NACLIP()
    for method in METHODS:
        for constants in method.by_depth.values():
            with_constants(method, constants)


def test_immutable():
    for method in METHODS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            method.anything = 1.0


def test_whose_weights_are_those_of_its_features():
    """Whoever inherits weights, and makes features of other ones, has none until he says which."""

    class Sharper(NACLIP):
        @property
        def terms(self):
            return lambda q, k, v, grid: [Term(2 * v, v)]

    class Other(NACLIP):
        def features(self, reading, texts):
            return reading.patches(last_block(reading, lambda q, k, v, grid: [Term(v, v)]))

    class Telling(Other):
        def weights(self, reading, texts, place):
            return last_weights(reading, lambda q, k, v, grid: [Term(v, v)], place)

    class Moved(CLIPtrase):
        def maps(self, reading, texts):
            return super().maps(reading, texts).roll(1, dims=-1)

    class Silent(Method):
        pass

    assert [kind().has_weights for kind in (Sharper, Other, Telling, Moved)] == [True, False, True, False]
    assert [type('Heir', (kind,), {})().has_weights for kind in (Sharper, Other)] == [True, False]
    assert not Silent().has_weights
    with pytest.raises(NotImplementedError, match='method silent does not say with which weights'):
        Silent().weights(None, None, None)


@pytest.mark.parametrize(('name', 'strength'), [('Mine', 1.0), ('ready', 2.0)])
def test_a_method_in_a_file(mine, name, strength):
    method = find_method(f'{mine}:{name}')
    assert (method.name, method.strength) == ('mine', strength)
    assert build_method(dict(type=f'{mine}:Mine', strength=3.0)).constants == {'strength': 3.0}


def test_what_a_file_may_not_be(mine, tmp_path):
    with pytest.raises(ValueError, match=r'mine\.py:number: expected a class .* the file has Mine, ready'):
        find_method(f'{mine}:number')
    with pytest.raises(FileNotFoundError, match=r'none\.py:Mine: there is no file'):
        find_method(f'{tmp_path}/none.py:Mine')
    (tmp_path / 'broken.py').write_text('import nothing_like_it\n')
    with pytest.raises(ValueError, match=r'broken\.py:Mine: the file cannot be run \(ModuleNotFoundError: '):
        load_method(tmp_path / 'broken.py', 'Mine')
    (tmp_path / 'needs.py').write_text(MINE.replace('float = 1.0', 'float').replace('strength=2.0', '2.0'))
    with pytest.raises(ValueError, match=r"needs\.py:Mine cannot be made without arguments: .*'strength'"):
        load_method(tmp_path / 'needs.py', 'Mine')


def test_what_a_method_fills():
    @dataclass(frozen=True)
    class Refining(Method):
        def refine(self, pictures: Tensor, maps: Tensor, texts: Tensor) -> Tensor:
            return 2 * maps

    assert (Refining().refines, Refining().votes) == (True, False)
    assert (CLIPtrase().refines, CLIPtrase().votes) == (False, True)
    with pytest.raises(NotImplementedError, match='refining has no features of patches, only maps'):
        Refining().features(None, None)
