"""Score label maps on disk: score.py --config configs/cfg_voc21.py --predictions DIR --method-name NAME"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.score import build_parser, main

__all__ = ['build_parser', 'main']

if __name__ == '__main__':
    sys.exit(main())
