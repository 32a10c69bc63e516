"""The READMEs do what they say: every block runs as printed, every link leads somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.layers import PROCESS_VARIABLES
from config.settings import VARIABLES, environment
from tests.processes import program
from tests.readmes import (
    NOT_RUN,
    PAGES,
    READMES,
    STAYS,
    Block,
    Checkout,
    blocks_of,
    links_of,
    missing_line,
)
from tests.running import API_KEY, ROOT, Gateway, running

KINDS = {"sh", "text", "python", "toml", "js", "mermaid"}
LOAD_SETTINGS = (
    "from config.settings import environment, load_settings\n"
    "assert not load_settings(environment()).is_development"
)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout as somebody has it who has just cloned it."""
    return Checkout(tmp_path)


@pytest.mark.parametrize("readme", READMES)
def test_every_block_runs_as_printed(checkout: Checkout, readme: str) -> None:
    with checkout.terminals() as terminals:
        for block in blocks_of(checkout.markdown(readme)):
            output = ""
            match block.kind:
                case "sh" if block.mark == STAYS:
                    output = terminals.stay(block)
                case "sh" if block.mark.startswith(NOT_RUN):
                    look_at(block)
                case "sh":
                    output = terminals.run(block)
                case "python" | "toml" if block.file_name:
                    checkout.keep(block)
                case "python":
                    ran = checkout.python("-c", block.text)
                    assert ran.returncode == 0, ran.stderr
                    output = ran.stdout
            missing = missing_line(block.shown, output)
            assert missing is None, f"not shown: {missing}\n{block.text}\n{output}"


def look_at(block: Block) -> None:
    """Check of commands that are not run that they are there and can be read."""
    assert block.mark.removeprefix(NOT_RUN).strip(), "why it is not run is not said"
    for line in block.text.splitlines():
        command = ROOT / shlex.split(line, comments=True)[0]
        assert os.access(command, os.X_OK), line
        subprocess.run(["sh", "-n", str(command)], check=True)


@pytest.mark.parametrize("readme", PAGES)
def test_every_block_is_of_a_kind_that_is_looked_at(readme: str) -> None:
    markdown = (ROOT / readme).read_text(encoding="utf-8")
    opened = re.findall(r"^```(\w*)", markdown, re.MULTILINE)[::2]
    found = blocks_of(markdown)
    shown = sum(kind == "text" for kind in opened)
    assert len(found) == len(opened) - shown
    assert set(opened) <= KINDS
    for block in found:
        assert not block.mark or block.mark == STAYS or block.mark.startswith(NOT_RUN)
        assert block.kind != "toml" or block.file_name


@pytest.mark.parametrize("readme", PAGES)
def test_every_link_leads_to_a_file(readme: str) -> None:
    folder = (ROOT / readme).parent
    for target in links_of((ROOT / readme).read_text(encoding="utf-8")):
        place = (folder / target).resolve()
        assert place.is_relative_to(ROOT), target
        assert place.exists(), target


@pytest.mark.parametrize("package", ["config", "delivery", "gateway", "scripts", "tests"])
def test_every_module_is_on_its_packages_page(package: str) -> None:
    folder = ROOT / package
    linked = {
        (folder / target).resolve()
        for target in links_of((folder / "README.md").read_text(encoding="utf-8"))
    }
    modules = [each for each in folder.glob("*.py") if not each.name.startswith("__")]
    assert {each.name for each in modules if each not in linked} == set()


@pytest.mark.parametrize("readme", PAGES)
def test_every_variable_exists(readme: str) -> None:
    markdown = (ROOT / readme).read_text(encoding="utf-8")
    named = set(re.findall(r"\bGATEWAY_[A-Z_]+\b", markdown))
    assert named <= VARIABLES.keys() | PROCESS_VARIABLES


def test_the_settings_for_production_are_complete(checkout: Checkout) -> None:
    page = blocks_of(checkout.markdown("config/README.md"))
    [settings] = [block for block in page if block.kind == "toml"]
    [keys] = [block for block in page if block.kind == "sh" and "sealing.keys" in block.text]
    checkout.keep(settings)
    with checkout.terminals() as terminals:
        terminals.run(keys)
    assert (checkout.root / "sealing.keys").stat().st_mode & 0o077 == 0
    checkout.environ = {**checkout.environ, "GATEWAY_CONFIG": settings.file_name}
    ran = checkout.python("-c", LOAD_SETTINGS)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def node() -> str:
    """Return the path of Node."""
    return program("node", "the pattern's client")


def test_the_patterns_client_ends_with_what_is_to_be_added(node: str, tmp_path: Path) -> None:
    client = tmp_path / "client"
    shutil.copytree(ROOT / "tests" / "flow" / "polling_client", client)
    insert(added_to_the_pattern(), client / "pattern.mjs")
    with running(tmp_path / "data", {}) as gateway:
        waiting = {"payload": 1, "seconds": 600}
        cancelled = gateway.submit(type="demo.echo", input=waiting)
        gateway.client.post(f"/v1/jobs/{cancelled['jobId']}/cancel")
        gateway.ended(cancelled["jobId"])
        erased = gateway.submit(type="demo.echo", input={"payload": 2})
        gateway.ended(erased["jobId"])
        gateway.client.delete(f"/v1/jobs/{erased['jobId']}")
        completed = gateway.submit(type="demo.echo", input={"payload": 3})
        assert poll(node, client, gateway, cancelled["statusUrl"])["thrown"] == "cancelled"
        assert "expired" in poll(node, client, gateway, erased["statusUrl"])["thrown"]
        assert poll(node, client, gateway, completed["statusUrl"])["returned"] == {"payload": 3}


def added_to_the_pattern() -> str:
    """Return the lines that the READMEs tell to add, which one of them does once."""
    pages = [blocks_of((ROOT / readme).read_text(encoding="utf-8")) for readme in READMES]
    [block] = [block for page in pages for block in page if block.kind == "js"]
    return block.text


def insert(lines: str, pattern: Path) -> None:
    """Add `lines` to the client that waits for completion, after it has read the status."""
    text = pattern.read_text(encoding="utf-8")
    place = "const status = await response.json();\n"
    assert text.count(place) == 1
    pattern.write_text(text.replace(place, place + lines), encoding="utf-8")


def poll(node: str, client: Path, gateway: Gateway, status_url: str) -> dict[str, Any]:
    """Run the client to its end; return what it `returned` or has `thrown`."""
    origin = str(gateway.client.base_url)
    ended = subprocess.run(
        [node, str(client / "harness.mjs"), "waitForCompletion", origin, status_url],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | {"CLIENT_API_KEY": API_KEY},
        timeout=20,
    )
    assert ended.returncode == 0, ended.stderr
    outcome: dict[str, Any] = json.loads(ended.stdout)
    return outcome


def test_output_is_compared_line_by_line_in_order() -> None:
    output = "HTTP/1.1 202 Accepted\r\nlocation: /v1/jobs/job_1\r\n\r\n{}"
    assert missing_line(("HTTP/1.1 202 Accepted", "location: …/job_…"), output) is None
    assert missing_line(("location: …", "HTTP/1.1 202"), output) == "HTTP/1.1 202"
    assert missing_line(("HTTP/1.1 …", "HTTP/1.1 …"), output) == "HTTP/1.1 …"
    assert missing_line(("loc.tion",), output) == "loc.tion"
