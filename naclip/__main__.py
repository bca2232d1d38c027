"""`python -m naclip`: the command `naclip` where its script is not on the path."""

import sys

from naclip.commands import main

if __name__ == '__main__':
    sys.exit(main())
