"""Train the tiny CLIP of the embedded benchmark on generated pictures and captions: clip/shapes.safetensors.

The loss is CLIP's symmetric InfoNCE between pictures and captions; no label map is used. Much of the recipe favours
dense reading, which a tiny tower on tiny data does not learn by the way as CLIP did:
- half of the pictures are smaller than a window, so that they show one or two classes (`SMALL_SIDES`);
- of the others, half of the patches are mostly dropped;
- a picture is read at CLS as CLIP reads it in a quarter of the steps; at CLS of a last block without residual and FFN
  in another; and in half, as the mean of the patch features that NACLIP's last block gives (`READINGS`);
- in half of the steps patches cannot attend to CLS before the last block;
- the last block's keys, which NACLIP compares, are pulled to one length and to a mean of zero (`key_penalty`).
A caption that happens to be true of another picture in the batch is no negative for it.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from clip.releases import BUNDLED
from naclip.cli import OneLineParser, positive


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description='Train the tiny CLIP of the embedded benchmark.')
    add = parser.add_argument
    add('--seed', type=int, default=1, help='of weights, pictures and captions; default: %(default)s')
    add('--steps', type=positive, default=1500, help='default: %(default)s')
    add('--batch', type=positive, default=128, help='pairs a step; default: %(default)s')
    add('--pool', type=positive, default=12_000, help='different full-size pictures; default: %(default)s')
    add('--learning-rate', type=float, default=2e-3, help='at its peak; default: %(default)s')
    add('--watch', type=int, default=500, help='steps between reports on development pictures, 0: none')
    add('--device', help='cpu, cuda or cuda:INDEX; default: cuda where there is one')
    add('--out', type=Path, default=BUNDLED['shapes'], help='default: %(default)s')
    return parser


if __name__ == '__main__':
    build_parser().parse_args()  # --help and wrong options are answered before the imports that take seconds

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from clip import CONTEXT_LENGTH, MEAN, STD, resolve_device, tokenize
from clip.model import CLIP, ResidualAttentionBlock, VisionTransformer
from clip.tokenizer import default_tokenizer
from naclip.files import written_whole
from naclip.methods import find_method
from naclip.pipeline import Pipeline, Settings
from naclip.runs.results import PixelCounts
from naclip.shapes import generator as shapes
from naclip.walk.attention import Term, attend, gaussian_bias
from naclip.walk.text import read_templates, text_embeddings
from naclip.walk.vocabulary import Vocabulary

SIZES = dict(
    embed_dim=64,
    image_resolution=shapes.TRAIN_SIDE,
    vision_layers=2,
    vision_width=192,
    vision_patch_size=8,
    context_length=CONTEXT_LENGTH,
    transformer_width=64,
    transformer_layers=2,
)
DEVELOPMENT_SEED, DEVELOPMENT_COUNT = 555, 60  # pictures to watch progress on; the benchmark's own seed is another
POOL_CHUNK = 250  # pictures drawn with one seed
SMALL_SIDES, SMALL_SHARE = (24, 24, 32, 48), 0.6  # pixels; share of the steps
DROPPING_SHARE, KEPT_PATCHES = 0.75, 0.5  # share of the steps with full-size pictures; share of their patches
HIDDEN_CLS_SHARE = 0.5  # of the steps
KEY_LOGIT = 10.0  # what the last block's s k k^T is pulled to on its diagonal
WARM_UP, MAX_LOGIT_SCALE, EMA_DECAY = 100, 50, 0.99


def draw_chunk(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, side, side, 3), and which classes are in each, bool (n, K)."""
    rng = RandomState(seed)
    pictures, labels = zip(*(shapes.draw(rng, side) for _ in range(POOL_CHUNK)), strict=True)
    return np.stack(pictures), np.stack([shapes.classes_present(label) for label in labels])


def draw_pools(count: int, seed: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """As `draw_chunk`, for at least `count` pictures of the full side and half of that of each small one, by side."""
    sides = {shapes.TRAIN_SIDE: count} | {side: count // 2 for side in SMALL_SIDES}
    jobs = [(side, i) for side, pictures in sides.items() for i in range(max(math.ceil(pictures / POOL_CHUNK), 1))]
    seeds = [10**6 * (seed + 1) + 10**4 * side + i for side, i in jobs]
    with ProcessPoolExecutor() as executor:
        drawn = executor.map(draw_chunk, seeds, [side for side, _ in jobs])
        chunks = list(tqdm(drawn, total=len(jobs), desc='drawing pictures', unit='chunk'))
    pools = {}
    for side in sides:
        parts = [chunk for (of, _), chunk in zip(jobs, chunks, strict=True) if of == side]
        pools[side] = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return pools


def normalise(pictures: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, h, w, 3) -> CLIP's input (n, 3, h, w)."""
    images = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2) / 255
    return (images - images.new_tensor(MEAN)[:, None, None]) / images.new_tensor(STD)[:, None, None]


def initialise(model: CLIP) -> Tensor:
    """CLIP's initialisation; rows of tokens that no caption can have become zero. Returns those rows' mask (V, 1)."""
    for transformer in (model.visual.transformer, model.transformer):
        depth = len(transformer.resblocks)
        for block in transformer.resblocks:
            width = block.attn.out_proj.in_features
            torch.nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            torch.nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
            torch.nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            torch.nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.02)
    words = [f'{name}, {name} and {name}' for name in shapes.CLASSES]
    seen = tokenize([template.replace('{}', word) for template in read_templates() for word in words]).unique()
    mask = torch.zeros(len(model.token_embedding.weight), 1)
    mask[seen] = 1
    model.token_embedding.weight.data.mul_(mask)
    return mask


