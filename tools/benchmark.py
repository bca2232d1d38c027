"""Time a prediction stage by stage, against a literal transcription of the formulas, in one run.

    python tools/benchmark.py --config configs/cfg_context59.py --backbone random --size 375 500

Ratios are medians over rounds that time both sides one after the other. The literal pipeline takes one window at a
time, writes attention out, pads every window's maps to the picture, and runs PAMR on explicit stacks of neighbours.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import DTYPE_NAMES, HINT, available_models
from naclip.cli import OneLineParser, add_form, positive


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description='Time a prediction stage by stage, against a literal pipeline.')
    add = parser.add_argument
    add('--config', default='configs/cfg_context59.py', help='default: %(default)s')
    add('--backbone', default='random', help=f'random (ViT-B/16), one of {", ".join(available_models())}, or {HINT}')
    add_form(parser)
    add(
        '--size',
        type=positive,
        nargs=2,
        default=(375, 500),
        metavar=('H', 'W'),
        help='of the picture; default: 375 500',
    )
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--dtype', choices=('auto', *DTYPE_NAMES), default='auto', help='of the towers')
    add('--rounds', type=positive, default=3, help='default: %(default)s')
    add('--maps', type=positive, nargs='*', default=(21, 55, 171), help='PAMR alone, at these numbers of maps')
    add('--methods', nargs='*', metavar='NAME', help='cost of these methods beside clip; without names: of all')
    add('--plan', action='store_true', help='cost of several evaluations in one pass, relative to one')
    add('--prompts', type=positive, default=160, help='to time the text tower with; default: %(default)s')
    add('--no-literal', action='store_true', help='skip the literal pipeline')
    add('--json', type=Path, metavar='FILE', help='write everything there')
    add('--sweep', type=Path, metavar='PNG', help='plot cost against pixels and names')
    return parser


if __name__ == '__main__':
    build_parser().parse_args()  # --help and wrong options are answered before the imports that take seconds

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clip import load, resolve_device, resolve_dtype
from clip.model import CLIP
from naclip.harness.configuration import chosen_method, find_step, load_config, resolve_file
from naclip.methods import method_names
from naclip.pictures.picture import fitting_size
from naclip.pipeline import Pipeline, Settings
from naclip.runs.results import device_name, package_versions
from naclip.walk.decision import class_probabilities, decide
from naclip.walk.pamr import DILATIONS, STEPS, pamr_
from naclip.walk.text import cached_text_embeddings, read_templates, text_embeddings
from naclip.walk.vocabulary import Vocabulary, read_vocabulary
from naclip.walk.windows import cut, look_through, merge_windows, window_boxes
from tools.benchmarks.clock import Clock, peak_bytes
from tools.benchmarks.literal import literal_pamr, literal_prediction, literal_text
from tools.benchmarks.methods import show_methods, time_methods

VIT_B_16 = dict(
    embed_dim=512,
    image_resolution=224,
    vision_layers=12,
    vision_width=768,
    vision_patch_size=16,
    context_length=77,
    vocab_size=49408,
    transformer_width=512,
    transformer_layers=12,
)


def tower_alone(pipeline: Pipeline, crops: Tensor) -> Tensor:
    """CLIP's own image tower on a batch of windows: what no method can do without."""
    visual = pipeline.net.visual
    return visual.project(visual.transformer(visual.embed(crops)[0]))


