"""Signing and verifying on the command line, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.clock import SystemClock
from delivery.signing import generate_secret
from tests.gateway.cli.conftest import Cli

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KNOWN = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""A known answer of the Standard Webhooks, over `BODY`."""
BODY = '{"test": 2432232314}'
FOREVER = "1e12"


@pytest.fixture
def body(tmp_path: Path) -> str:
    place = tmp_path / "body.json"
    place.write_text(BODY)
    return str(place)


def lines(headers: dict[str, str]) -> list[str]:
    return [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]


def test_the_known_answer(cli: Cli, body: str) -> None:
    given = ["--secret", SECRET, "--id", KNOWN["webhook-id"]]
    said = cli("sign", body, *given, "--timestamp", KNOWN["webhook-timestamp"], "--json")
    assert json.loads(said) == KNOWN
    assert "genuine" in cli(
        "verify", body, "--secret", SECRET, *lines(KNOWN), "--tolerance", FOREVER
    )


def test_what_was_signed_now_is_genuine(cli: Cli, tmp_path: Path) -> None:
    event = json.dumps({"type": "job.completed", "timestamp": "", "data": {}})
    kept = tmp_path / "secret"
    kept.write_text(generate_secret() + "\n")
    headers = tmp_path / "headers"
    signed = cli.process("sign", "--secret", f"@{kept}", stdin=event)
    assert signed.returncode == 0, signed.stderr
    headers.write_text(signed.stdout)
    ran = cli.process("verify", "--secret", f"@{kept}", "--headers", str(headers), stdin=event)
    assert (ran.returncode, ran.stdout[:22]) == (0, "genuine: job.completed"), ran.stderr


def test_a_secret_of_the_environment(cli: Cli, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_SECRET", f"{SECRET} {generate_secret()}")
    headers = dict(line.split(": ", 1) for line in cli("sign", body).splitlines())
    assert headers["webhook-signature"].count("v1,") == 2
    cli("verify", body, *lines(headers))


def test_a_text_is_for_x_signature(cli: Cli, body: str) -> None:
    text = generate_secret("x-signature")
    headers = json.loads(cli("sign", body, "--secret", text, "--secret", SECRET, "--json"))
    assert set(headers) == {"webhook-id", "webhook-timestamp", "webhook-signature", "x-signature"}
    for secrets in ([text], [SECRET], [SECRET, text]):
        given = [part for each in secrets for part in ("--secret", each)]
        assert "genuine" in cli("verify", body, *given, *lines(headers))
    headers["x-signature"] = "0" * 64
    asked = ["verify", body, "--secret", SECRET, "--secret", text, *lines(headers), "--json"]
    said = json.loads(cli(*asked, code=1))
    assert (said["part"], said["fault"]) == ("x-signature", "no_match")


@pytest.mark.parametrize(
    ("changed", "arguments", "part", "fault"),
    [
        ({"webhook-id": None}, [], "webhook-id", "missing"),
        ({"webhook-id": "msg_other"}, ["--tolerance", FOREVER], "webhook-signature", "no_match"),
        ({"webhook-timestamp": "soon"}, [], "webhook-timestamp", "malformed"),
        ({}, [], "webhook-timestamp", "too_old"),
        ({"webhook-timestamp": "999999999999"}, [], "webhook-timestamp", "too_new"),
        ({"webhook-signature": "v1"}, ["--tolerance", FOREVER], "webhook-signature", "malformed"),
        (
            {"webhook-signature": "v9,AAAA"},
            ["--tolerance", FOREVER],
            "webhook-signature",
            "unknown_version",
        ),
    ],
)
def test_it_says_which_part_failed(
    cli: Cli,
    body: str,
    changed: dict[str, str | None],
    arguments: list[str],
    part: str,
    fault: str,
) -> None:
    headers = {name: value for name, value in (KNOWN | changed).items() if value is not None}
    asked = ["verify", body, "--secret", SECRET, *lines(headers), *arguments]
    said = json.loads(cli(*asked, "--json", code=1))
    assert (said["genuine"], said["part"], said["fault"]) == (False, part, fault)
    assert cli(*asked, code=1) == ""
    assert cli.err.startswith(f"not genuine: {part} ")


def test_a_genuine_body_that_says_nothing(cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "body"
    place.write_bytes(b"\xff")
    headers = json.loads(cli("sign", str(place), "--secret", SECRET, "--json"))
    now = SystemClock().now() // 1_000_000
    assert abs(int(headers["webhook-timestamp"]) - now) < 60
    said = json.loads(
        cli("verify", str(place), "--secret", SECRET, *lines(headers), "--json", code=1)
    )
    assert said["part"] == "body"


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_a_secret_that_is_none_is_not_repeated(cli: Cli, body: str, command: str) -> None:
    secret = "whsec_dG9vIHNob3J0"
    cli(command, body, "--secret", secret, code=1)
    assert cli.err.startswith(f"gateway {command}: ")
    assert secret not in cli.err


def test_wrong_usage(cli: Cli, body: str, tmp_path: Path) -> None:
    cli("sign", body, code=2)
    assert "--secret" in cli.err
    cli("sign", str(tmp_path / "none"), "--secret", SECRET, code=2)
    assert "No such file" in cli.err
    cli("verify", body, "--secret", SECRET, "-H", "no colon", code=2)
    assert "NAME: VALUE" in cli.err
