"""A gateway for the command line to ask."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from config.settings import environment
from gateway.cli.main import main
from tests.running import API_KEY, ROOT, Gateway, running


@dataclass(slots=True)
class Cli:
    """The command line, in this process and as a process of its own.

    Attributes:
        environ: what it finds in the environment.
    """

    capsys: pytest.CaptureFixture[str]
    environ: Mapping[str, str]
    err: str = field(default="", init=False)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that ends with `code`; return what it said, and keep its complaints."""
        self.capsys.readouterr()
        ended = main(arguments)
        out, self.err = self.capsys.readouterr()
        assert ended == code, f"{arguments}: {ended}\n{out}\n{self.err}"
        return out

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a process of its own."""
        return [sys.executable, "-P", "-m", "gateway", *arguments]

    def process(
        self, *arguments: str, stdin: str | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**self.environ, **variables},
            timeout=60,
        )


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A running gateway with several partitions."""
    settings = {
        "GATEWAY_JOBS_RETRY_GAPS_SECONDS": "[0.1]",
        "GATEWAY_JOBS_SWEEP_SECONDS": "0.2",
        "GATEWAY_STORE_PARTITIONS": "4",
    }
    with running(tmp_path_factory.mktemp("cli") / "data", settings) as started:
        yield started


@pytest.fixture
def bare() -> dict[str, str]:
    """An environment that says nothing to the gateway."""
    inherited = {
        name: value
        for name, value in environment().items()
        if not name.startswith(("GATEWAY_", "WEBHOOK_", "NO_COLOR"))
    }
    return inherited | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], bare: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The command line, with nobody to ask."""
    for name in environment().keys() - bare.keys():
        monkeypatch.delenv(name)
    return Cli(capsys, bare)


@pytest.fixture
def asking(cli: Cli, whole: Gateway, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line, with a gateway to ask."""
    named = {"GATEWAY_API_URL": whole.record()["apiUrl"], "GATEWAY_API_KEY": API_KEY}
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    cli.environ = {**cli.environ, **named}
    return cli
