"""Segment pictures of your own with words of your own: segment.py PICTURE... --classes "cat, kitten; dog; grass" """

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.commands.segment import build_parser, find_pictures, main, output_names

__all__ = ['build_parser', 'find_pictures', 'main', 'output_names']

if __name__ == '__main__':
    sys.exit(main())
