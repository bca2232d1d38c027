"""Where the home cannot be written to, everything works: what would be kept there is kept elsewhere, or made anew."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clip.references import hugging_face_model
from tests.conftest import ROOT

COMMIT = 'a' * 40
OF_A_HOME = (
    'NACLIP_CACHE',
    'MPLCONFIGDIR',
    'XDG_CACHE_HOME',
    'XDG_CONFIG_HOME',
    'HF_HOME',
    'HF_HUB_CACHE',
    'HF_TOKEN',
    'TRITON_CACHE_DIR',
)


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Environment variables with a home below a file, where nobody can write, not even root."""
    (tmp_path / 'file').touch()
    (tmp_path / 'temporary').mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in OF_A_HOME}
    return kept | {'HOME': str(tmp_path / 'file' / 'home'), 'TMPDIR': str(tmp_path / 'temporary')}


@pytest.fixture
def spare(tmp_path: Path) -> Path:
    return tmp_path / 'temporary' / f'naclip-{os.getuid()}'


def run(surroundings: dict[str, str], *command: object) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr
    return done


@pytest.mark.slow
def test_an_evaluation(surroundings: dict[str, str], spare: Path, tmp_path: Path):
    options = ['--config', 'shapes', '--limit', '1', '--work-dir', tmp_path / 'work', '--device', 'cpu']
    said = run(surroundings, 'eval.py', *options, '--cfg-options', 'test_dataloader.num_workers=0').stderr
    assert said.count('.cache/naclip cannot be written to ([Errno 20] Not a directory: ') == 1
    assert said.count('the text embeddings are not cached') == 1
    assert json.loads((tmp_path / 'work' / 'results.json').read_text())['images'] == 1
    assert [path.name.partition('-')[0] for path in spare.iterdir()] == ['shapes']  # made once


@pytest.mark.slow
def test_a_picture(surroundings: dict[str, str], tmp_path: Path):
    """Text embeddings, and what Matplotlib and numba keep."""
    options = ['--backbone', 'shapes', '--short-side', '56', '--classes', 'stone; sky', '--pamr', 'on']
    said = run(surroundings, 'tools/segment.py', ROOT / 'docs/garden.png', *options, '-o', tmp_path / 'out').stderr
    assert said.count('the text embeddings are not cached') == 1
    assert (tmp_path / 'out' / 'garden_overlay.png').is_file()


@pytest.mark.slow
def test_kernels_of_triton(surroundings: dict[str, str], spare: Path):
    pytest.importorskip('triton')
    code = 'import naclip.walk.pamr_triton, triton; print(triton.knobs.cache.dir)'
    assert run(surroundings, '-c', code).stdout == f'{spare}\n'
    surroundings['TRITON_CACHE_DIR'] = '/mine'
    assert run(surroundings, '-c', code).stdout == '/mine\n'


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub with one repository, of a model in several files."""
    hugging_face_model().save_pretrained(tmp_path / 'model', max_shard_size='1MB')

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            path = tmp_path / 'model' / self.path.rpartition('/')[2]
            there = '/resolve/' in self.path and path.is_file()
            self.send_response(200 if there else 404)
            self.send_header('X-Repo-Commit', COMMIT)
            self.send_header('Content-Length', str(path.stat().st_size if there else 0))
            if there:
                self.send_header('ETag', f'"{path.name}"')
            else:
                self.send_header('X-Error-Code', 'EntryNotFound')
            self.end_headers()
            if there and self.command == 'GET':
                self.wfile.write(path.read_bytes())

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()
        thread.join()


HUB = """
import logging
from clip.sources import open_checkpoint
logging.basicConfig()
checkpoint = open_checkpoint('hf-hub:some/model')
print(checkpoint.statement.revision, checkpoint.path, len(checkpoint.state_dict))
"""


@pytest.mark.slow
def test_a_backbone_of_the_hub(surroundings: dict[str, str], spare: Path, hub: str):
    """Fetched as it is: index and all shards, of one commit."""
    pytest.importorskip('huggingface_hub')
    done = run(surroundings | {'HF_ENDPOINT': hub, 'no_proxy': '127.0.0.1'}, '-c', HUB)
    index = spare / f'models--some--model/snapshots/{COMMIT}/model.safetensors.index.json'
    assert done.stdout.split()[:2] == [COMMIT, str(index)]
    assert len(list(index.parent.glob('model-*.safetensors'))) > 1
    assert done.stderr.count('cannot be written to') == 1
