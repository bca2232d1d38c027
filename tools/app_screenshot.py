"""Take docs/app.png: start tools/app.py --backbone shapes, then app_screenshot.py ADDRESS docs/app.png"""

import argparse
import io
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from naclip.cli import OneLineParser
from naclip.files import written_whole

SIZE = dict(width=1200, height=1260)
CLICK = (123.5 / 160, 81.5 / 112)  # of the picture: the foot of the house


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description='A picture of the page, after a segmentation of its first example.')
    parser.add_argument('address', help='of the running page, http://127.0.0.1:7860/')
    parser.add_argument('out', type=Path, help='a PNG file')
    return parser


def take(address: str) -> Image.Image:
    """Segment the first example, click on it; returns what Chromium shows.

    Raises:
        ValueError: playwright, a Chromium or the page is missing, or it does not do that; says which.
    """
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ValueError(f'a picture of the page needs playwright ({error}): pip install playwright') from None
    try:
        with sync_playwright() as playwright:
            # A Chromium on the path, or else playwright's own.
            browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
            page = browser.new_page(viewport=SIZE)
            page.goto(address)
            page.locator('#examples button').first.click()
            page.wait_for_selector('#legend tr')
            page.wait_for_function('document.querySelector("#seen img").naturalWidth')
            image = page.locator('#seen img')
            image.click(trial=True)  # once it stands still
            box = image.bounding_box()
            image.click(position={'x': CLICK[0] * box['width'], 'y': CLICK[1] * box['height']})
            page.wait_for_selector('#scores tr')
            page.wait_for_selector('#maps img')
            page.wait_for_timeout(1000)  # the progress bars fade out
            screenshot = page.screenshot()
            browser.close()
    except Error as error:
        raise ValueError(f'cannot take a picture of {address}: {error.message.splitlines()[0]}') from error
    return Image.open(io.BytesIO(screenshot)).convert('RGB')


def main(argv: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(argv)
    try:
        picture = take(options.address).quantize(256, kmeans=2)
        with written_whole(options.out) as temporary:
            picture.save(temporary, format='PNG', optimize=True)
    except (ValueError, OSError) as error:
        print(f'app_screenshot.py: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
