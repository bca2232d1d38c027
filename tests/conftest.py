"""What tests share: the goldens, and the stand-in CLIP under which they were taken."""

import atexit
import os
import shutil
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from clip.convnext import TRUNKS
from clip.model import CLIP, build_model
from naclip.walk.vocabulary import Vocabulary, read_vocabulary
from tests.goldens.weights import stand_in_state_dict

ROOT = Path(__file__).parents[1]
TOWER = dict(
    embed_dim=64,
    image_resolution=64,
    vision_layers=3,
    vision_width=128,
    patch_size=16,
    context_length=77,
    vocab_size=49408,
    text_width=64,
    text_layers=2,
)

# Examples are the same in every run, so that a change of the code is what makes a test fail.
hypothesis.settings.register_profile('naclip', deadline=None, max_examples=50, derandomize=True)
hypothesis.settings.load_profile('naclip')

# The tensors are small. Threads that wait for each other triple the time where other processes want the cores, too.
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'  # for processes that tests start

# Whoever runs the tests in the background of a shell has SIGINT ignored, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Caches are written here in place of the home, which may be read-only, or hold what another run left. All processes of
# a run have them in common: texts are encoded once.
if 'NACLIP_TESTS_CACHES' not in os.environ:
    os.environ['NACLIP_TESTS_CACHES'] = tempfile.mkdtemp(prefix='naclip-tests-')
    atexit.register(shutil.rmtree, os.environ['NACLIP_TESTS_CACHES'], ignore_errors=True)
CACHES = Path(os.environ['NACLIP_TESTS_CACHES'])
os.environ |= {'NACLIP_CACHE': str(CACHES / 'naclip'), 'MPLCONFIGDIR': str(CACHES / 'matplotlib')}

NO_BROWSER = 'not tested in a browser'  # how the reason for such a skip begins


def free_port() -> int:
    """A port that nothing listens at: several runs of the tests may share a machine."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [str(report.longrepr[-1]) for report in terminalreporter.stats.get('skipped', [])]
    reasons = [reason.removeprefix('Skipped: ') for reason in skipped if NO_BROWSER in reason]
    if reasons:
        terminalreporter.section('pages')
        terminalreporter.line(f'{len(reasons)} tests of pages were left out: {", ".join(dict.fromkeys(reasons))}')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with many slow tests come first: of several processes, none is then long alone at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker('slow'))
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker('cuda') and not torch.cuda.is_available():
        pytest.skip('no CUDA device')


@pytest.fixture(autouse=True, scope='session')
def _full_float32() -> None:
    """No TF32: the tolerances are those of float32."""
    torch.backends.cuda.matmul.fp32_precision = 'ieee'
    torch.backends.cudnn.conv.fp32_precision = 'ieee'


@pytest.fixture(scope='module')
def default_scope_given_back() -> Iterator[None]:
    """A Runner sets MMEngine's default scope for the whole process; after the module it is what it was."""
    from mmengine.registry import DefaultScope

    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope='session')
def golden() -> dict[str, Tensor]:
    """Outputs of NACLIP, and the pictures `image_{i}`."""
    return _load_golden('naclip')


@pytest.fixture(scope='session')
def sclip_golden() -> dict[str, Tensor]:
    """Outputs of SCLIP on the same pictures."""
    return _load_golden('sclip')


@pytest.fixture(scope='session')
def pixelclip_golden() -> dict[str, Tensor | np.ndarray]:
    """Outputs of PixelCLIP's dense reading, on pictures of its own."""
    return _load_golden('pixelclip')


@pytest.fixture(scope='session')
def cliptrase_golden() -> dict[str, Tensor | np.ndarray]:
    """Outputs of CLIPtrase, on pictures of its own, under a deeper tower (`deep_model`)."""
    return _load_golden('cliptrase')


@pytest.fixture(scope='session')
def deep_model() -> CLIP:
    """The stand-in CLIP of CLIPtrase's goldens, on the CPU in float32."""
    return build_model(stand_in_state_dict(**TOWER | dict(vision_layers=12, image_resolution=128)))