@dataclass(frozen=True)
class View:
    """Which of its own patches are read of a picture (n,), and where on the tower's grid they lie (n,)."""

    own: Tensor
    places: Tensor

    @classmethod
    def random(cls, side: int, visual: VisionTransformer, rng: RandomState) -> 'View':
        """A small picture lies anywhere on the grid; one of the full size has some of its patches read, or all."""
        grid, cells = visual.native_grid, side // visual.patch_size
        top, left = rng.randint(0, grid - cells + 1, 2)
        own = torch.arange(cells**2)
        if cells == grid and rng.rand() < DROPPING_SHARE:
            own = torch.from_numpy(rng.permutation(cells**2)[: round(KEPT_PATCHES * cells**2)])
        return cls(own, (top + own // cells) * grid + left + own % cells)

    @property
    def tokens(self) -> Tensor:
        """The tower's tokens for these patches, after CLS: (1 + n,)."""
        return F.pad(self.places + 1, (1, 0))


def embed(visual: VisionTransformer, images: Tensor, view: View) -> Tensor:
    """As the tower's `embed`, for a view of pictures of any size: (B, 3, side, side) -> (B, 1 + n, D)."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)[:, view.own.to(images.device)]  # (B, n, D)
    cls = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    position = visual.positional_embedding[view.tokens.to(images.device)]
    return visual.ln_pre(torch.cat([cls, patches], dim=1) + position.to(patches.dtype))


Reading = Callable[[VisionTransformer, ResidualAttentionBlock, Tensor, View], Tensor]


def at_cls(visual: VisionTransformer, last: ResidualAttentionBlock, x: Tensor, view: View) -> Tensor:
    """CLIP's own reading: the CLS token after the last block (B, C)."""
    return visual.project(last(x)[:, 0])


def at_cls_reduced(visual: VisionTransformer, last: ResidualAttentionBlock, x: Tensor, view: View) -> Tensor:
    """The CLS token after the last block's attention alone, without residual and FFN (B, C)."""
    q, k, v = last.attn.qkv(last.ln_1(x))
    return visual.project(last.attn.merge(F.scaled_dot_product_attention(q[:, :, :1], k, v))[:, 0])


def mean_of_patches(visual: VisionTransformer, last: ResidualAttentionBlock, x: Tensor, view: View) -> Tensor:
    """The mean of the unit patch features that NACLIP's last block gives (B, C)."""
    _, k, v = last.attn.qkv(last.ln_1(x))
    bias = gaussian_bias((visual.native_grid,) * 2, find_method('naclip').gaussian_std, x.device, k.dtype)
    tokens = view.tokens.to(x.device)
    y = last.attn.merge(attend([Term(k, k, bias[tokens[:, None], tokens])], v))
    return F.normalize(visual.project(y[:, 1:]).float(), dim=-1).mean(dim=1)


READINGS: Sequence[Reading] = (at_cls, at_cls_reduced, mean_of_patches, mean_of_patches)  # as often as they stand here


def image_features(
    visual: VisionTransformer, images: Tensor, reading: Reading, view: View, hide_cls: bool
) -> tuple[Tensor, Tensor]:
    """Unit features of pictures (B, C), and the last block's `key_penalty`.

    `hide_cls`: patches cannot attend to CLS before the last block, so what they know they have from each other.
    """
    x = embed(visual, images, view)  # (B, N, D)
    mask = None
    if hide_cls:
        mask = torch.zeros(x.shape[1], x.shape[1], device=x.device, dtype=x.dtype)
        mask[1:, 0] = -torch.inf
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x, mask)
    _, k, _ = last.attn.qkv(last.ln_1(x))
    return F.normalize(reading(visual, last, x, view).float(), dim=-1), key_penalty(k.float())


def key_penalty(k: Tensor) -> Tensor:
    """How far keys (B, heads, N, d) are from s ‖k‖² = KEY_LOGIT each, and from a mean of zero in each head."""
    scale = k.shape[-1] ** -0.5 / KEY_LOGIT
    length = (scale * k.square().sum(dim=-1) - 1).square().mean()
    centre = scale * k.mean(dim=(0, 2)).square().sum(dim=-1).mean()
    return length + centre


def contrastive_loss(image: Tensor, text: Tensor, scale: Tensor, also_true: Tensor) -> Tensor:
    """Symmetric InfoNCE of unit features (B, C); pairs `also_true` (B, B) off the diagonal are left out."""
    logits = scale * image @ text.T
    others = ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(also_true.to(logits.device) & others, -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train(model: CLIP, mask: Tensor, options: argparse.Namespace, device: torch.device) -> CLIP:
    """Train `model`; returns the moving average of its weights."""
    pools = draw_pools(options.pool, options.seed)
    templates = read_templates()
    rng = RandomState(options.seed)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(EMA_DECAY), device=device
    )
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=0.05), dict(params=others, weight_decay=0.0)],
        lr=options.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / options.steps)) / 2,
    )
    with tqdm(range(options.steps), desc='training', unit='step') as steps:
        for step in steps:
            side = SMALL_SIDES[rng.randint(len(SMALL_SIDES))] if rng.rand() < SMALL_SHARE else shapes.TRAIN_SIDE
            pictures, present = pools[side]
            batch = rng.randint(0, len(pictures), options.batch)
            captions, named = zip(*(shapes.caption(rng, present[i], templates) for i in batch), strict=True)
            images = normalise(pictures[batch], device)
            if rng.rand() < 0.5:
                images = images.flip(-1)
            reading, view = READINGS[rng.randint(len(READINGS))], View.random(side, model.visual, rng)
            with torch.autocast(device.type, torch.bfloat16):
                hide_cls = rng.rand() < HIDDEN_CLS_SHARE
                image, penalty = image_features(model.visual, images, reading, view, hide_cls)
                text = F.normalize(model.encode_text(tokenize(list(captions)).to(device)).float(), dim=-1)
            also_true = true_captions(present[batch], np.stack(named))
            loss = contrastive_loss(image, text, model.logit_scale.exp(), also_true) + penalty
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
                model.token_embedding.weight.mul_(mask)
            average.update_parameters(model)
            steps.set_postfix(loss=f'{loss.item():.2f}', refresh=False)
            if options.watch and (step + 1) % options.watch == 0:
                report(average.module, step + 1)
    return average.module


