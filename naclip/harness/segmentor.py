"""MMSegmentation's view of the pipeline: the segmentors of type `NACLIP` and `CLIPForSegmentation`."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from mmengine.dist import is_main_process
from mmengine.structures import PixelData
from mmseg.models import BaseSegmentor, SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

import clip
from clip.convnext import ConvNeXt
from clip.model import VisionTransformer
from clip.weights import known_words
from naclip.floss import ExpertPipeline, read_ranking
from naclip.harness.configuration import CLIENT_KEYS, METHOD_OF_TYPE, OLD_NAMES, chosen_method, resolve_file
from naclip.harness.towers import Towers
from naclip.methods import for_tower
from naclip.methods.guide_of import check_guide, check_regions, guide_of
from naclip.methods.method import Method
from naclip.pictures.drawing import class_colours
from naclip.pipeline import Pipeline, Settings, check_fit, check_tower, queries_of
from naclip.walk.masks import RegionMasks
from naclip.walk.text import DEFAULT_TEMPLATES, cached_text_embeddings, read_templates
from naclip.walk.vocabulary import Vocabulary, read_vocabulary, unknown_names

logger = logging.getLogger(__name__)


@MODELS.register_module()
class NACLIP(BaseSegmentor):
    """Training-free open-vocabulary segmentor.

    Args:
        clip_path: a backbone, as `clip.load` takes it: a name, a checkpoint file, or a folder or repository.
        name_path: the class-name file; a relative one is looked for here, then among the toolkit's own.
        device: default: CUDA where there is one, else the CPU.
        arch, attn_strategy, gaussian_std: the last block, for methods of that family (naclip/methods/last_block.py).
            Default: the method's.
        pamr_steps, pamr_stride, prob_thd, area_thd, logit_scale, slide_stride, slide_crop, straight, input_size: see
            `naclip.pipeline.Settings`. An input_size may be one for each kind of image tower: {'vit': ..., 'convnext':
            ...}.
        mean, std: how pictures are normalised, RGB in [0, 1]; default: as the checkpoint's source says.
        templates: the prompt-template file.
        dtype: of the towers; 'auto' is float16 on CUDA and float32 on the CPU.
        download_root: where known weights are downloaded to; default ~/.cache/clip.
        synonyms: how a class's names count; one of `naclip.walk.vocabulary.SYNONYMS`.
        method: a name of `naclip.methods.METHODS`, 'FILE.py:NAME', or a dict with that as its type and constants of
            the method; default: the method that the type stands for.
        cache_dir: where text embeddings are kept; see `naclip.walk.text.default_cache_dir`.
        guide: of methods that read a second tower: a name of `clip.guides.available_guides()`, or a checkpoint file;
            default: the method's.
        template_ranking: a file of templates ranked for each class; then experts are heard, see `naclip.floss`.
        regions: of methods that need them: a folder with a region mask for each picture, see `naclip.walk.masks`.
        activation, head_width: of a checkpoint whose source cannot be told; see `clip.load`.
        towers: where backbones and guides are that other segmentors have loaded.
        old: names that constants of methods had in earlier releases; see `naclip.harness.configuration.OLD_NAMES`.
            What MMSegmentation's clients add, such as `pretrained`, is taken and means nothing.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: an argument that cannot be used; says which and why.
    """

    METHOD: ClassVar[str] = METHOD_OF_TYPE['NACLIP']

    def __init__(
        self,
        clip_path: str | os.PathLike,
        name_path: str | os.PathLike,
        device: str | torch.device | None = None,
        arch: str | None = None,
        attn_strategy: str | None = None,
        gaussian_std: float | None = None,
        pamr_steps: int = 0,
        pamr_stride: Sequence[int] = (8, 16),
        prob_thd: float = 0.0,
        logit_scale: float = 40.0,
        slide_stride: int = 112,
        slide_crop: int = 224,
        area_thd: float | None = None,
        templates: str | os.PathLike = DEFAULT_TEMPLATES,
        dtype: str | torch.dtype = 'auto',
        download_root: str | os.PathLike | None = None,
        cache_dir: str | os.PathLike | None = None,
        method: str | Mapping | Method | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
        synonyms: str = 'best',
        straight: bool = False,
        guide: str | os.PathLike | None = None,
        regions: str | os.PathLike | None = None,
        template_ranking: str | os.PathLike | None = None,
        activation: str | None = None,
        head_width: int | None = None,
        towers: Towers | None = None,
        **old: object,
    ):
        super().__init__()
        # What can be wrong is looked at before the minutes that weights and texts may take.
        meaningless = [name for name in CLIENT_KEYS if old.pop(name, None)]
        if meaningless:
            logger.warning(
                'the segmentor makes nothing of %s: clip_path names weights, slide_crop and slide_stride windows',
                ', '.join(meaningless),
            )
        unknown = [name for name in old if name not in OLD_NAMES]
        if unknown:
            raise TypeError(f'{type(self).__name__} takes no {", ".join(unknown)}')
        beside = {'attn_strategy': attn_strategy, 'arch': arch, 'gaussian_std': gaussian_std}
        chosen = chosen_method({'method': method or self.METHOD} | beside | old)
        kinds = (VisionTransformer.kind, ConvNeXt.kind)
        by_tower = input_size if isinstance(input_size, Mapping) else dict.fromkeys(kinds, input_size)
        if set(by_tower) != set(kinds):
            raise ValueError(f'input_size is for {", ".join(by_tower)}, expected {" and ".join(kinds)}')
        settings = Settings(
            slide_crop=slide_crop,
            slide_stride=slide_stride,
            straight=straight,
            pamr_steps=pamr_steps,
            pamr_stride=tuple(pamr_stride),
            logit_scale=logit_scale,
            prob_thd=prob_thd,
            area_thd=area_thd,
        )
        sizes = {tower: tuple(size) if size is not None else None for tower, size in by_tower.items()}
        settings_by_tower = {tower: replace(settings, input_size=size) for tower, size in sizes.items()}
        check_fit(chosen, settings)
        check_guide(chosen, guide, mean or clip.MEAN, std or clip.STD)
        check_regions(chosen, regions)
        self.masks = RegionMasks(Path(regions)) if regions else None
        name_path, templates = resolve_file(name_path), resolve_file(templates)
        self.templates_path = templates
        vocabulary = replace(read_vocabulary(name_path), synonyms=synonyms)
        prompt_templates = read_templates(templates)
        self.ranking_path = template_ranking
        ranking = read_ranking(template_ranking) if template_ranking else None
        expert_templates = ranking.chosen(vocabulary, len(prompt_templates)) if ranking else ()
        towers = towers or Towers()
        net, _, self.checkpoint = towers.backbone(clip_path, device, dtype, download_root, activation, head_width)
        said = self.checkpoint.statement
        self.normalisation = tuple(mean or said.mean), tuple(std or said.std)
        self.data_preprocessor = SegDataPreProcessor(
            *([255 * value for value in values] for values in self.normalisation), bgr_to_rgb=True
        )
        check_tower(net.visual, chosen)
        check_guide(chosen, guide, *self.normalisation)
        fitting = for_tower(chosen, net.visual)
        chosen, second, self.guide_checkpoint = guide_of(fitting, net, guide, download_root, towers.guide)
        warn_of_unknown_words(vocabulary, self.checkpoint.metadata, name_path)

        def embeddings_of(queries: Sequence[str | Sequence[str]], some: Sequence[str]) -> Tensor:
            return cached_text_embeddings(
                net, self.checkpoint.sha256, queries, some, cache_dir, progress=is_main_process()
            )

        query_features = embeddings_of(queries_of(vocabulary, chosen), prompt_templates)
        own_settings = settings_by_tower[net.visual.kind]
        arguments = (net, chosen, vocabulary, query_features, own_settings, second)
        if ranking:
            of_classes = [[prompt_templates[t] for t in some] for some in expert_templates]
            experts = torch.stack([embeddings_of(vocabulary.queries, some) for some in of_classes])
            self.pipeline: Pipeline = ExpertPipeline(*arguments, experts=experts)
        else:
            self.pipeline = Pipeline(*arguments)
        self.to(net.device)

    @property
    def dataset_meta(self) -> dict[str, list]:
        """The vocabulary's classes (the first name of each), and a colour for each, as MMSegmentation's clients ask."""
        classes = [names[0] for names in self.pipeline.vocabulary.classes]
        return {'classes': classes, 'palette': class_colours(len(classes), classes[0] == 'background').tolist()}

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping) -> None:
        # MMSegInferencer assigns Cityscapes' classes to whatever has no checkpoint of its own.
        logger.debug('the classes stay those of the vocabulary')

    @property
    def query_features(self) -> Tensor:
        """The text embeddings of the Q names, and of the method's companions (Q + companions, C)."""
        return self.pipeline.query_features

    @property
    def query_idx(self) -> Tensor:
        """The class of each name (Q,)."""
        return self.pipeline.query_idx

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Patch features of whole pictures: (B, 3, H, W) -> (B, h, w, C), for methods that have them."""
        return self.pipeline.patch_features(inputs)

    def encode_decode(self, inputs: Tensor, batch_data_samples: list[SegDataSample] | None = None) -> Tensor:
        """Cosines of pixels and names, averaged over windows, before PAMR: (B, 3, H, W) -> (B, Q, H, W)."""
        return self.pipeline.logits(inputs)

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Label pictures (B, 3, H, W) at their original sizes.

        Each sample gets `pred_sem_seg` (1, H, W) and `seg_logits` (K, H, W), see there. Without samples, new ones
        of the input's size are made.
        """
        if data_samples is None:
            data_samples = [SegDataSample(metainfo={'ori_shape': tuple(inputs.shape[-2:])}) for _ in inputs]
        regions = [self.masks.read(sample.img_path, sample.ori_shape[:2]) for sample in data_samples if self.masks]
        seen = self.pipeline.look(inputs, regions)
        for i, sample in enumerate(data_samples):
            labels, probabilities = self.pipeline.label(inputs[i : i + 1], seen[i], tuple(sample.ori_shape[:2]))
            sample.set_data(
                {
                    'seg_logits': PixelData(data=self.seg_logits(probabilities)[0]),
                    'pred_sem_seg': PixelData(data=labels[0]),
                }
            )
        return data_samples

    def seg_logits(self, probabilities: Tensor) -> Tensor:
        """What a sample keeps of the class probabilities (B, K, H, W): here, their shares of their sum."""
        return probabilities / probabilities.sum(dim=1, keepdim=True)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]):
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError('the segmentor is training-free: it has no loss; use mode "predict" or "tensor"')


@MODELS.register_module()
class CLIPForSegmentation(NACLIP):
    """SCLIP by the type name of its own config files: another default method, and probabilities kept as they are."""

    METHOD: ClassVar[str] = METHOD_OF_TYPE['CLIPForSegmentation']

    def seg_logits(self, probabilities: Tensor) -> Tensor:
        return probabilities


def warn_of_unknown_words(vocabulary: Vocabulary, metadata: dict[str, str], name_path: str | os.PathLike) -> None:
    """Warn of class names that a backbone with a closed vocabulary has never seen."""
    words = known_words(metadata)
    unknown = unknown_names(vocabulary.names, words)
    if unknown:
        logger.warning(
            '%s: the backbone has never seen %s; it knows only these words: %s',
            name_path,
            ', '.join(map(repr, unknown)),
            ', '.join(sorted(words)),
        )