def time_prediction(pipeline: Pipeline, images: Tensor, size: tuple[int, int], rounds: int, literal: bool) -> Clock:
    """Time the prediction as a whole and stage by stage, the tower alone, and the literal pipeline."""
    clock = Clock(images.device)
    settings = pipeline.settings
    boxes = window_boxes(images.shape[-2:], settings.slide_crop, settings.slide_stride)
    crops = cut(images, boxes)
    pipeline(images, size)  # warm up
    for _ in range(rounds):
        clock.time('windows', cut, images, boxes)
        labels, _ = clock.time('whole', pipeline, images, size)
        clock.time('tower alone', tower_alone, pipeline, crops)
        similarity = clock.time('tower and maps', pipeline.similarity, crops)
        # Upsampling, averaging and resizing are one product of matrices.
        seen = look_through(images, boxes, lambda _, s=similarity: s)
        maps = clock.time('upsample, average, resize', merge_windows, seen, boxes, images.shape[-2:], size)
        picture = F.interpolate(images, size, mode='bilinear', align_corners=False)
        if settings.pamr_steps:
            clock.time('PAMR', pamr_, picture, maps, settings.pamr_steps, settings.pamr_stride)
        scores = clock.time(
            'softmax, synonyms', class_probabilities, maps, pipeline.vocabulary.query_idx, settings.logit_scale
        )
        clock.time('decision', decide, scores, settings.prob_thd)
        if literal:
            expected = clock.time('literal', literal_prediction, pipeline, images, size)
            agreement = (expected == labels).float().mean().item()
            if agreement < (0.999 if pipeline.net.dtype == torch.float32 else 0.95):
                raise RuntimeError(f'the literal pipeline agrees in {agreement:.2%} of the labels only')
    return clock


def time_pamr(
    device: torch.device, size: tuple[int, int], counts: Sequence[int], rounds: int, literal: bool
) -> list[dict]:
    """PAMR alone, for several numbers of maps: seconds, ratio to the literal form, extra memory."""
    rows = []
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, *size, generator=generator).to(device)
    for count in counts:
        maps = torch.rand(1, count, *size, generator=generator).to(device)
        clock = Clock(device)
        pamr_(image, maps.clone())
        for _ in range(rounds):
            mine = maps.clone()
            clock.time('PAMR', pamr_, image, mine)
            if literal:
                theirs = clock.time('literal', literal_pamr, image, maps, STEPS, DILATIONS)
                torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)
                del theirs
        extra = peak_bytes(device, pamr_, image, mine) / (4 * maps.numel())
        row = dict(maps=count, seconds=clock.median('PAMR'), memory_ratio=extra)
        rows.append(row | (dict(literal_ratio=clock.ratio('literal', 'PAMR')) if literal else {}))
    return rows


