"""What the client needs to run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tests.running import ROOT


def test_it_needs_nothing_but_python_and_httpx(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    client = packages / "gateway" / "client"
    client.mkdir(parents=True)
    shutil.copy(ROOT / "gateway" / "__init__.py", packages / "gateway")
    for source in (ROOT / "gateway" / "client").glob("*.py"):
        shutil.copy(source, client)
    for folder in _needed_by("httpx"):
        (packages / folder.name).symlink_to(folder)
    program = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from gateway.client import AsyncClient, Client, NoAnswer, Patience\n"
        "import asyncio\n"
        "once = Patience(attempts=1)\n"
        "async def ask():\n"
        "    async with AsyncClient('http://127.0.0.1:1', patience=once) as client:\n"
        "        await client.get('job_1')\n"
        "for run in (lambda: asyncio.run(ask()),\n"
        "            lambda: Client('http://127.0.0.1:1', patience=once).get('job_1')):\n"
        "    try:\n"
        "        run()\n"
        "    except NoAnswer as error:\n"
        "        print(type(error).__name__)\n"
    )
    # -I and -S: neither this checkout nor any installed package can be found.
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(packages)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["NoAnswer", "NoAnswer"]


def _needed_by(name: str) -> set[Path]:
    """Return what was installed for a distribution and everything it requires."""
    found: set[Path] = set()
    waiting, known = [name], {name}
    while waiting:
        distribution = metadata.distribution(waiting.pop())
        tops = {file.parts[0] for file in distribution.files or [] if file.suffix == ".py"}
        root = Path(str(distribution.locate_file("")))
        found |= {root / top for top in tops if top != ".."}
        for requirement in distribution.requires or []:
            required = requirement.partition(";")
            other = "".join(required[0].split(" ")[:1]).split("=")[0].split("<")[0].split(">")[0]
            if "extra" not in required[2] and other not in known and _is_installed(other):
                known.add(other)
                waiting.append(other)
    return found


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
