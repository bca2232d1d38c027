"""Tell what is wrong with benchmarks' data, and how to mend it: check.py [BENCHMARK...] [--data-root DIR]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.check import EIGHT, check, main

__all__ = ['EIGHT', 'check', 'main']

if __name__ == '__main__':
    sys.exit(main())
