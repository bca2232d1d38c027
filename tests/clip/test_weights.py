"""Reading checkpoints in every format, refusing what is none, and downloading."""

import hashlib
import http.server
import io
import os
import pickle
import re
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

import clip
import clip.weights
from clip.folders import spare_folder
from clip.model import build_model
from clip.sources import open_checkpoint
from clip.weights import Release, download, known_words, read_checkpoint
from tests.conftest import with_entries

NAMES = ['ViT-B/32', 'ViT-B/16', 'ViT-L/14', 'ViT-L/14@336px']


def save_torchscript(weights: dict[str, Tensor], path: Path, dtype: torch.dtype = torch.float32) -> None:
    """As OpenAI's archives: a traced CLIP, with three numbers beside its weights."""
    model = build_model(weights).cast(dtype)
    del model.context_length  # a plain attribute here, a number among the weights there
    for name, value in dict(input_resolution=64, context_length=77, vocab_size=100).items():
        model.register_buffer(name, torch.tensor(value))
    examples = (torch.zeros(1, 3, 64, 64), torch.arange(77)[None])
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=torch.jit.TracerWarning)
        warnings.filterwarnings('ignore', '`torch.jit.* is deprecated', FutureWarning)
        warnings.filterwarnings('ignore', '`torch.jit.* is deprecated', DeprecationWarning)
        torch.jit.save(torch.jit.trace(model, examples, check_trace=False), path)


def save_detectron2(weights: dict[str, Tensor], path: Path) -> None:
    """As PixelCLIP's checkpoints: the CLIP that was trained, among what else a trainer saves."""
    model = {f'sem_seg_head.predictor.clip_model.{name}': tensor for name, tensor in weights.items()}
    others = {
        'sem_seg_head.predictor.teacher.visual.conv1.weight': torch.zeros(3, 3),
        'sem_seg_head.predictor.prompts': torch.zeros(4, 8),
        'clip_pixel_mean': torch.zeros(3, 1, 1),
    }
    state = {'optimizer': {'state': {}, 'param_groups': [{'lr': 1e-4}]}, 'iteration': 9999}
    torch.save({'model': others | model, **state}, path)


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in weights.items()}


FORMATS = {
    'torchscript': ('m.pt', save_torchscript),
    'torchscript-float16': ('m.pt', partial(save_torchscript, dtype=torch.float16)),
    'torch': ('m.pt', torch.save),
    'torch-other-suffix': ('m.bin', torch.save),
    'torch-float16': ('m.pt', lambda weights, path: torch.save(halved(weights), path)),
    'torch-legacy': ('m.pth', partial(torch.save, _use_new_zipfile_serialization=False)),
    'under-state_dict': ('m.pt', lambda weights, path: torch.save({'state_dict': weights, 'epoch': 3}, path)),
    'under-model': ('m.pt', lambda weights, path: torch.save({'model': weights}, path)),
    'detectron2': ('model_final.pth', save_detectron2),
    'safetensors': ('m.safetensors', safetensors.torch.save_file),
    'safetensors-float16': ('m.safetensors', lambda weights, path: safetensors.torch.save_file(halved(weights), path)),
}


@pytest.fixture
def tiny_file(tiny_state_dict, tmp_path) -> Path:
    path = tmp_path / 'tiny.pt'
    torch.save(with_entries(tiny_state_dict), path)
    return path


@pytest.mark.parametrize('kind', FORMATS)
def test_every_format(tiny_state_dict, tmp_path, kind):
    name, save = FORMATS[kind]
    save(tiny_state_dict, tmp_path / name)
    model, preprocess = clip.load(tmp_path / name, device='cpu', activation='quick_gelu', head_width=64)
    loaded = model.state_dict()
    assert set(loaded) == set(tiny_state_dict)
    # The stand-in weights are representable in float16, but for the temperature.
    for key, tensor in tiny_state_dict.items():
        torch.testing.assert_close(loaded[key], tensor, rtol=1e-3 if key == 'logit_scale' else 0, atol=0)
    assert model.dtype == torch.float32
    assert not model.training
    assert preprocess(Image.new('RGB', (5, 9))).shape == (3, 64, 64)