def true_captions(present: np.ndarray, named: np.ndarray) -> Tensor:
    """Whether caption j is true of picture i, as all it names (B, K) is present (B, K): bool (B, B)."""
    missing = named[None] & ~present[:, None]  # (pictures, captions, K)
    return torch.from_numpy(~missing.any(axis=-1))


@torch.no_grad()
def report(model: CLIP, step: int) -> None:
    """Print the mIoU of NACLIP and of CLIP's own last block on development pictures."""
    vocabulary = Vocabulary(tuple((name,) for name in shapes.CLASSES))
    queries = text_embeddings(model, vocabulary.names, read_templates(), progress=False)
    scores = {}
    for name in ('naclip', 'clip'):
        settings = Settings(slide_crop=shapes.TRAIN_SIDE, slide_stride=shapes.TRAIN_SIDE // 2)
        pipeline = Pipeline(model, find_method(name), vocabulary, queries, settings)
        confusion = np.zeros((len(vocabulary), len(vocabulary)), int)  # label, prediction
        rng = RandomState(DEVELOPMENT_SEED)
        for _ in range(DEVELOPMENT_COUNT):
            picture, label = shapes.draw(rng, shapes.VAL_SIZE)
            predicted, _ = pipeline(normalise(picture[None], model.device), label.shape)
            np.add.at(confusion, (label, predicted[0, 0].cpu().numpy()), 1)
        hits, labelled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        counts = PixelCounts(hits, labelled + predicted - hits, predicted, labelled)
        scores[name] = counts.metrics()['mIoU']
    tqdm.write(f'step {step}: mIoU ' + ', '.join(f'{name} {score:.1f}' for name, score in scores.items()))


def save(model: CLIP, path: Path, options: argparse.Namespace) -> None:
    """Write float16 weights under OpenAI's names; the file appears whole."""
    metadata = dict(
        known_words=json.dumps(sorted({word for name in shapes.CLASSES for word in name.split()})),
        training=json.dumps(dict(seed=options.seed, steps=options.steps, batch=options.batch, pool=options.pool)),
    )
    tensors = {name: tensor.half().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata)


def main(argv: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    torch.manual_seed(options.seed)
    device = resolve_device(options.device)
    model = CLIP(**SIZES, vocab_size=len(default_tokenizer().ids))
    mask = initialise(model)
    save(train(model.to(device), mask.to(device), options, device), options.out, options)


if __name__ == '__main__':
    main()
