"""Take the pictures of docs/report.md: report_screenshots.py report/report.html docs"""

import argparse
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.files import written_whole

SIZE = dict(width=1160, height=900)
HIGHEST = 760  # pixels of a picture: what is below is cut off
# A picture's name -> the part of the page.
PARTS: Mapping[str, str] = {
    'report_matrix': '#matrix',
    'report_classes': '#classes',
    'report_pictures': '#gallery .picture',
    'report_curve': '.curve img',
}


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description='Pictures of the parts of a report.')
    parser.add_argument('page', type=Path, help='a report.html')
    parser.add_argument('out', type=Path, help='a folder for the PNG files')
    parser.add_argument('--methods', default='', help='as the page filters them: naclip, sclip')
    parser.add_argument('--picture', default='', help='of the gallery: a part of its name; default: the first')
    return parser


def take(page: Path, methods: str, picture: str) -> dict[str, Image.Image]:
    """What Chromium shows of the parts that the page has, by name.

    Raises:
        ValueError: playwright, a Chromium or the page is missing; says which.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ValueError(f'a picture of the page needs playwright ({error}): pip install playwright') from None
    if not page.is_file():
        raise ValueError(f'{page} does not exist: write a report with tools/report.py')
    try:
        with sync_playwright() as playwright:
            # A Chromium on the path, or else playwright's own.
            browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
            tab = browser.new_page(viewport=SIZE)
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector('#matrix-table button', timeout=10_000)
            tab.fill('#words', methods)
            tab.select_option('#grouping', 'backbone')
            tab.locator('#matrix-table thead button').last.click()  # best first
            if tab.locator('#picture-name').count():
                tab.fill('#picture-name', picture)
            seen = {}
            for name, selector in PARTS.items():
                part = tab.locator(selector).first
                if part.count():
                    whole = Image.open(io.BytesIO(part.screenshot())).convert('RGB')
                    seen[name] = whole.crop((0, 0, whole.width, min(whole.height, HIGHEST)))
            browser.close()
    except Error as error:
        raise ValueError(f'cannot take a picture of {page}: {error.message.splitlines()[0]}') from error
    return seen


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    try:
        seen = take(options.page, options.methods, options.picture)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, picture in seen.items():
            path = options.out / f'{name}.png'
            with written_whole(path) as temporary:
                picture.quantize(128, kmeans=1).save(temporary, format='PNG', optimize=True)
            print(path)
    except (ValueError, OSError) as error:
        print(f'report_screenshots.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
