"""The methods: METHODS is a plain list; whatever takes a method's name looks there."""

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

from clip.model import VisionTransformer
from clip.weights import file_sha256
from naclip.methods.clearclip import ClearCLIP
from naclip.methods.clip import CLIP
from naclip.methods.clip_surgery import CLIPSurgery
from naclip.methods.cliptrase import CLIPtrase
from naclip.methods.cliptrase_d2 import CLIPtraseD2
from naclip.methods.corrclip import CorrCLIP
from naclip.methods.gem import GEM
from naclip.methods.last_block import LastBlock
from naclip.methods.lposs import LPOSS, LPOSSPlus
from naclip.methods.maskclip import MaskCLIP, MaskCLIPOriginal
from naclip.methods.method import Method
from naclip.methods.naclip import NACLIP
from naclip.methods.pearl import PEARL
from naclip.methods.pixelclip import PixelCLIP
from naclip.methods.proxyclip import ProxyCLIP
from naclip.methods.resclip import ResCLIP, ResCLIPOnClearCLIP, ResCLIPOnSCLIP
from naclip.methods.sc_clip import SCCLIP
from naclip.methods.sclip import SCLIP
from naclip.names import did_you_mean, unknown
from naclip.walk.reading import Tower

METHODS: list[Method] = [
    NACLIP(),
    SCLIP(),
    CLIPtrase(),
    PixelCLIP(),
    CLIP(),
    MaskCLIP(),
    MaskCLIPOriginal(),
    CLIPSurgery(),
    GEM(),
    ClearCLIP(),
    SCCLIP(),
    ResCLIP(),
    ResCLIPOnSCLIP(),
    ResCLIPOnClearCLIP(),
    PEARL(),
    CLIPtraseD2(),
    ProxyCLIP(),
    CorrCLIP(),
    LPOSS(),
    LPOSSPlus(),
]


def method_names() -> list[str]:
    """The names of METHODS."""
    return [method.name for method in METHODS]


def find_method(name: str) -> Method:
    """The method of a name, or the one in a file of the user's own, 'path/to/mine.py:Mine'.

    Raises:
        ValueError: an unknown name (lists the valid ones), or no method there.
        FileNotFoundError: no such file.
    """
    for method in METHODS:
        if method.name == name:
            return method
    path, colon, attribute = str(name).rpartition(':')
    if colon and path.endswith('.py'):
        return load_method(Path(path), attribute)
    raise ValueError(unknown('method (--method)', name, method_names()) + '; or FILE.py:NAME, a method of your own')


def load_method(path: Path, name: str) -> Method:
    """The method of a name, a class or an instance, in a Python file, which is run for that.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be run, or has no method of that name; says why.
    """
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'method {path}:{name}: there is no file {path}')
    spec = importlib.util.spec_from_file_location(f'naclip_method_{file_sha256(path)[:12]}', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        # Not what Python compiled of it before, and takes for current where the second and the size are the same.
        exec(spec.loader.source_to_code(path.read_bytes(), str(path)), module.__dict__)
    except Exception as error:  # whatever the user's file raises
        raise ValueError(f'method {path}:{name}: the file cannot be run ({type(error).__name__}: {error})') from error
    found = getattr(module, name, None)
    try:
        method = found() if isinstance(found, type) else found
    except (TypeError, ValueError) as error:
        raise ValueError(f'method {path}:{name} cannot be made without arguments: {error}') from error
    if not isinstance(method, Method):
        there = [key for key, value in vars(module).items() if _defines(value, module.__name__)]
        raise ValueError(
            f'method {path}:{name}: expected a class that inherits naclip.methods.method.Method, or an instance; '
            f'the file has {", ".join(there) or "none"}{did_you_mean(name, there)}'
        )
    return method


def _defines(value: object, module: str) -> bool:
    return isinstance(value, Method) or (
        isinstance(value, type) and issubclass(value, Method) and value.__module__ == module
    )


def build_method(
    spec: 'str | Mapping | Method',
    attention: str | None = None,
    architecture: str | None = None,
    gaussian_std: float | None = None,
) -> Method:
    """A method from its name, or from a dict with the name as `type` and constants, as in a config.

    `attention`, `architecture` and `gaussian_std` are constants that published configs set beside it; None keeps the
    method's.

    Raises:
        ValueError, FileNotFoundError: an unknown method, or a constant that it does not have or that makes no sense.
    """
    beside = {'attention': attention, 'architecture': architecture, 'gaussian_std': gaussian_std}
    constants = {key: value for key, value in beside.items() if value is not None}
    if isinstance(spec, Mapping):
        given = dict(spec)
        if 'type' not in given:
            raise ValueError(f'method {given} has no type: expected dict(type=NAME, constant=value, ...)')
        spec = given.pop('type')
        constants = given | constants
    if isinstance(spec, type) and issubclass(spec, Method):
        spec = spec()
    method = spec if isinstance(spec, Method) else find_method(spec)
    return with_constants(method, constants)


def with_constants(method: Method, constants: Mapping[str, object]) -> Method:
    """A method with other constants.

    Raises:
        ValueError: a constant that it does not have (lists those it has), or a value of another kind.
    """
    own = method.constants
    for name, value in constants.items():
        if name not in own:
            has = f'its constants are {", ".join(own)}' if own else 'it has no constants'
            raise ValueError(f'method {method.name} has no constant {name!r}: {has}{did_you_mean(name, own)}')
        if not _fits(value, own[name]):
            raise ValueError(f'{name} of method {method.name} is {value!r}, expected something like {own[name]!r}')
    # Lists, as JSON and configs have them, serve as tuples.
    return replace(method, **{k: tuple(v) if isinstance(v, list) else v for k, v in constants.items()})


def for_tower(method: Method, visual: Tower) -> Method:
    """A method with the constants that it has for a tower of so many blocks, where nobody chose others."""
    blocks = len(visual.transformer.resblocks) if isinstance(visual, VisionTransformer) else 0
    usual = {field.name: field.default for field in fields(method)}
    constants = method.by_depth.get(blocks, {})
    unchosen = {key: value for key, value in constants.items() if getattr(method, key) == usual[key]}
    return with_constants(method, unchosen)


def _fits(value: object, default: object) -> bool:
    """Whether a value is of the kind of a default; lists serve as tuples, whole numbers as numbers."""
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple | list):
        return isinstance(value, tuple | list)
    return default is None or isinstance(value, type(default))


def method_name(method: Method) -> str:
    """What a method is called in tables: its name.

    An ablation of NACLIP, SCLIP or CLIP that is another of them is called so, whatever its σ; any other is
    'attention/architecture'.
    """
    pure = (NACLIP, SCLIP, CLIP)  # these are nothing but their last blocks
    if type(method) not in (*pure, LastBlock):
        return method.name
    block = (method.attention, method.architecture)
    names = [other.name for other in pure if block == (other.attention, other.architecture)]
    return names[0] if names else '/'.join(block)
