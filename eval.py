"""Evaluate a training-free open-vocabulary segmentor on a benchmark: python eval.py --config configs/cfg_voc21.py"""

import sys

from naclip.commands.evaluate import build_parser, device, main

__all__ = ['build_parser', 'device', 'main']

if __name__ == '__main__':
    sys.exit(main())
