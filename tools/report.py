"""A report on several runs: tables, plots and one HTML page: report.py WORK_DIR... [-o DIR] [--table]"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.report import main

__all__ = ['main']

if __name__ == '__main__':
    sys.exit(main())
