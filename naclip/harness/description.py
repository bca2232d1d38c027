"""What is told of a run: everything that its numbers may depend on, and a line for the console."""

import argparse
import inspect
import os
from dataclasses import asdict
from pathlib import Path

from mmengine.config import Config
from mmseg.datasets import BaseSegDataset

from clip.model import VisionTransformer
from clip.weights import file_sha256
from naclip.files import PACKAGE
from naclip.harness import configuration
from naclip.harness.segmentor import NACLIP
from naclip.methods import method_name
from naclip.methods.method import Method
from naclip.runs.results import SCHEMA, device_name, git_commit, package_versions


def describe(
    config: Config,
    options: argparse.Namespace,
    benchmark: str,
    protocol: str,
    changes: dict,
    segmentor: NACLIP,
    dataset: BaseSegDataset,
) -> dict:
    """Everything about a run that its numbers may depend on."""
    pipeline, net = segmentor.pipeline, segmentor.pipeline.net
    source, said = method_source(pipeline.method), segmentor.checkpoint.statement
    resize, square = (configuration.find_step(config, kind) for kind in ('Resize', 'CentreSquare'))
    return {
        'schema': SCHEMA,
        'benchmark': benchmark,
        'method': method_name(pipeline.method),
        'protocol': protocol,
        'changes': changes,  # what options changed of the method and the protocol
        'backbone': str(config.model.clip_path),
        'backbone_revision': said.revision,  # the commit of a repository on a hub
        'backbone_tower': net.visual.title,
        'published_on': list(pipeline.method.published_on) if pipeline.method.about else [],
        'settings': {
            'tower': net.visual.kind,
            **asdict(net.form),
            'form_known_by': said.known_by,
            'mean': list(segmentor.normalisation[0]),
            'std': list(segmentor.normalisation[1]),
            'constants': pipeline.method.constants,
            **asdict(pipeline.settings),
            'synonyms': pipeline.vocabulary.synonyms,
            'resize': list(resize.scale) if resize else None,
            'centre_square': square.side if square else None,
            'labelled_only': config.test_evaluator.get('labelled_only', False),
            'dtype': str(net.dtype).removeprefix('torch.'),
            'dataset': type(dataset).__name__,
            'data_root': os.path.abspath(dataset.data_root),
            'limit': options.limit,
            'config': str(options.config) if options.config else None,
            'vocabulary': str(config.model.name_path),
            'templates': str(segmentor.templates_path),
            'processes': int(os.environ.get('WORLD_SIZE', 1)) if options.launcher != 'none' else 1,
        },
        'sha256': {
            'weights': segmentor.checkpoint.sha256,
            'vocabulary': file_sha256(config.model.name_path),
            'templates': file_sha256(segmentor.templates_path),
            **({'method': file_sha256(source)} if source else {}),
            **({'template_ranking': file_sha256(segmentor.ranking_path)} if segmentor.ranking_path else {}),
            **({'guide': segmentor.guide_checkpoint.sha256} if segmentor.guide_checkpoint else {}),
        },
        'versions': package_versions(),
        'git_commit': git_commit(),
        'device': {'type': net.device.type, 'name': device_name(net.device)},
    }


def method_source(method: Method) -> str | None:
    """The file of a method that is not the toolkit's own."""
    path = inspect.getfile(type(method))
    return None if Path(path).is_relative_to(PACKAGE) else path


def headline(record: dict, name: str) -> str:
    """Method, protocol, backbone, vocabulary file and device of a run, in one line that begins with its name."""
    settings = record['settings']
    pamr = f'PAMR {settings["pamr_steps"]} steps' if settings['pamr_steps'] else 'no PAMR'
    form = 'ConvNeXt without pooling'
    if settings['tower'] == VisionTransformer.kind:
        form = ', '.join(f'{key} {_short(value)}' for key, value in settings['constants'].items())
    changes = ''.join(f', {key}={value}' for key, value in record['changes'].items())
    return (
        f'{name}: method {record["method"]} ({", ".join(filter(None, (form, pamr)))}); '
        f'protocol {record["protocol"]}{f" changed by{changes[1:]}" if changes else ""}; '
        f'backbone {record["backbone"]}{_elsewhere(record)}; '
        f'vocabulary {settings["vocabulary"]}; device {record["device"]["name"]} ({settings["dtype"]})'
    )


def _elsewhere(record: dict) -> str:
    """A remark on a method that runs on another tower than it was published for."""
    published, tower = record['published_on'], record['backbone_tower']
    if not published or tower in published:
        return ''
    return f" ({tower}; the method's settings were published for {' and '.join(published)})"


def _short(value: object) -> str:
    """A constant in a line of text."""
    return f'{value:g}' if isinstance(value, float) else str(value)