def test_path_may_be_a_string(tiny_file):
    assert clip.load(str(tiny_file), device='cpu')[0].visual.input_resolution == 64


def test_checkpoint_says_where_it_came_from(tiny_state_dict, tmp_path):
    path = tmp_path / 'm.safetensors'
    safetensors.torch.save_file(tiny_state_dict, path, metadata={'known_words': '["cat", "dog"]'})
    _, _, checkpoint = clip.load_checkpoint(path, device='cpu')
    assert checkpoint.path == path
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert known_words(checkpoint.metadata) == {'cat', 'dog'}
    assert known_words({}) is None


@pytest.mark.parametrize(
    ('dtype', 'expected'),
    [
        ('auto', torch.float32),
        ('float32', torch.float32),
        ('float16', torch.float16),
        ('bfloat16', torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_dtype_on_the_cpu(tiny_file, dtype, expected):
    model, _ = clip.load(tiny_file, device='cpu', dtype=dtype)
    assert model.dtype == expected
    assert model.visual.ln_pre.weight.dtype == torch.float32
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).dtype == expected


@pytest.mark.cuda
def test_defaults_on_cuda(tiny_file):
    model, _ = clip.load(tiny_file)
    assert (model.device.type, model.dtype) == ('cuda', torch.float16)


def test_unknown_dtype_and_device(tiny_file):
    with pytest.raises(ValueError, match="'half': choose from auto, float32, float16, bfloat16"):
        clip.load(tiny_file, device='cpu', dtype='half')
    with pytest.raises(ValueError, match=r'did you mean float16\?$'):
        clip.load(tiny_file, device='cpu', dtype='flaot16')
    with pytest.raises(ValueError, match=r"unknown device 'cdua': choose from auto, cpu, .* did you mean cuda\?$"):
        clip.load(tiny_file, device='cdua')


def test_available_models():
    assert clip.available_models() == [*NAMES, 'shapes']


@pytest.mark.parametrize('name', ['ViT-B/8', 'vit-b/16', 'no/such/file.pt', '', '.'])
def test_unknown_name_lists_the_choices(name):
    with pytest.raises(ValueError, match=rf'{re.escape(repr(name))}.*{re.escape(", ".join(NAMES))}'):
        clip.load(name)


def test_preprocess_by_hand(tiny_file):
    _, preprocess = clip.load(tiny_file, device='cpu')
    noise = np.random.RandomState(0).randint(0, 256, (100, 150, 3)).astype(np.uint8)
    picture = Image.fromarray(noise)
    resized = np.asarray(picture.resize((96, 64), Image.Resampling.BICUBIC))[:, 16:80] / 255
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    expected = torch.from_numpy((resized - mean) / std).permute(2, 0, 1).float()
    torch.testing.assert_close(preprocess(picture), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK'])
@pytest.mark.parametrize('size', [(64, 64), (200, 70), (30, 31)])
def test_preprocess_any_picture(tiny_file, mode, size):
    assert clip.load(tiny_file, device='cpu')[1](Image.new(mode, size)).shape == (3, 64, 64)


class RunsCode:
    """A pickle of this would write a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, 'gotcha')


@pytest.mark.parametrize('as_zip', [True, False])
def test_a_pickle_cannot_run_code(tmp_path, as_zip):
    path, trace = tmp_path / 'evil.pt', tmp_path / 'trace'
    if as_zip:
        torch.save({'state_dict': RunsCode(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({'state_dict': RunsCode(trace)}))
    with pytest.raises(ValueError, match=r'cannot read the checkpoint .*evil\.pt'):
        clip.load(path)
    assert not trace.exists()


@pytest.mark.parametrize('kind', ['torchscript', 'torch', 'torch-legacy', 'safetensors'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.999])
def test_truncated_file(tiny_state_dict, tmp_path, kind, share):
    name, save = FORMATS[kind]
    path = tmp_path / name
    save(tiny_state_dict, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf'cannot read the checkpoint .*{re.escape(name)}: truncated'):
        clip.load(path)


@pytest.mark.parametrize('name', ['m.pt', 'm.safetensors'])
@pytest.mark.parametrize('content', [b'\x00' * 100, b'<html>404</html>', bytes(range(256)) * 9, b'PK\x03\x04junk'])
def test_garbage(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf'cannot read the checkpoint .*{re.escape(name)}'):
        clip.load(tmp_path / name)


@pytest.mark.parametrize('content', [{}, [1, 2], torch.zeros(3), {'a': 1}, {'state_dict': {}}, {'model': {'a': 'b'}}])
def test_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / 'm.pt')
    with pytest.raises(ValueError, match=r'm\.pt holds no state dict'):
        clip.load(tmp_path / 'm.pt')


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({'fc.weight': torch.zeros(2, 2)}, 'visual.conv1.weight'),
        ({0: torch.zeros(2, 2)}, 'visual.conv1.weight'),
        ({'visual.layer1.0.conv1.weight': torch.zeros(1)}, 'ResNet image tower'),
    ],
)
def test_not_a_vit_clip(tmp_path, weights, message):
    torch.save(weights, tmp_path / 'm.pt')
    with pytest.raises(ValueError, match=rf'm\.pt.*{message}'):
        clip.load(tmp_path / 'm.pt')


@dataclass
class Server:
    """A file server on this machine, and what it was asked."""

    content: bytes
    ranges: bool = True  # answers Range requests with the range
    stop_after: int | None = None  # closes the connection after so many bytes of the next answer
    error: int | None = None  # answers with this status
    requests: list[str | None] = field(default_factory=list)  # their Range headers
    port: int = 0

    def release(self, sha256: str | None = None) -> Release:
        sha256 = sha256 or hashlib.sha256(self.content).hexdigest()
        return Release(f'http://127.0.0.1:{self.port}/models/{sha256}/tiny.pt', sha256)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get('Range')
        self.requests.append(asked)
        start = int(re.fullmatch(r'bytes=(\d+)-', asked)[1]) if asked and self.ranges else 0
        if self.error or start >= len(self.content):
            handler.send_error(self.error or 416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header('Content-Length', str(len(self.content) - start))
        handler.end_headers()
        handler.wfile.write(self.content[start:][: self.stop_after])
        self.stop_after = None


@pytest.fixture
def server(tiny_state_dict, monkeypatch) -> Iterator[Server]:
    """Serves a checkpoint, as the release of ViT-B/16."""
    buffer = io.BytesIO()
    torch.save(tiny_state_dict, buffer)
    state = Server(buffer.getvalue())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    state.port = httpd.server_address[1]
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(clip.weights, 'RELEASES', clip.weights.RELEASES | {'ViT-B/16': state.release()})
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_download_once(server, tmp_path):
    root = tmp_path / 'deep' / 'er'
    for _ in range(2):
        model, _, checkpoint = clip.load_checkpoint('ViT-B/16', device='cpu', download_root=root)
        assert model.visual.input_resolution == 64
    assert checkpoint.path == root / 'tiny.pt'
    assert checkpoint.path.read_bytes() == server.content
    assert server.requests == [None]
    assert not (root / 'tiny.pt.part').exists()


def test_default_root_is_in_the_home_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert open_checkpoint('ViT-B/16').path == tmp_path / '.cache' / 'clip' / 'tiny.pt'


def test_without_a_home_to_write_to(server, tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('HOME', str(tmp_path / 'file' / 'home'))
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    for _ in range(2):
        assert open_checkpoint('ViT-B/16').path == spare_folder() / 'tiny.pt'
    assert server.requests == [None]
    assert [record.name for record in caplog.records] == ['clip.folders'] * 2


def test_a_file_in_its_place_is_for_reading_alone(server, tmp_path):
    (tmp_path / 'tiny.pt').write_bytes(server.content)
    assert open_checkpoint('ViT-B/16', tmp_path).path == tmp_path / 'tiny.pt'
    assert os.listdir(tmp_path) == ['tiny.pt']


@pytest.mark.parametrize('ranges', [True, False], ids=['ranges', 'no-ranges'])
@pytest.mark.parametrize('have', [1, 1000])
def test_resume(server, tmp_path, ranges, have):
    server.ranges = ranges
    (tmp_path / 'tiny.pt.part').write_bytes(server.content[:have])
    assert download(server.release(), tmp_path).read_bytes() == server.content
    assert server.requests == [f'bytes={have}-']


def test_resume_of_a_whole_file(server, tmp_path):
    (tmp_path / 'tiny.pt.part').write_bytes(server.content)
    assert download(server.release(), tmp_path).read_bytes() == server.content


def test_broken_connection_can_be_resumed(server, tmp_path):
    server.stop_after = 1000
    with pytest.raises(ConnectionError, match=f'after 1000 of {len(server.content)} bytes'):
        download(server.release(), tmp_path)
    assert not (tmp_path / 'tiny.pt').exists()
    assert download(server.release(), tmp_path).read_bytes() == server.content
    assert server.requests == [None, 'bytes=1000-']


@pytest.mark.parametrize('part', [None, b'not the beginning', b'x' * 10_000_000], ids=['none', 'wrong', 'too-long'])
def test_wrong_checksum_removes_the_file(server, tmp_path, part):
    release = server.release() if part else server.release('0' * 64)
    if part:
        (tmp_path / 'tiny.pt.part').write_bytes(part)
    with pytest.raises(ValueError, match=rf'SHA-256 [0-9a-f]{{64}}, expected {release.sha256}.*removed'):
        download(release, tmp_path)
    assert not list(tmp_path.glob('tiny.pt')) + list(tmp_path.glob('*.part'))
    if part:  # the next try starts anew
        assert download(release, tmp_path).read_bytes() == server.content


def assert_unreachable(release: Release, root: Path) -> None:
    with pytest.raises(ConnectionError, match=rf'{re.escape(release.url)}.*put it at {re.escape(str(root))}/tiny\.pt'):
        download(release, root)
    assert not (root / 'tiny.pt').exists()


@pytest.mark.parametrize('status', [403, 404, 500])
def test_server_refuses(server, tmp_path, status):
    server.error = status
    assert_unreachable(server.release(), tmp_path)


def test_server_down(tmp_path, monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))  # not listening
        assert_unreachable(Server(b'', port=unused.getsockname()[1]).release(), tmp_path)


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_unusable_root(server, tmp_path, below):
    (tmp_path / 'file').write_text('in the way')
    assert_unreachable(server.release(), tmp_path / 'file' / below)


def test_many_at_once(server, tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: download(server.release(), tmp_path), range(8)))
    assert {path.read_bytes() for path in paths} == {server.content}
    assert server.requests == [None]


def test_other_file_under_a_known_name_is_refused(server, tiny_state_dict, tmp_path):
    torch.save(tiny_state_dict | {'logit_scale': torch.tensor(1.0)}, tmp_path / 'tiny.pt')
    with pytest.raises(ValueError, match=r'tiny\.pt is not the published ViT-B/16.*remove the file'):
        clip.load('ViT-B/16', download_root=tmp_path)
    assert server.requests == []


def test_damaged_file_under_a_known_name_is_refused(server, tmp_path):
    (tmp_path / 'tiny.pt').write_bytes(server.content[:-10])
    with pytest.raises(ValueError, match=r'tiny\.pt'):
        clip.load('ViT-B/16', download_root=tmp_path)


def test_published_addresses_hold_their_checksums():
    for name, file_name in zip(NAMES, ['ViT-B-32', 'ViT-B-16', 'ViT-L-14', 'ViT-L-14-336px'], strict=True):
        release = clip.weights.RELEASES[name]
        assert release.url.endswith(f'/{release.sha256}/{file_name}.pt')
        assert release.file_name == f'{file_name}.pt'
        assert re.fullmatch('[0-9a-f]{64}', release.sha256)


def test_bundled_file_needs_no_download(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr(clip.weights, 'BUNDLED', {'shapes': tiny_file})
    assert open_checkpoint('shapes', tmp_path / 'unused').path == tiny_file
    assert not (tmp_path / 'unused').exists()


def test_read_checkpoint_keeps_dtypes(tiny_state_dict, tmp_path):
    torch.save(halved(tiny_state_dict), tmp_path / 'm.pt')
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path / 'm.pt').state_dict.values()} == {torch.float16}
