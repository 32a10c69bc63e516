"""Dead letters on the command line: found, counted, replayed and purged, and being told to stop."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from threading import Event

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from gateway.cli.options import Callee
from tests.gateway.cli.conftest import Cli
from tests.gateway.cli.test_watch import terminal
from tests.processes import eventually
from tests.running import ROOT, Gateway, inbox

_NUMBERS = count()


@pytest.fixture(scope="module")
def servers() -> Iterator[ExitStack]:
    """What keeps receivers until all tests are over, so that no two have the same port."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def receiver(servers: ExitStack) -> str:
    """Where callbacks are answered with 410, so that each is dead at its first attempt."""
    server = servers.enter_context(HTTPServer(host="127.0.0.1", port=0))
    server.expect_request(re.compile("/gone/.*")).respond_with_data(status=410)
    return server.url_for("/gone")


@pytest.fixture
def dead(whole: Gateway, receiver: str) -> list[str]:
    """Return deliveries that are dead, of one endpoint of their own."""
    return bury(whole, receiver, 4)


def bury(gateway: Gateway, receiver: str, number: int) -> list[str]:
    found: list[str] = []
    for _ in range(number):
        url = f"{receiver}/{next(_NUMBERS)}"
        job = gateway.submit(type="demo.echo", input={"payload": 1}, callbackUrl=url)
        gateway.called_back(job["jobId"], "dead")
        [item] = gateway.client.get(f"/v1/jobs/{job['jobId']}/deliveries").json()["items"]
        found.append(item["id"])
    return found


def origin_of(receiver: str) -> str:
    return receiver.removesuffix("/gone")


def test_they_are_listed_oldest_first(asking: Cli, dead: list[str], receiver: str) -> None:
    said = asking("dead-letters", "list", "--endpoint", origin_of(receiver), "--since", "1h")
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == ["DELIVERY", *dead]
    assert all("gone" in line and " 410 " in line for line in lines[1:])
    assert asking.err.startswith("410: The receiver answered 410: it wants no more.")
    assert len(asking.err.splitlines()) == 1, "said once"
    listed = asking("dead-letters", "list", "--endpoint", origin_of(receiver), "--json")
    letters = [json.loads(line) for line in listed.splitlines()]
    assert [each["id"] for each in letters] == dead
    assert {each["reason"] for each in letters} == {"gone"}
    few = ("dead-letters", "list", "--endpoint", origin_of(receiver), "--limit", "2")
    assert len(asking(*few).splitlines()) == 3
    assert "--limit N" in asking.err
    assert asking("dead-letters", "list", "--reason", "poison") == "No dead letters.\n"


def test_they_are_counted(asking: Cli, dead: list[str], receiver: str) -> None:
    said = asking("dead-letters", "stats", "--endpoint", origin_of(receiver))
    assert said.startswith("4 dead letters\n")
    for line in ("4  gone", "4  demo.echo", "4  1h", f"4  {origin_of(receiver)}"):
        assert f"  {line}\n" in said
    found = json.loads(asking("dead-letters", "stats", "--json", "--reason", "gone"))
    assert found["total"] >= 4


def test_one_is_shown(asking: Cli, dead: list[str], whole: Gateway) -> None:
    said = asking("dead-letters", "show", dead[0])
    assert "reason             gone" in said
    assert "This URL is not used again until it is enabled." in said
    job_id = json.loads(asking("dead-letters", "show", dead[0], "--json"))["jobId"]
    assert f"jobId              {job_id}" in asking("dead-letters", "show", job_id)


@pytest.mark.parametrize("url", ["{}/", "{}/gone/1?key=1", "{}"])
def test_an_endpoint_is_meant_by_any_of_its_urls(
    asking: Cli, dead: list[str], receiver: str, url: str
) -> None:
    asked = ("--endpoint", url.format(origin_of(receiver)))
    assert len(asking("dead-letters", "list", *asked).splitlines()) == 1 + len(dead)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--endpoint", "client.example"), "neither an endpoint"),
        (("--endpoint", "https://client.example:x/"), "neither an endpoint"),
        (("--endpoint", "ftp://client.example/"), "neither an endpoint"),
        (("--reason", "exausted"), "exhausted, gone"),
        (("--job", "42"), "is not the identifier of a job"),
    ],
)
def test_what_no_letter_can_be_is_no_filter(
    asking: Cli, words: tuple[str, str], complaint: str
) -> None:
    """A slip of the pen must not look like nothing being dead."""
    for command in (("list",), ("stats",), ("replay", "--dry-run")):
        asking("dead-letters", *command, *words, code=2)
        assert complaint in asking.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://Client.Example:443/hooks", "https://client.example"),
        ("http://client.example:80", "http://client.example"),
        ("https://client.example:8443/", "https://client.example:8443"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
        ("ep_00" + "0" * 22, "ep_00" + "0" * 22),
    ],
)
def test_an_origin_is_written_as_the_gateway_does(given: str, meant: str) -> None:
    assert Callee().convert(given, None, None) == meant


