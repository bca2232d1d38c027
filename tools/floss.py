"""Rank templates for each class on unlabelled pictures (FLOSS): floss.py PICTURES --config CONFIG -o ranking.json

The pictures are resized and seen as the config has it, under protocol floss; then `eval.py --template-ranking FILE`
hears, for each class, the four templates that are surest of it.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import DTYPE_NAMES
from naclip.cli import OneLineParser, add_pictures, answer, positive
from naclip.files import written_whole
from tools.segment import find_pictures

if TYPE_CHECKING:
    from torch import Tensor


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_pictures(parser)
    add('--config', required=True, help='benchmark: a configs/cfg_*.py; its classes are ranked')
    add('--method', default='naclip', metavar='NAME', help='default: %(default)s')
    add('--backbone', help='default: the config')
    add('--templates', metavar='FILE', help='default: the 80 of CLIP')
    add('--limit', type=positive, metavar='N', help='the first N pictures only')
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--dtype', choices=('auto', *DTYPE_NAMES), default='auto', help='default: float16 on CUDA, else float32')
    add('-o', '--out', type=Path, required=True, metavar='FILE')
    return parser


def run(options: argparse.Namespace) -> None:
    """Rank the templates and write the file.

    Raises:
        ValueError, OSError: something that cannot be used; says which and why.
    """
    # These take seconds: only once the options are known to be good.
    import torch

    from naclip.floss import check_floss, rank_templates, ranking_record
    from naclip.harness import configuration
    from naclip.harness.segmentor import NACLIP
    from naclip.pictures.picture import network_input, read_picture
    from naclip.walk.text import DEFAULT_TEMPLATES, cached_text_embeddings, read_templates

    templates = options.templates or DEFAULT_TEMPLATES

    benchmark = configuration.benchmark_name(options.config)
    config = configuration.load_config(options.config)
    check_floss(configuration.apply_method(config, options.method))
    configuration.apply_protocol(config, 'floss', benchmark)
    arguments = {key: value for key, value in config.model.items() if key != 'type'}
    arguments |= {'device': options.device, 'dtype': options.dtype, 'templates': templates}
    arguments |= {'name_path': configuration.resolve_file(config.model.name_path)}
    arguments |= {'clip_path': options.backbone} if options.backbone else {}
    pictures = find_pictures(options.pictures)[0][: options.limit]
    segmentor = NACLIP(**arguments)
    pipeline = segmentor.pipeline
    texts = read_templates(templates)
    queries = (*pipeline.vocabulary.queries, *pipeline.method.companions)
    sha256, cache = segmentor.checkpoint.sha256, config.model.get('cache_dir')
    features = [
        cached_text_embeddings(pipeline.net, sha256, queries, [text], cache, progress=False)
        for text in tqdm(texts, desc='templates', unit='template')
    ]
    step = configuration.find_step(config, 'Resize')

    def seen() -> Iterator[tuple['Tensor', tuple[int, int]]]:
        for path in tqdm(pictures, unit='picture'):
            picture = read_picture(path)
            size = (picture.height, picture.width)
            images = network_input(picture, fitting(size, step.scale) if step else size)
            yield images.to(pipeline.net.device), size

    entropies = rank_templates(pipeline, seen(), torch.stack(features))
    record = ranking_record(entropies, pipeline.vocabulary, texts)
    record |= {'method': options.method, 'benchmark': benchmark, 'pictures': len(pictures), 'weights': sha256}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(options.out) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding='utf-8')
    unseen = [name for name, entry in record['classes'].items() if not entry['entropy_ranking']]
    print(f'{options.out}: {len(texts)} templates ranked for {len(record["classes"])} classes')
    if unseen:
        print(f'floss.py: no template ever predicted {", ".join(unseen)}; show more pictures', file=sys.stderr)


def fitting(size: tuple[int, int], scale: Sequence[int]) -> tuple[int, int]:
    """The largest size (H, W) of that aspect that fits in (long side, short side), as the configs resize."""
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return tuple(int(side * factor + 0.5) for side in size)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    options = build_parser().parse_args(argv)
    return answer('floss.py', lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
