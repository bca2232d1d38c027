"""A page in the browser on which pictures are segmented with words: app.py, then open the address that it prints."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.app import main

__all__ = ['main']

if __name__ == '__main__':
    sys.exit(main())
