"""What several evaluations in one pass cost, relative to one: tools/benchmark.py --plan

Random ViT-B/16, pictures of 336x448, windows 224/112, PAMR off. Each round times both sides of a ratio, one after the
other; ratios are medians over rounds. Labels are counted as an evaluation counts them; nothing is loaded from files.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clip.model import CLIP
from naclip.methods import find_method, with_constants
from naclip.methods.method import Method
from naclip.panel import Panel, View
from naclip.pipeline import Pipeline, Settings, queries_of
from naclip.runs.counting import count_table, label_rows
from naclip.walk.vocabulary import Vocabulary, read_vocabulary

ROOT = Path(__file__).parents[2]
SIZE = (336, 448)
METHODS = ('clip', 'naclip', 'sclip', 'clearclip', 'maskclip', 'sc_clip', 'resclip', 'cliptrase')
SIGMAS = (1.0, 2.0, 5.0, 10.0, 20.0)
MANY = 20  # thresholds
IGNORED = 255


def embeddings(vocabulary: Vocabulary, method: Method) -> Tensor:
    """Unit vectors for names, the same for the same name (Q + companions, 512)."""
    rows = []
    for query in queries_of(vocabulary, method):
        generator = torch.Generator().manual_seed(sum(map(ord, str(query))))
        rows.append(torch.randn(512, generator=generator))
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def pipeline_of(net: CLIP, method: Method | str, vocabulary: Vocabulary, **settings: object) -> Pipeline:
    method = find_method(method) if isinstance(method, str) else method
    windows = {'slide_crop': 0} if method.votes else {}
    own = Settings(**windows | settings)
    return Pipeline(net, method, vocabulary, embeddings(vocabulary, method), own).to(net.device)


def evaluate(pipelines: Sequence[Pipeline], images: Sequence[Tensor], truth: Tensor) -> None:
    """One pass over pictures (1, 3, H, W), as the harness makes it: labels, then counts."""
    panel, everybody = Panel(pipelines), range(len(pipelines))
    rows = {k: label_rows(truth % k, k, IGNORED) for k in {len(pipeline.vocabulary) for pipeline in pipelines}}
    for image in images:
        for labelled in panel([dict.fromkeys(everybody, View(image, SIZE))], everybody, fail):
            classes = len(pipelines[labelled.member].vocabulary)
            count_table(labelled.labels, rows[classes], classes).cpu()


def evaluate_apart(pipeline: Pipeline, images: Sequence[Tensor], truth: Tensor) -> None:
    """The same of one pipeline without a panel, as earlier releases did it: scores, then counts, twice."""
    classes = len(pipeline.vocabulary)
    for image in images:
        labels, probabilities = pipeline(image, SIZE)
        probabilities / probabilities.sum(dim=1, keepdim=True)
        label, pred = (truth % classes).flatten(), labels.flatten()
        hits = pred[pred == label]
        for part in (hits, pred, label):
            torch.histc(part.float(), bins=classes, min=0, max=classes - 1)
        torch.bincount(label * classes + pred, minlength=classes**2)


def fail(members: Sequence[int], error: Exception) -> None:
    raise error


def plans(net: CLIP) -> dict[str, tuple[float, list[Pipeline]]]:
    """What is asked of each plan, as a multiple of its first run alone, and its runs."""
    voc21, voc20 = (read_vocabulary(ROOT / f'configs/cls_{name}.txt') for name in ('voc21', 'voc20'))
    naclip = find_method('naclip')
    sigmas = [with_constants(naclip, {'gaussian_std': std}) for std in SIGMAS]
    return {
        'one run': (1.02, [pipeline_of(net, naclip, voc21)]),
        '8 methods': (3.0, [pipeline_of(net, name, voc21) for name in METHODS]),
        'voc20 and voc21': (1.15, [pipeline_of(net, naclip, words) for words in (voc21, voc20)]),
        '5 values of σ x 5 of prob_thd': (
            1.8,
            [pipeline_of(net, method, voc21, prob_thd=thd / 10) for method in sigmas for thd in range(5)],
        ),
        '20 values of prob_thd': (1.1, [pipeline_of(net, naclip, voc21, prob_thd=i / 40) for i in range(MANY)]),
    }


def timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def time_plans(net: CLIP, rounds: int, pictures: int = 1) -> list[dict]:
    """A row for each plan: its cost, and that of its runs one by one, relative to one run of naclip."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 3, *SIZE, generator=generator).to(net.device) for _ in range(pictures)]
    truth = torch.randint(0, 200, SIZE, generator=generator).to(net.device)
    found = plans(net)
    one = found['one run'][1]
    evaluate(one, images, truth)  # what is made once is made
    rows = []
    for name, (asked, pipelines) in found.items():
        evaluate(pipelines, images, truth)
        together, apart = [], []
        for _ in range(rounds):
            if name == 'one run':
                unit = timed(lambda: evaluate_apart(one[0], images, truth))
            else:
                unit = timed(lambda: evaluate(one, images, truth))
            together.append(timed(lambda some=pipelines: evaluate(some, images, truth)) / unit)
            if len(pipelines) == len(METHODS):
                apart.append(sum(timed(lambda p=p: evaluate([p], images, truth)) for p in pipelines) / unit)
        rows.append(
            {
                'plan': name,
                'runs': len(pipelines),
                'ratio': statistics.median(together),
                'asked': asked,
                'alone': statistics.median(apart) if apart else None,
            }
        )
    return rows


def sweep_plans(net: CLIP, rounds: int) -> dict[str, list[tuple[int, float]]]:
    """Cost relative to one run, against how many methods, and how many thresholds, there are."""
    generator = torch.Generator().manual_seed(0)
    images, truth = [torch.randn(1, 3, *SIZE, generator=generator)], torch.randint(0, 200, SIZE, generator=generator)
    images, truth = [image.to(net.device) for image in images], truth.to(net.device)
    found = plans(net)
    methods = sorted(found['8 methods'][1], key=lambda pipeline: pipeline.method.name != 'naclip')
    lines = {'methods': (methods, (1, 2, 4, 6, 8)), 'thresholds': (found['20 values of prob_thd'][1], (1, 5, 10, 20))}
    return {
        name: [
            (
                count,
                statistics.median(
                    timed(lambda n=count, p=pipelines: evaluate(p[:n], images, truth))
                    / timed(lambda p=pipelines: evaluate(p[:1], images, truth))
                    for _ in range(rounds)
                ),
            )
            for count in counts
        ]
        for name, (pipelines, counts) in lines.items()
    }


def show_plans(rows: Sequence[dict]) -> None:
    """Print what `time_plans` found as a table."""
    print(f'{"plan":32} {"runs":>4} {"one pass / one run":>19} {"asked":>6} {"one by one":>11}')
    for row in rows:
        alone = '' if row['alone'] is None else f'{row["alone"]:11.2f}'
        print(f'{row["plan"]:32} {row["runs"]:4} {row["ratio"]:19.2f} {row["asked"]:6.2f} {alone}')


def plot_plans(lines: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Cost against the number of runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout='constrained')
    axes = figure.subplots()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker='o', label=name)
    longest = max(count for points in lines.values() for count, _ in points)
    axes.plot([1, longest], [1, longest], linestyle=':', color='grey', label='one by one')
    axes.set_xticks([1, *range(5, longest + 1, 5)])
    axes.set(xlabel='runs in one pass', ylabel='time, in runs of naclip', ylim=(0, 8))
    axes.legend()
    figure.savefig(path, dpi=150)
