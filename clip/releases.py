"""The names that stand for weights, and where these are. Nothing here needs PyTorch: command lines show the names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DOWNLOAD_ROOT = Path('~/.cache/clip')
FOLDER, HUB = 'local-dir:', 'hf-hub:'
HINT = f'FILE, {FOLDER}PATH, {HUB}ORG/NAME, or NAME/TAG of OpenCLIP'  # what stands for a backbone beside its names
DEVICES = ('auto', 'cpu', 'cuda', 'cuda:INDEX')
DTYPE_NAMES = ('float32', 'float16', 'bfloat16')  # of towers


@dataclass(frozen=True)
class Release:
    """A published checkpoint: where it is, and the SHA-256 of the file, or its first digits, as far as known."""

    url: str
    sha256: str | None

    @property
    def file_name(self) -> str:
        return self.url.rsplit('/', 1)[-1]


def _openai(sha256: str, file_name: str) -> Release:
    return Release(f'https://openaipublic.azureedge.net/clip/models/{sha256}/{file_name}', sha256)


def _dino(path: str) -> Release:
    """A file that its publisher gives no SHA-256 of."""
    return Release(f'https://dl.fbaipublicfiles.com/{path}', None)


RELEASES: Mapping[str, Release] = {
    'ViT-B/32': _openai('40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af', 'ViT-B-32.pt'),
    'ViT-B/16': _openai('5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f', 'ViT-B-16.pt'),
    'ViT-L/14': _openai('b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836', 'ViT-L-14.pt'),
    'ViT-L/14@336px': _openai('3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02', 'ViT-L-14-336px.pt'),
}
BUNDLED: Mapping[str, Path] = {
    'shapes': Path(__file__).with_name('shapes.safetensors'),  # see tools/train_shapes_clip.py
}
GUIDES: Mapping[str, Release] = {
    'dino_vits16': _dino('dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth'),
    'dino_vits8': _dino('dino/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth'),
    'dino_vitb16': _dino('dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth'),
    'dino_vitb8': _dino('dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth'),
    'dinov2_vits14': _dino('dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth'),
    'dinov2_vits14_reg': _dino('dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth'),
    'dinov2_vitb14': _dino('dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth'),
    'dinov2_vitb14_reg': _dino('dinov2/dinov2_vitb14/dinov2_vitb14_reg4_pretrain.pth'),
    'dinov2_vitl14': _dino('dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth'),
    'dinov2_vitl14_reg': _dino('dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth'),
}
BUNDLED_GUIDES: Mapping[str, Path] = {
    'shapes': Path(__file__).with_name('shapes_guide.safetensors'),  # see tools/train_shapes_guide.py
}


def available_models() -> list[str]:
    """The names that `clip.load` knows."""
    return [*RELEASES, *BUNDLED]


def available_guides() -> list[str]:
    """The names that `clip.guides.load_guide` knows."""
    return [*GUIDES, *BUNDLED_GUIDES]
