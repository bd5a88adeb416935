"""Make docs/images/report.png: the top of a run's report page, in light, in dark and on a phone, side by side.

    FTBRIDGE_HOME=… python docs/picture.py [RUN]     the latest finished run of examples/support-triage, where none is named

Needs Playwright (pip install playwright) and a Chromium on the PATH. The page is made again, so that the picture shows what
`ftbridge report` writes now.
"""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from pathlib import Path

from ftbridge import files
from ftbridge.report.html import write_report
from ftbridge.runs import store
from ftbridge.runs.run import Run

TARGET = Path(__file__).parent / "images" / "report.png"
WIDTH = 760
"""Of one theme, in pixels."""
PHONE = 390
MOST_BYTES = 450_000


def main() -> None:
    """Write the picture and say where."""
    home = files.home()
    run = store.find(home, sys.argv[1]) if len(sys.argv) > 1 else _latest_example(home)
    with tempfile.TemporaryDirectory() as folder:
        files.write_bytes(TARGET, _picture(write_report([run], Path(folder) / "report.html")))
    size = TARGET.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"{TARGET} has {size:,} bytes; it should have at most {MOST_BYTES:,}.")
    print(f"{TARGET}: {size:,} bytes, of {run.id}")


def _latest_example(home: Path) -> Run:
    for run in store.runs(home):
        state = run.state()
        if state.name == "support-triage" and state.state == "succeeded":
            return run
    sys.exit(f"no finished run of examples/support-triage under {home}; make one with `make demo`.")


def _picture(page: Path) -> bytes:
    """Both themes and a phone side by side, as far down as the losses go on a wide screen."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        shots, height = [], 0
        for width, scheme in ((WIDTH, "light"), (WIDTH, "dark"), (PHONE, "light")):
            opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            opened.goto(page.as_uri())
            if not height:
                last = opened.locator("#loss, #retention, #scores").last.bounding_box() or {"y": 900, "height": 0}
                height = round(last["y"] + last["height"] + 16)
            clip = {"x": 0, "y": 0, "width": width, "height": height}
            shots.append(opened.screenshot(clip=clip, full_page=True))
        whole = browser.new_page(viewport={"width": 2 * WIDTH + PHONE, "height": 100})
        images = "".join(f'<img src="data:image/png;base64,{base64.b64encode(shot).decode()}">' for shot in shots)
        whole.set_content(f"<body style='margin:0;display:flex;align-items:start'>{images}</body>")
        return whole.screenshot(full_page=True)


if __name__ == "__main__":
    main()
