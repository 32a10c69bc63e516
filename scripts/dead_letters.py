#!/usr/bin/env python3
"""Dead letters: what could not be delivered or done, why, and putting it right.

    ./scripts/dead_letters.py list
    ./scripts/dead_letters.py show msg_00…
    ./scripts/dead_letters.py stats
    ./scripts/dead_letters.py replay --all --dry-run
    ./scripts/dead_letters.py purge --reason gone --yes

The same as `gateway dead-letters`, which is where it is written, for whoever has a checkout. Exit
codes: 0 done, 1 an error or nothing done, 2 wrong usage, 3 partly done, 130 interrupted.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VENV_PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__" and _VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    # Run by whatever python3 is first on the path: go on in the one that has the libraries.
    os.execv(_VENV_PYTHON, [str(_VENV_PYTHON), "-P", __file__, *sys.argv[1:]])  # noqa: S606

from gateway.cli.deadletters import dead_letters  # noqa: E402
from gateway.cli.main import run  # noqa: E402

if __name__ == "__main__":
    # As it was called, so that what it says to type next can be typed.
    name = sys.argv[0] if os.sep in sys.argv[0] else os.path.join(os.curdir, sys.argv[0])
    sys.exit(run(dead_letters, sys.argv[1:], name))
