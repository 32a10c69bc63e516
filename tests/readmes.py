"""READMEs that are run: their blocks, and a checkout of their own to run them in.

How a README speaks to the tests:

```sh           runs in the README's one bash session, each command must end with 0
```text         after a ```sh block: what its output shows, line by line, `…` stands for anything
```python       runs; if its first line is a comment with a file's name, it is kept there instead
```toml         is kept in the file that its first line names; the gateway's settings, complete
```js           what to add to the pattern's polling client, which then ends as it should
<!-- stays -->            before ```sh: runs in another terminal until the next such block (Ctrl-C)
<!-- not run: why -->     before ```sh: only looked at; its commands must exist and be readable
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from config.settings import environment
from tests.processes import PATIENCE, eventually
from tests.running import ROOT

READMES: Final = (
    "README.md",
    "config/README.md",
    "delivery/README.md",
    "gateway/README.md",
    "gateway/SECURITY.md",
    "scripts/README.md",
    "tests/README.md",
    "tests/hostile/README.md",
)
RUNBOOK: Final = "scripts/RUNBOOK.md"
"""Its blocks speak of an outage: they are run by the drill, which has one."""
PAGES: Final = (*READMES, RUNBOOK)
PRINTED_PORTS: Final = ("8080", "9000")
"""What READMEs print and tests replace by free ports: the api's, and that of a receiver."""

_LOCKS: Final = {
    "runtime": ("requirements.lock",),
    "video": ("requirements.lock", "requirements-video.lock"),
    "otel": ("requirements.lock", "requirements-otel.lock"),
    "dev": ("requirements-dev.lock", "npm/package-lock.json"),
}

STAYS: Final = "stays"
NOT_RUN: Final = "not run:"