def _load_golden(name: str) -> dict[str, Tensor]:
    with np.load(ROOT / 'tests' / 'goldens' / f'{name}.npz') as file:
        arrays = {key: file[key] for key in file.files}
    return {key: array if array.dtype.kind == 'U' else torch.from_numpy(array) for key, array in arrays.items()}


@pytest.fixture(scope='session')
def state_dict() -> dict[str, Tensor]:
    """The weights under which the goldens were taken."""
    return stand_in_state_dict(**TOWER)


@pytest.fixture(scope='session')
def tiny_state_dict() -> dict[str, Tensor]:
    """A CLIP that no tokenizer fits, but quick to write and read."""
    return stand_in_state_dict(**TOWER | dict(vocab_size=100, vision_layers=2, text_layers=1))


@pytest.fixture(scope='session')
def make_model(state_dict: dict[str, Tensor]) -> Callable[..., CLIP]:
    """The stand-in CLIP on a device, in a dtype; models are shared, so tests leave them as they are."""
    models: dict[tuple, CLIP] = {}

    def make(device: torch.device | str = 'cpu', dtype: torch.dtype = torch.float32) -> CLIP:
        key = (str(device), dtype)
        if key not in models:
            models[key] = build_model(state_dict).cast(dtype).to(device)
        return models[key]

    return make


@pytest.fixture(scope='session')
def model(make_model: Callable[..., CLIP]) -> CLIP:
    """The stand-in CLIP on the CPU in float32."""
    return make_model()


def with_entries(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the three numbers by which OpenAI's archives are known."""
    numbers = dict(input_resolution=64, context_length=77, vocab_size=len(weights['token_embedding.weight']))
    return weights | {name: torch.tensor(value) for name, value in numbers.items()}


@pytest.fixture(scope='session')
def checkpoint_file(state_dict: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in CLIP as a .safetensors file, with OpenAI's entries."""
    path = tmp_path_factory.mktemp('checkpoint') / 'stand-in.safetensors'
    safetensors.torch.save_file(with_entries(state_dict), path)
    return path


@pytest.fixture(scope='session')
def voc21_file() -> Path:
    return ROOT / 'configs' / 'cls_voc21.txt'


@pytest.fixture(scope='session')
def voc21(voc21_file: Path) -> Vocabulary:
    return read_vocabulary(voc21_file)


@pytest.fixture(scope='session')
def batch(golden: dict[str, Tensor]) -> Tensor:
    """Three different pictures of one size, off the native grid and not square (3, 3, 80, 112)."""
    picture = golden['image_1']
    return torch.cat([picture, picture.flip(-1), picture.roll(29, dims=-2) * 0.7 + 0.2])


def unambiguous(golden: dict[str, Tensor], key: str) -> Tensor:
    """The pixels of a predicted label map whose best class is clear: bool, shaped as the map."""
    shape = golden[f'{key}/label'].shape
    bits = np.unpackbits(golden[f'{key}/ambiguous'].numpy())[: shape.numel()]
    return torch.from_numpy(bits == 0).view(shape)


@pytest.fixture(scope='session')
def convnext_parts() -> Iterator[nn.Module]:
    """OpenCLIP's model of a small ConvNeXt, which the session's `build_convnext` knows; random weights."""
    open_clip = pytest.importorskip('open_clip')
    stages = tuple((1, width) for width in (32, 64, 96, 128))
    vision = dict(timm_model_name='test_convnext2', timm_pool='', timm_proj='linear', image_size=320)
    text = dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=2)
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setitem(TRUNKS, stages, 'test_convnext2')
        torch.manual_seed(0)
        parts = open_clip.CLIP(64, vision, text).eval()
        for parameter in parts.parameters():  # nothing stays 0 or 1
            parameter.data += 0.1 * torch.randn(parameter.shape)
        yield parts