def test_a_dry_run_changes_nothing(asking: Cli, dead: list[str], receiver: str) -> None:
    scope = ("--endpoint", origin_of(receiver))
    said = asking("dead-letters", "replay", *scope, "--dry-run")
    assert f"4 dead letters match\n         4  {'gone':24}  {'#' * 40}\n" in said
    assert len(asking("dead-letters", "list", *scope).splitlines()) == 5


def test_some_are_replayed_and_the_rest_is_told_of(
    asking: Cli, dead: list[str], tmp_path: Path, httpserver: HTTPServer
) -> None:
    box = inbox(httpserver, "/mended")
    report = tmp_path / "report.json"
    said = asking(
        "dead-letters",
        "replay",
        *dead[:2],
        *("--to-url", box.url, "--rate", "100", "--wait", "20"),
        *("--report", str(report)),
    )
    assert "2 replayed, 2 delivered, 0 failed" in said
    assert said.endswith("2 replayed\n")
    assert {headers["webhook-id"] for headers, _ in box.received} == set(dead[:2])
    kept = json.loads(report.read_text())
    assert (kept["state"], kept["ids"], kept["progress"]["delivered"]) == ("completed", 2, 2)

    said = asking("dead-letters", "replay", *dead[1:3], "--to-url", box.url, code=3)
    assert "1 replayed" in said
    assert "1 left alone: " in asking.err
    assert "0 replayed" in asking("dead-letters", "replay", dead[0], code=1)
    shown = asking("dead-letters", "show", kept["id"])
    assert "state              completed" in shown


def test_what_is_not_taken_is_told_of(asking: Cli, dead: list[str]) -> None:
    said = asking("dead-letters", "replay", dead[0], "--wait", "20", code=3)
    assert "1 replayed" in said
    assert f"{dead[0]} was not taken: disabled" in asking.err


@pytest.mark.parametrize("as_json", [True, False])
def test_a_file_says_which(
    asking: Cli, dead: list[str], receiver: str, tmp_path: Path, as_json: bool
) -> None:
    listed = tmp_path / "listed"
    if as_json:
        scope = ("--endpoint", origin_of(receiver))
        listed.write_text(asking("dead-letters", "list", *scope, "--json"))
    else:
        listed.write_text("# these\n\n" + "".join(f"{each}  why\n" for each in dead))
    said = asking("dead-letters", "replay", "--from-file", str(listed), "--dry-run", "--json")
    assert json.loads(said)["progress"]["matched"] == 4


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("", "names none"), ("{}\n", "line without an id"), ("ep_00\n", "is not a delivery")],
)
def test_a_file_that_cannot_be_used(
    asking: Cli, tmp_path: Path, content: str, complaint: str
) -> None:
    listed = tmp_path / "listed"
    listed.write_text(content)
    asking("dead-letters", "replay", "--from-file", str(listed), code=2)
    assert complaint in asking.err


def test_they_are_purged_when_it_is_meant(asking: Cli, dead: list[str], receiver: str) -> None:
    scope = ("--endpoint", origin_of(receiver))
    asking("dead-letters", "purge", *scope, code=2)
    assert "--yes" in asking.err
    assert "4 dead letters match" in asking("dead-letters", "purge", *scope, "--dry-run")
    assert asking("dead-letters", "purge", *scope, "--yes", "--max", "3").endswith("3 purged\n")
    assert len(asking("dead-letters", "list", *scope).splitlines()) == 2


def test_a_terminal_is_asked_first(asking: Cli, dead: list[str], receiver: str) -> None:
    command = ("dead-letters", "purge", "--endpoint", origin_of(receiver))
    for answer, code, ending in ((b"n\n", 130, ""), (b"y\n", 0, "4 purged")):
        with terminal(asking, *command) as shown:
            while "[y/N]" not in shown.said:
                assert shown.read()
            assert "4  gone" in shown.said
            os.write(shown.screen, answer)
            assert shown.ended() == code
            assert ending in shown.said


def test_a_bar_grows(asking: Cli, dead: list[str]) -> None:
    with terminal(asking, "dead-letters", "replay", *dead, "--rate", "10") as shown:
        assert shown.ended() == 0
    assert "\r\x1b[K" in shown.said
    assert "100 %  completed" in shown.said
    assert "4 replayed" in shown.said


@pytest.mark.parametrize("where", [(), ("--store",)])
def test_told_to_stop_it_says_how_to_go_on(
    asking: Cli, whole: Gateway, dead: list[str], tmp_path: Path, where: tuple[str, ...]
) -> None:
    report = tmp_path / "report.json"
    place = (*where, "--data-dir", str(whole.data))
    command = ("dead-letters", "replay", *dead, "--rate", "0.5", "--report", str(report), *place)
    with terminal(asking, *command) as shown:
        while "1 replayed" not in shown.said:
            assert shown.read()
        os.killpg(shown.process.pid, signal.SIGINT)
        assert shown.ended() == 130
    found = re.search(r"To go on: (gateway dead-letters resume (rpl_\w+).*?)\r\n", shown.said)
    assert found is not None
    assert shlex.split(found[1])[4:] == list(place)
    kept = json.loads(report.read_text())
    assert (kept["id"], kept["state"]) == (found[2], "cancelled")
    moved = kept["progress"]["replayed"]
    assert 1 <= moved < 4
    assert "4 replayed" in asking(*shlex.split(found[1])[1:])
    done = whole.client.get(f"/v1/replays/{found[2]}").json()
    assert (done["progress"]["replayed"], done["progress"]["skipped"]) == (4, {})
    asking(*shlex.split(found[1])[1:], code=1)
    assert "completed" in asking.err


