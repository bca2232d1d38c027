"""Train PixelCLIP from pictures and masks without classes: python tools/train.py configs/train_pixelclip_shapes.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.train import build_parser, main

__all__ = ['build_parser', 'main']

if __name__ == '__main__':
    sys.exit(main())
