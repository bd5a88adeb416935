"""Make docs/images/migrate-*.png: the inventory and the proof of `make migrate-demo`, each in light and on a phone.

    python docs/migrate_picture.py HOME     FTBRIDGE_HOME of a demo that ended

Needs Playwright (pip install playwright) and a Chromium on the PATH.
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path

from ftbridge import files

IMAGES = Path(__file__).parent / "images"
WIDTH, PHONE, TALLEST = 860, 390, 660
"""Of a desktop's page, of a phone's, and how far down the picture goes, in pixels."""


def main() -> None:
    """Write a picture of each page that is there and say where."""
    migrations = Path(sys.argv[1]) / "migrations"
    for name in ("inventory", "proof"):
        pages = sorted(migrations.rglob(f"{name}.html"), key=lambda page: page.stat().st_mtime)
        if pages:
            target = IMAGES / f"migrate-{name}.png"
            files.write_bytes(target, _picture(pages[-1]))
            print(f"{target}: {target.stat().st_size:,} bytes")


def _picture(page: Path) -> bytes:
    """The top of a page on a desktop and on a phone, side by side."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shots = []
        for width in (WIDTH, PHONE):
            opened = browser.new_page(viewport={"width": width, "height": TALLEST})
            opened.goto(page.resolve().as_uri())
            shots.append(opened.screenshot())
        whole = browser.new_page(viewport={"width": WIDTH + PHONE, "height": TALLEST})
        images = "".join(f'<img src="data:image/png;base64,{base64.b64encode(shot).decode()}">' for shot in shots)
        whole.set_content(f"<body style='margin:0;display:flex;align-items:start'>{images}</body>")
        return whole.screenshot()


if __name__ == "__main__":
    main()
