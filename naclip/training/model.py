"""MMEngine's view of the training: the model, the data set, the order of samples and the optimiser's groups."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import Tensor, nn

import clip
from clip.folders import with_spare
from naclip.files import REPOSITORY
from naclip.names import did_you_mean
from naclip.shapes.masks import COUNT, ensure_masked_pictures
from naclip.training.dataset import MaskedPictures, Places, Sampling
from naclip.training.dino import dino_tokens, load_dino
from naclip.training.groups import Rates, parameter_groups
from naclip.training.kmeans import training_masks
from naclip.training.pictures import Layout, read_folders
from naclip.training.prompts import STARTS, words_of_names
from naclip.training.step import PixelCLIPTraining
from naclip.training.views import Framing
from naclip.walk.text import default_cache_dir
from naclip.walk.vocabulary import read_vocabulary


class TrainingPreprocessor(BaseDataPreprocessor):
    """Samples to the model's device: pictures normalised, then padded with zeros to squares of the crop's side."""

    def __init__(self, crop: int):
        super().__init__()
        self.crop = crop
        self.register_buffer('mean', 255 * torch.tensor(clip.MEAN)[:, None, None], False)
        self.register_buffer('std', 255 * torch.tensor(clip.STD)[:, None, None], False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Lists of samples -> `weak` and `strong` (B, 3, crop, crop), `masks` and `seeds` as lists."""
        data = self.cast_data(data)
        pictures = {name: torch.stack([self.square(picture) for picture in data[name]]) for name in ('weak', 'strong')}
        return {**pictures, 'masks': data.get('masks'), 'seeds': [int(seed) for seed in data['seed']]}

    def square(self, picture: Tensor) -> Tensor:
        """uint8 (3, h, w) -> normalised (3, crop, crop)."""
        normalised = (picture - self.mean) / self.std
        return F.pad(normalised, (0, self.crop - picture.shape[2], 0, self.crop - picture.shape[1]))


@MODELS.register_module()
class PixelCLIPModel(BaseModel):
    """PixelCLIP in training.

    Args:
        clip_path: CLIP to start from, a name of `clip.available_models()` or a checkpoint file.
        clusters, prompt_length: how many clusters, of how many words each.
        sharpness: published as EPS, 100 for ViT, 1 for ConvNeXt.
        resolution: side of the pictures that the towers see.
        crop, mask_resolution: as the data set's.
        momentum, rounds: of the teacher; of the balanced assignment.
        dino: None takes the data set's masks; else a guide's name or file, and masks are made here.
        start: prompts start from random 'words'; for a text tower that knows few, of the 'known' ones, or 'vectors'; or
            from the names of a class-name file, one a cluster.
        seed: of what prompts start from.
        download_root: where known weights are downloaded to; default ~/.cache/clip.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: an argument that cannot be used; says which and why.
    """

    def __init__(
        self,
        clip_path: str | os.PathLike,
        clusters: int = 64,
        prompt_length: int = 4,
        sharpness: float = 100.0,
        resolution: int = 320,
        crop: int = 640,
        mask_resolution: int = 256,
        momentum: float = 0.999,
        rounds: int = 3,
        dino: str | os.PathLike | None = None,
        start: str = 'words',
        seed: int = 0,
        download_root: str | os.PathLike | None = None,
    ):
        super().__init__(data_preprocessor=TrainingPreprocessor(crop))
        named = None
        if start not in STARTS:
            named = names_to_start_from(start, clusters)
        for name, value in (('clusters', clusters), ('prompt_length', prompt_length), ('resolution', resolution)):
            if value < 1:
                raise ValueError(f'model.{name} is {value}, expected a number above 0')
        net, _, _ = clip.load_checkpoint(clip_path, 'cpu', 'float32', download_root)
        embedding = net.token_embedding.weight.detach()
        if named:
            words = embedding[words_of_names(named, prompt_length)]
        else:
            words = STARTS[start](clusters, prompt_length, embedding, seed)
        self.resolution, self.mask_resolution = resolution, mask_resolution
        self.pixelclip = PixelCLIPTraining(net, words, sharpness, momentum, rounds)
        if dino is not None:
            self.pixelclip.dino = load_dino(dino, download_root)

    def train(self, mode: bool = True) -> 'PixelCLIPModel':
        """Training mode, but for DINO, which is frozen."""
        super().train(mode)
        if hasattr(self.pixelclip, 'dino'):
            self.pixelclip.dino.eval()
        return self

    def forward(
        self,
        weak: Tensor,
        strong: Tensor,
        masks: Sequence[Tensor] | None,
        seeds: Sequence[int],
        mode: str = 'loss',
    ) -> dict[str, Tensor]:
        """Pictures (B, 3, crop, crop) and their masks (n, M, M) -> the loss.

        Raises:
            NotImplementedError: another mode than 'loss'.
            FloatingPointError: the loss is not a number; the step is not taken.
        """
        if mode != 'loss':
            raise NotImplementedError('the model is for training; its weights are evaluated by eval.py')
        if hasattr(self.pixelclip, 'dino'):
            masks = self.dino_masks(weak, seeds)
        weak, strong = (
            F.interpolate(pictures, (self.resolution,) * 2, mode='bilinear', align_corners=False)
            for pictures in (weak, strong)
        )
        loss = self.pixelclip(weak, strong, masks)
        if not loss.isfinite():  # the same in all processes, so all of them stop
            raise FloatingPointError(
                f'the loss is {loss.item()}: training stops before the step; lower base_lr, or go without --amp'
            )
        return {'loss_masks': loss}

    @torch.no_grad()
    def dino_masks(self, weak: Tensor, seeds: Sequence[int]) -> list[Tensor]:
        """Masks of the clusters of DINO's tokens, one list entry a picture."""
        tokens = dino_tokens(self.pixelclip.dino, weak)  # (B, h, w, D)
        grid, size = tuple(tokens.shape[1:3]), tuple(weak.shape[2:])
        return [
            training_masks(own.flatten(0, 1), grid, size, seed, self.mask_resolution)
            for own, seed in zip(tokens, seeds, strict=True)
        ]


