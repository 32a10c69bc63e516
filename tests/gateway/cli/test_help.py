"""Help: there for every command, with examples, and quick."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from gateway.cli.command import sentence_of
from tests.gateway.cli.conftest import Cli
from tests.gateway.cli.tree import Place, commands, everything
from tests.running import ROOT

EVERYTHING = dict(everything())
COMMANDS = commands()

WANTED = {
    "up",
    "api",
    "relay",
    "worker",
    "delivery",
    *(f"jobs {each}" for each in ("submit", "get", "wait", "watch", "cancel", "retry", "list")),
    *(f"deliveries {each}" for each in ("list", "show", "redeliver")),
    *(f"dead-letters {each}" for each in ("list", "stats", "show", "replay", "purge", "resume")),
    *(f"endpoints {each}" for each in ("list", "show", "pause", "resume")),
    *(f"keys {each}" for each in ("create", "list", "revoke")),
    "trigger",
    "sign",
    "verify",
    "config check",
    "config show",
    "doctor",
    "completion",
}
HEAVY = {"httpx", "pydantic", "redis", "aiohttp", "starlette", "dramatiq", "cryptography"}

named = pytest.mark.parametrize("place", EVERYTHING, ids=" ".join)


def test_there_is_what_people_need() -> None:
    assert {" ".join(place) for place in COMMANDS} >= WANTED


@named
def test_every_help_says_what_for_and_how(cli: Cli, place: Place) -> None:
    said = cli(*place, "--help")
    assert said.startswith(f"Usage: {' '.join(('gateway', *place))} ")
    assert cli(*place, "-h") == said
    command = EVERYTHING[place]
    assert command.help
    if isinstance(command, click.Group):
        return
    examples = COMMANDS[place].examples
    assert examples
    for example in examples:
        assert f"gateway {' '.join(place)}" in example
        assert all(line in said for line in example.splitlines())
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help, param.name
        assert not isinstance(param, click.Argument) or param.help or param.metavar, param.name


@named
def test_a_summary_is_not_cut_off(cli: Cli, place: Place) -> None:
    if isinstance(EVERYTHING[place], click.Group):
        assert "..." not in cli(*place, "--help").replace("JOB...", "").replace("]...", "")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import json, sys; from gateway.cli.main import main\n"
        f"for place in {list(EVERYTHING)!r}: assert main([*place, '--help']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    loaded = set(json.loads(ran.stdout.splitlines()[-1]))
    assert "gateway.cli.jobs" in loaded
    assert loaded & HEAVY == set()


def test_a_wrong_command_is_wrong_usage(cli: Cli) -> None:
    cli("jbos", code=2)
    assert "No such command 'jbos'" in cli.err
    cli("jobs", "get", "not-a-job", code=2)
    assert "job_00… is one" in cli.err
    cli("jobs", "list", "--since", "yesterday", code=2)
    assert "2h" in cli.err
    for limit in ("0", "100001", "many", "1.5"):
        cli("jobs", "list", "--limit", limit, code=2)
        assert f"'{limit}' is not a whole number from 1 to 100000" in cli.err
    for seconds in ("-1", "nan", "soon"):
        cli("jobs", "wait", "job_00" + "0" * 22, "--timeout", seconds, code=2)
        assert f"'{seconds}' is not a number from 0" in cli.err
    cli("jobs", "submit", "t", "{", code=2)
    assert "not JSON" in cli.err
    cli("jobs", "submit", "t", "@/nowhere.json", code=2)
    assert "/nowhere.json: No such file or directory" in cli.err


def test_the_version(cli: Cli) -> None:
    assert cli("--version").startswith("gateway")


def test_a_fault_of_ours_is_a_sentence_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_text: str) -> None:
        raise KeyError("what\x1b[2J")

    monkeypatch.setattr("gateway.cli.completion.say", fails)
    cli("completion", "bash", code=1)
    [line] = cli.err.splitlines()
    assert line.startswith("gateway completion: a fault of this program: KeyError")
    assert "\x1b" not in line
    assert sentence_of(OSError()) == "OSError"