def test_told_to_stop_when_all_are_sent_it_says_so(
    asking: Cli, dead: list[str], tmp_path: Path, httpserver: HTTPServer
) -> None:
    held = Event()
    httpserver.expect_request("/held").respond_with_handler(lambda _: wait_for(held))
    report = tmp_path / "report.json"
    command = ("dead-letters", "replay", dead[0], "--to-url", httpserver.url_for("/held"))
    with terminal(asking, *command, "--wait", "60", "--report", str(report)) as shown:
        while "completed" not in shown.said:
            assert shown.read()
        os.killpg(shown.process.pid, signal.SIGINT)
        assert shown.ended() == 130
    held.set()
    assert json.loads(report.read_text())["state"] == "completed"
    assert "To go on" not in shown.said


def wait_for(held: Event) -> Response:
    held.wait(20)
    return Response(status=200)


@pytest.mark.parametrize("where", [(), ("--store",)])
def test_killed_and_run_again_it_doubles_nothing_and_misses_nothing(
    asking: Cli,
    whole: Gateway,
    dead: list[str],
    receiver: str,
    httpserver: HTTPServer,
    where: tuple[str, ...],
) -> None:
    box = inbox(httpserver, "/after")
    place = (*where, "--data-dir", str(whole.data))
    command = (
        *("dead-letters", "replay", "--endpoint", origin_of(receiver), "--yes"),
        *("--to-url", box.url, "--wait", "20", *place),
    )
    with terminal(asking, *command, "--rate", "0.5") as shown:
        while "1 replayed" not in shown.said:
            assert shown.read()
        os.killpg(shown.process.pid, signal.SIGKILL)
        assert shown.ended() == -signal.SIGKILL
    asking(*command)
    assert asking("dead-letters", "list", "--endpoint", origin_of(receiver)) == "No dead letters.\n"

    def have_arrived() -> bool:
        return {headers["webhook-id"] for headers, _ in box.received} == set(dead)

    assert eventually(have_arrived)
    counted = whole.client.get("/v1/replays").json()["items"][:2]
    assert sum(each["progress"]["replayed"] for each in counted) == len(dead)
    assert len(box.received) == len(dead)


def test_another_tenants_are_looked_at_and_not_touched(asking: Cli, dead: list[str]) -> None:
    assert asking("dead-letters", "list", "--tenant", "nobody") == "No dead letters.\n"
    for words in (("replay", "--all"), ("purge", "--all", "--yes"), ("show", dead[0])):
        asking("dead-letters", *words, "--tenant", "nobody", code=2)
        assert "--tenant needs --store" in asking.err
    asking("dead-letters", "show", dead[0])


def test_beside_the_store_nothing_else_need_run(
    asking: Cli, whole: Gateway, dead: list[str], receiver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--store", "--data-dir", str(whole.data))
    with whole.paused("api"), whole.paused("delivery"), whole.paused("relay"):
        listed = asking("dead-letters", "list", "--endpoint", origin_of(receiver), "--json", *place)
        assert [json.loads(line)["id"] for line in listed.splitlines()] == dead
        assert "4 replayed" in asking("dead-letters", "replay", *dead, *place)
        theirs = asking("dead-letters", "list", "--tenant", "nobody", *place)
        assert theirs == "No dead letters.\n"
    asking("dead-letters", "list", "--store", "--data-dir", "/nowhere", code=1)
    assert "no gateway runs in /nowhere" in asking.err
    asking("dead-letters", "list", "--tenant", "A:b", *place, code=1)
    assert "is no tenant" in asking.err


def test_jobs_are_run_again(asking: Cli, whole: Gateway) -> None:
    failing = {"payload": 1, "fail": "No more paper.\x1b[2J"}
    jobs = [whole.submit(type="demo.echo", input=failing)["jobId"] for _ in range(2)]
    for job_id in jobs:
        whole.ended(job_id)
    said = asking("dead-letters", "list", "--kind", "job", "--limit", "10000")
    assert {line.split()[0] for line in said.splitlines()} >= set(jobs)
    assert "\x1b" not in said
    assert "2 replayed" in asking("dead-letters", "replay", "--kind", "job", *jobs)
    assert all(whole.job(job_id)["retriedAs"] for job_id in jobs)


def test_the_script_is_the_same(asking: Cli, whole: Gateway, dead: list[str]) -> None:
    shown = whole.dead_letters("show", dead[0], "--json")
    assert json.loads(shown.stdout) == json.loads(asking("dead-letters", "show", dead[0], "--json"))
    helped = whole.dead_letters("list", "--help")
    assert helped.stdout.startswith(f"Usage: {ROOT}/scripts/dead_letters.py list ")