_FENCE: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_FILE_NAME: Final = re.compile(r"# (?P<name>[\w./-]+\.(?:py|toml))\n")
_LINK: Final = re.compile(r"\]\((?P<target>[^)#\s]+)\)")
_SKIPPED: Final = shutil.ignore_patterns(".*", "__pycache__")
_COMMAND_PATIENCE: Final = 2 * PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        kind: what it is said to be: sh, text, python, toml, js, mermaid.
        text: its lines.
        mark: the comment before it; empty without one.
        shown: the lines of the ```text block after it.
    """

    kind: str
    text: str
    mark: str
    shown: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """Where it is to be kept; empty when nowhere."""
        found = _FILE_NAME.match(self.text)
        return found["name"] if found else ""


def blocks_of(markdown: str) -> list[Block]:
    """Return the blocks of a page in their order, `text` blocks with the ones they belong to."""
    found = [(each["kind"], each["text"], each["mark"] or "") for each in _FENCE.finditer(markdown)]
    after = [*found, ("", "", "")][1:]
    return [
        Block(
            kind=kind,
            text=text,
            mark=mark,
            shown=tuple(next_text.splitlines()) if next_kind == "text" else (),
        )
        for (kind, text, mark), (next_kind, next_text, _) in zip(found, after, strict=True)
        if kind != "text"
    ]


def links_of(markdown: str) -> list[str]:
    """Return the targets of a page's links that stay inside the repository."""
    targets = [each["target"] for each in _LINK.finditer(_FENCE.sub("", markdown))]
    return [target for target in targets if "://" not in target]


def missing_line(shown: tuple[str, ...], output: str) -> str | None:
    """Return the first line of `shown` that `output` lacks in this order; None if it has all."""
    lines = iter(output.splitlines())
    for line in shown:
        wanted = re.compile(".*".join(map(re.escape, line.strip().split("…"))))
        if not any(wanted.search(each) for each in lines):
            return line
    return None


class Checkout:
    """A copy of the checkout with the environment of this run, so that READMEs run as printed.

    The ports are the one thing replaced, in commands and in what they show. The environment's
    packages are linked, not copied; PYTHONPATH says whose modules are meant, since the packages
    know where the first checkout is.
    """

    def __init__(self, place: Path) -> None:
        self.root = place.resolve() / "checkout"
        shutil.copytree(ROOT, self.root, ignore=_SKIPPED, symlinks=True)
        self._ports = dict(zip(PRINTED_PORTS, _free_ports(len(PRINTED_PORTS)), strict=True))
        self._link_environment()
        inherited = {
            name: value for name, value in environment().items() if not name.startswith("GATEWAY_")
        }
        self.environ: Mapping[str, str] = inherited | {
            "GATEWAY_API_PORT": self._ports["8080"],
            "PYTHONPATH": str(self.root),
            "PYTHONUNBUFFERED": "1",
        }

    def _link_environment(self) -> None:
        venv = self.root / ".venv"
        (venv / "bin").mkdir(parents=True)
        prefix = Path(sys.prefix)
        linked = [*prefix.iterdir(), *(prefix / "bin").iterdir()]
        for each in linked:
            # What is ours is made by `scripts/setup`.
            if not each.name.startswith(".") and each.name not in {"bin", "gateway"}:
                (venv / each.relative_to(prefix)).symlink_to(each)
        # What `scripts/setup` leaves behind: it then finds nothing to install.
        for mode, locks in _LOCKS.items():
            content = b"".join((self.root / "config" / lock).read_bytes() for lock in locks)
            summed = subprocess.run(["cksum"], input=content, capture_output=True, check=True)
            stamp = f"{summed.stdout.decode().strip()} {self.root}\n"
            (venv / f".gateway.{mode}").write_text(stamp)

    def markdown(self, readme: str) -> str:
        """Return the page with this checkout's ports."""
        text = (self.root / readme).read_text(encoding="utf-8")
        for printed, free in self._ports.items():
            text = re.sub(rf"\b{printed}\b", free, text)
        return text

    def origin(self, printed: str) -> str:
        """Return the origin of what READMEs print at this port."""
        return f"http://127.0.0.1:{self._ports[printed]}"

    def keep(self, block: Block) -> None:
        """Keep a block in the file that it names."""
        place = self.root / block.file_name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(block.text, encoding="utf-8")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python in the checkout."""
        return subprocess.run(
            [str(self.root / ".venv" / "bin" / "python"), *arguments],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=_COMMAND_PATIENCE,
            check=False,
        )

    @contextmanager
    def terminals(self) -> Iterator[Terminals]:
        """Open the two terminals of a reader; everything in them has ended afterwards."""
        terminals = Terminals(self)
        try:
            yield terminals
        finally:
            terminals.close()


class Terminals:
    """One terminal for the commands, one for what stays."""

    def __init__(self, checkout: Checkout) -> None:
        self._checkout = checkout
        self._log = checkout.root.with_name("session.log")
        self._blocks = 0
        self._staying: subprocess.Popen[bytes] | None = None
        with self._log.open("wb") as log:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-eu", "-o", "pipefail"],
                cwd=checkout.root,
                env=checkout.environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, block: Block) -> str:
        """Run the block in the session and return its output; fail if a command does."""
        self._blocks += 1
        script = self._checkout.root.with_name(f"block-{self._blocks}.sh")
        script.write_text(block.text, encoding="utf-8")
        end = f"--- end of block {self._blocks} ---\n"
        before = len(self._said(self._log))
        assert self._shell.stdin is not None
        self._shell.stdin.write(f". {script} < /dev/null\necho '{end.strip()}'\n".encode())
        self._shell.stdin.flush()
        deadline = time.monotonic() + _COMMAND_PATIENCE
        while True:
            said = self._said(self._log)[before:]
            if end in said:
                return said.replace(end, "")
            failed = f"{block.text}\n{said}"
            assert self._shell.poll() is None, f"a command failed:\n{failed}"
            assert time.monotonic() < deadline, f"still running:\n{failed}"
            time.sleep(0.02)

    def stay(self, block: Block) -> str:
        """Run the block in the other terminal; return what it says until it is up."""
        self._interrupt()
        said = self._checkout.root.with_name("staying.log")
        with said.open("wb") as log:
            staying = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-c", block.text],
                cwd=self._checkout.root,
                env=self._checkout.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._staying = staying

        def is_up() -> bool:
            assert staying.poll() is None, self._said(said)
            return "Ctrl-C" in self._said(said)

        assert eventually(is_up), self._said(said)
        return self._said(said)

    def close(self) -> None:
        """Press Ctrl-C in one terminal and leave the other."""
        try:
            self._interrupt()
        finally:
            # The group outlives the shell for as long as something it started does.
            with suppress(ProcessLookupError):
                os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.communicate()

    def _interrupt(self) -> None:
        staying, self._staying = self._staying, None
        if staying is None or staying.poll() is not None:
            return
        os.killpg(staying.pid, signal.SIGINT)
        assert staying.wait(60) == 0

    @staticmethod
    def _said(log: Path) -> str:
        return log.read_text(encoding="utf-8", errors="replace")


def _free_ports(count: int) -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [str(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()