def time_text(net: CLIP, vocabulary: Vocabulary, prompts: int, rounds: int) -> dict:
    """Text embeddings of the first names, until `prompts` prompts: prompts a second, ratio to the literal form.

    And the seconds until they are there at the second start, when they come from the cache.
    """
    templates = read_templates()
    names = vocabulary.names[: max(prompts // len(templates), 1)]
    clock = Clock(net.device)
    for _ in range(rounds):
        mine = clock.time('text', lambda: text_embeddings(net, names, templates, progress=False))
        theirs = clock.time('literal', literal_text, net, names, templates)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        cached_text_embeddings(net, 'weights', names, templates, folder, progress=False)
        for _ in range(rounds):
            clock.time('warm', cached_text_embeddings, net, 'weights', names, templates, folder, False)
    return dict(
        prompts_per_second=len(names) * len(templates) / clock.median('text'),
        literal_ratio=clock.ratio('literal', 'text'),
        warm_seconds=clock.median('warm'),
    )


def time_harness(config_path: str, size: tuple[int, int], classes: int, rounds: int) -> dict:
    """Loading and resizing a JPEG, and the metric, as the harness does them: seconds."""
    from mmengine.dataset import Compose
    from mmseg.evaluation import IoUMetric
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    config = load_config(config_path)
    steps = [step for step in config.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
    pipeline, clock = Compose(steps), Clock(torch.device('cpu'))
    rng = np.random.RandomState(0)
    labels = [torch.from_numpy(rng.randint(0, classes, size)) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'picture.jpg'
        coarse = rng.randint(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
        for _ in range(rounds + 1):
            clock.time('loading', pipeline, dict(img_path=str(path)))
            clock.time('metric', IoUMetric.intersect_and_union, *labels, classes, 255)
    return {name: statistics.median(times[1:]) for name, times in clock.seconds.items()}


def sweep(device: torch.device, rounds: int, path: Path, scale: float = 1.0) -> list[dict]:
    """Seconds of PAMR and decision against pixels and number of names; draws a plot to `path`."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    base_size, base_names = (round(375 * scale), round(500 * scale)), 59
    sizes = [(round(base_size[0] * s), round(base_size[1] * s)) for s in (0.5, 0.71, 1.0, 1.41, 2.0)]
    points = [('pixels', size, base_names) for size in sizes]
    points += [('names', base_size, names) for names in (15, 30, 59, 118, 236)]
    rows = []
    for swept, size, names in points:
        image = torch.randn(1, 3, *size, device=device)
        clock = Clock(device)
        for _ in range(rounds + 1):
            maps = torch.rand(1, names, *size, device=device)
            clock.time('x', lambda i=image, m=maps: decide(class_probabilities(pamr_(i, m), range(m.shape[1]), 40.0)))
        rows.append(
            dict(swept=swept, pixels=size[0] * size[1], names=names, seconds=statistics.median(clock.seconds['x'][1:]))
        )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout='constrained')
    for axis, swept, unit in zip(
        axes, ('pixels', 'names'), ('pixels (59 names)', 'names (375x500 pixels)'), strict=True
    ):
        chosen = [row for row in rows if row['swept'] == swept]
        x, y = ([row[key] for row in chosen] for key in (swept, 'seconds'))
        slope = sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)
        axis.plot(x, y, 'o', label='measured')
        axis.plot([0, max(x)], [0, slope * max(x)], '--', label='proportional')
        axis.ticklabel_format(axis='x', style='sci', scilimits=(0, 5), useMathText=True)
        axis.set(xlabel=unit, ylabel='seconds: PAMR, softmax, decision', xlim=0, ylim=0)
        axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return rows


def build_pipeline(options: argparse.Namespace, device: torch.device) -> Pipeline:
    """The pipeline of a config; with random weights, text embeddings are random too."""
    config = load_config(options.config)
    arguments = dict(config.model)
    vocabulary = read_vocabulary(resolve_file(arguments['name_path']))
    dtype = resolve_dtype(options.dtype, device)
    torch.manual_seed(0)
    if options.backbone == 'random':
        net = CLIP(**VIT_B_16).eval().cast(dtype).to(device)
        queries = F.normalize(torch.randn(len(vocabulary.names), VIT_B_16['embed_dim']), dim=-1).to(device)
    else:
        form = dict(activation=options.activation, head_width=options.head_width)
        net, _ = load(options.backbone, device, dtype, **form)
        queries = text_embeddings(net, vocabulary.names, read_templates())
    names = ('slide_crop', 'slide_stride', 'pamr_steps', 'pamr_stride', 'logit_scale', 'prob_thd')
    settings = Settings(**{name: arguments[name] for name in names if name in arguments})
    return Pipeline(net, chosen_method(arguments), vocabulary, queries, settings).to(device)


def input_size(config_path: str, size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) that a config's Resize makes of a picture."""
    resize = find_step(load_config(config_path), 'Resize')
    if resize is None:
        return size
    return fitting_size(size, min(resize.scale), max(resize.scale))


def main(argv: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    device, size = resolve_device(options.device), tuple(options.size)
    if options.plan:
        run_plans(options, device)
        return
    with torch.inference_mode():
        pipeline = build_pipeline(options, device)
        shape = input_size(options.config, size)
        images = torch.randn(1, 3, *shape, device=device)
        if options.methods is not None:
            rows = time_methods(pipeline, options.methods or method_names(), images, size, options.rounds)
            show_methods(rows)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + '\n')
            return
        literal = not options.no_literal
        clock = time_prediction(pipeline, images, size, options.rounds, literal)
        record = dict(
            backbone=options.backbone + (' (random ViT-B/16 weights)' if options.backbone == 'random' else ''),
            config=options.config,
            dtype=str(pipeline.net.dtype).removeprefix('torch.'),
            device=device_name(device),
            versions=package_versions(),
            picture=size,
            input=shape,
            windows=len(window_boxes(shape, pipeline.settings.slide_crop, pipeline.settings.slide_stride)),
            names=len(pipeline.vocabulary.names),
            settings=asdict(pipeline.settings),
            rounds=options.rounds,
            seconds={name: clock.median(name) for name in clock.seconds},
            pictures_per_second=1 / clock.median('whole'),
            whole_to_tower=clock.ratio('whole', 'tower alone'),
            literal_to_whole=clock.ratio('literal', 'whole') if literal else None,
            peak_bytes=peak_bytes(device, pipeline, images, size),
            text=time_text(pipeline.net, pipeline.vocabulary, options.prompts, options.rounds),
            pamr=time_pamr(device, size, options.maps, options.rounds, literal),
            harness=time_harness(options.config, size, len(pipeline.vocabulary), options.rounds),
            agreement=label_agreement(pipeline, images, size),
            sweep=sweep(device, options.rounds, options.sweep) if options.sweep else None,
        )
    show(record)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + '\n')


def run_plans(options: argparse.Namespace, device: torch.device) -> None:
    """Time plans, print and keep what comes out."""
    from tools.benchmarks.plans import plot_plans, show_plans, sweep_plans, time_plans

    net = build_pipeline(options, device).net
    rows = time_plans(net, options.rounds)
    show_plans(rows)
    record = {'device': device_name(device), 'versions': package_versions(), 'rounds': options.rounds, 'plans': rows}
    if options.sweep:
        record['sweep'] = sweep_plans(net, options.rounds)
        plot_plans(record['sweep'], options.sweep)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + '\n')


def label_agreement(pipeline: Pipeline, images: Tensor, size: tuple[int, int]) -> float:
    """Share of the labels that are those of float32."""
    labels, _ = pipeline(images, size)
    dtype = pipeline.net.dtype
    pipeline.net.cast(torch.float32)
    reference, _ = pipeline(images, size)
    pipeline.net.cast(dtype)
    return (labels == reference).float().mean().item()


def show(record: dict) -> None:
    """Print a record as tables."""
    print(f'{record["config"]}, {record["names"]} names, {record["backbone"]}, {record["dtype"]}, {record["device"]}')
    height, width = record['picture']
    print(f'picture {height}x{width}, input {"x".join(map(str, record["input"]))}, {record["windows"]} windows\n')
    stages = record['seconds'] | record['harness']
    print(f'{"stage":32} {"ms":>9} {"of whole":>9}')
    for name, seconds in stages.items():
        print(f'{name:32} {1e3 * seconds:9.1f} {seconds / record["seconds"]["whole"]:9.1%}')
    print(f'\npictures/s {record["pictures_per_second"]:.2f}, peak extra memory {record["peak_bytes"] / 2**20:.0f} MiB')
    print(f'whole / tower alone {record["whole_to_tower"]:.2f}')
    if record['literal_to_whole']:
        print(f'literal / whole {record["literal_to_whole"]:.1f}')
    text = record['text']
    print(
        f'text: {text["prompts_per_second"]:.0f} prompts/s, literal / this {text["literal_ratio"]:.1f}, '
        f'from the cache {1e3 * text["warm_seconds"]:.1f} ms'
    )
    print(f'labels equal to float32: {record["agreement"]:.2%}')
    for row in record['pamr']:
        literal = f', literal / this {row["literal_ratio"]:.0f}' if 'literal_ratio' in row else ''
        memory = f'extra memory {row["memory_ratio"]:.2f} times the maps'
        print(f'PAMR, {row["maps"]} maps: {1e3 * row["seconds"]:.0f} ms, {memory}{literal}')


if __name__ == '__main__':
    main()