def names_to_start_from(path: str, clusters: int) -> tuple[str, ...]:
    """The names in a class-name file, one for each cluster.

    Raises:
        ValueError: no such file, or not that many names.
    """
    found = next((place for place in (Path(path), REPOSITORY / path) if place.is_file()), None)
    if found is None:
        meant = did_you_mean(path, STARTS)
        raise ValueError(f'model.start is {path!r}, expected one of {", ".join(STARTS)}, or a class-name file{meant}')
    names = read_vocabulary(found).names
    if len(names) != clusters:
        raise ValueError(f'model.start {path} has {len(names)} names, and model.clusters is {clusters}')
    return names


@DATASETS.register_module()
def SampledPictures(  # noqa: N802 - a type in configs
    data_root: str | None,
    pictures: str = 'images',
    annotations: str | None = 'annotations',
    folders: str | None = None,
    index: str | None = None,
    short: int = 1024,
    longest: int = 1333,
    crop: int = 640,
    mask_resolution: int = 256,
    jitter: bool = True,
    seed: int = 0,
    generated: int = COUNT,
) -> MaskedPictures:
    """Pictures with masks below a folder; `data_root=None`: that many generated ones, made on first use.

    `folders` is a file that lists the folders of pictures to take; `index` is where the list of pairs is kept.
    """
    root = (
        Path(data_root).expanduser()
        if data_root
        else with_spare(partial(ensure_masked_pictures, count=generated), default_cache_dir())
    )
    listed = read_folders(Path(folders)) if folders else None
    sampling = Sampling(Framing(short, longest, crop), mask_resolution, jitter)
    return MaskedPictures(Layout(root, pictures, annotations, listed), sampling, Path(index) if index else None, seed)


@DATA_SAMPLERS.register_module()
class RunPlaces(Places):
    """`Places` of this process."""

    def __init__(self, dataset: MaskedPictures, seed: int | None = None):
        super().__init__(len(dataset), dataset.seed, *get_dist_info())


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainingGroups:
    """Gives the optimiser its groups, as `Rates` says, which `paramwise_cfg` are the values of.

    MMEngine's own constructor would let a tower's norms decay: a parameter that matches one rule skips the others.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        self.optim_wrapper_cfg = dict(optim_wrapper_cfg)
        self.rates = Rates(**(paramwise_cfg or {}))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        options = dict(self.optim_wrapper_cfg)
        optimiser = dict(options.pop('optimizer'))
        kind = optimiser.pop('type')
        if kind != 'AdamW':
            raise ValueError(f'optimizer is {kind}, expected AdamW, as published')
        groups = parameter_groups(getattr(model, 'module', model).pixelclip, self.rates)
        return OPTIM_WRAPPERS.build(options | {'optimizer': torch.optim.AdamW(groups, **optimiser)})


AMP = AmpOptimWrapper.__name__
