"""Completion: scripts that shells can read, and what they then offer."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.gateway.cli.conftest import Cli

ASK = """
set -eu
source {script}
complete -p gateway > /dev/null
COMP_WORDS=({words}) COMP_CWORD={at}
_gateway_completion gateway
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def path(tmp_path: Path, cli: Cli) -> str:
    """Return a PATH on which there is a `gateway`."""
    program = tmp_path / "bin" / "gateway"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(cli.command())} "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{cli.environ['PATH']}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_script(cli: Cli, tmp_path: Path, shell: str) -> None:
    script = tmp_path / "script"
    script.write_text(cli("completion", shell))
    assert f"_GATEWAY_COMPLETE={shell}_complete" in script.read_text()
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to read it")
    subprocess.run([shell, "-n", str(script)], check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("gateway jo", {"jobs"}),
        ("gateway jobs wa", {"wait", "watch"}),
        ("gateway keys create --sc", {"--scope"}),
        ("gateway keys create --scope ad", {"admin"}),
        ("gateway completion ''", {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(cli: Cli, path: str, tmp_path: Path, words: str, offered: set[str]) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(cli("completion", "bash"))
    asked = ASK.format(script=script, words=words, at=len(words.split()) - 1)
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", asked],
        capture_output=True,
        text=True,
        check=False,
        env={**cli.environ, "PATH": path},
    )
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) == offered
