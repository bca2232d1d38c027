"""One figure of chosen pictures, as several runs segmented them: figure.py RUNS... --pictures NAME... -o figure.pdf"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.figure import main

__all__ = ['main']

if __name__ == '__main__':
    sys.exit(main())
