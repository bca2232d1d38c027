"""Importing the harness in a process of our own, quickly and silently."""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

# What OpenMMLab's packages import if it is there, for backbones and optimisers that no evaluation has. With timm comes
# torchvision, and with that PyTorch's compiler: seconds.
NOT_NEEDED = ('timm', 'transformers')


@contextlib.contextmanager
def harness_imports() -> Iterator[None]:
    """While OpenMMLab's packages are imported in here, they say nothing, and do not find what nothing here needs.

    For processes that evaluate, and do nothing else with these packages; afterwards everything can be imported.
    """
    # They remark on optional parts, too.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    hidden = [name for name in NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # None: importing it fails
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name in hidden:
            del sys.modules[name]
