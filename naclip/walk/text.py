"""Names x prompt templates to text embeddings, once, and cached on disk.

Q queries (see naclip/walk/vocabulary.py), T templates, C joint width.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from clip import CLIP, ConvNeXtCLIP, tokenize
from clip.folders import spare_folder
from naclip.files import REPOSITORY, written_whole

DEFAULT_TEMPLATES = REPOSITORY / 'prompts' / 'imagenet.txt'
CACHE_LAYOUT = 1  # goes into the key: raise it when the same inputs would give other embeddings
logger = logging.getLogger(__name__)


def read_templates(path: str | os.PathLike = DEFAULT_TEMPLATES) -> tuple[str, ...]:
    """Read a prompt-template file: one template a line, '{}' standing for the name; blank lines are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no template in it, or a line without exactly one '{}'.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'prompt-template file {path} does not exist')
    templates = tuple(line.strip() for line in path.read_text(encoding='utf-8-sig').splitlines() if line.strip())
    if not templates:
        raise ValueError(f'prompt-template file {path} is empty; expected lines such as: a photo of a {{}}.')
    for template in templates:
        if template.count('{}') != 1:
            raise ValueError(f"prompt-template file {path}: {template!r} must have '{{}}' once, where the name goes")
    return templates


@torch.no_grad()
def text_embeddings(
    model: CLIP | ConvNeXtCLIP,
    queries: Sequence[str | Sequence[str]],
    templates: Sequence[str],
    batch_size: int = 256,
    progress: bool = True,
) -> Tensor:
    """Unit text embeddings (Q, C): the normalised mean over templates of normalised prompt features.

    A query is a name, or several that share an embedding: then their normalised mean stands for a prompt.
    Prompts are encoded in order of length, so that a batch is computed only as far as its longest prompt reaches.

    Raises:
        ValueError: a name is too long for the text tower in some prompt; names it.
    """
    groups = [(query,) if isinstance(query, str) else query for query in queries]
    prompts = [template.replace('{}', name) for names in groups for template in templates for name in names]
    tokens = tokenize(prompts, model.context_length)  # (prompts, context_length)
    order = tokens.argmax(dim=-1).argsort(stable=True)  # by the position of EOT, the highest id
    features = torch.empty(len(prompts), model.text_projection.shape[1], device=model.device)
    with tqdm(total=len(prompts), desc='text embeddings', unit='prompt', disable=not progress) as bar:
        for batch in order.split(batch_size):
            encoded = model.encode_text(tokens[batch].to(model.device)).float()
            features[batch.to(model.device)] = F.normalize(encoded, dim=-1)
            bar.update(len(batch))
    if len(prompts) > len(groups) * len(templates):
        synonyms = [len(names) for names in groups for _ in templates]
        features = torch.stack([F.normalize(part.mean(dim=0), dim=-1) for part in features.split(synonyms)])
    mean = features.unflatten(0, (len(groups), len(templates))).mean(dim=1)
    return F.normalize(mean, dim=-1)


def cached_text_embeddings(
    model: CLIP | ConvNeXtCLIP,
    weights_sha256: str,
    queries: Sequence[str | Sequence[str]],
    templates: Sequence[str],
    cache_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> Tensor:
    """As `text_embeddings`, kept on disk under a key of weights, the towers' form, names, templates and dtype.

    A damaged cache file is computed anew. Files appear whole, so any number of processes may race. `cache_dir`
    defaults to `default_cache_dir() / 'text'`; a folder that cannot be written to costs a warning, not the run.
    """
    key = hashlib.sha256(
        json.dumps(
            [CACHE_LAYOUT, weights_sha256, repr(model.form), str(model.dtype), list(queries), list(templates)]
        ).encode()
    ).hexdigest()
    path = Path(cache_dir or default_cache_dir() / 'text') / f'{key}.safetensors'
    shape = (len(queries), model.text_projection.shape[1])
    embeddings = _read_cached(path, shape)
    if embeddings is None:
        embeddings = text_embeddings(model, queries, templates, progress=progress)
        _write_cached(path, embeddings)
    return embeddings.to(model.device)


def default_cache_dir() -> Path:
    """Where derived files are kept: $NACLIP_CACHE, else $XDG_CACHE_HOME/naclip, else ~/.cache/naclip."""
    if 'NACLIP_CACHE' in os.environ:
        return Path(os.environ['NACLIP_CACHE'])
    try:
        return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'naclip'
    except RuntimeError:  # there is no home
        return spare_folder()


def _read_cached(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The embeddings in a cache file; None where there is none, or a damaged one."""
    try:
        if not path.is_file():
            return None
        embeddings = load_file(path)['embeddings']
        if embeddings.shape == shape and bool((embeddings.norm(dim=-1) - 1).abs().max() < 1e-3):
            return embeddings
        reason = 'unexpected content'
    except (SafetensorError, KeyError, OSError) as error:
        reason = error
    logger.warning('computing the text embeddings anew: the cache file %s is not usable (%s)', path, reason)
    return None


def _write_cached(path: Path, embeddings: Tensor) -> None:
    """Write a cache file so that it is there whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as temporary:
            save_file({'embeddings': embeddings.cpu()}, temporary)
    except OSError as error:
        logger.warning('the text embeddings are not cached: cannot write %s (%s)', path, error)
