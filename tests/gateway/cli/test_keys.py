"""API keys by the command line, against a running gateway."""

from __future__ import annotations

import json

import httpx
import pytest

from gateway.auth import is_made_here
from tests.gateway.cli.conftest import Cli
from tests.running import Gateway

ABSENT = "key_00" + "0" * 22


def accepts(gateway: Gateway, key: str) -> bool:
    """Tell whether the gateway takes a key."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{gateway.record()['apiUrl']}/v1/job-types"
    return httpx.get(url, headers=headers, trust_env=False).status_code == 200


def test_a_key_from_its_making_to_its_end(asking: Cli, whole: Gateway) -> None:
    create = ["keys", "create", "--scope", "read", "--scope", "submit", "--tenant", "globex"]
    key = asking(*create, "--name", "Globex \x1b[31msite").strip()
    assert is_made_here(key)
    assert accepts(whole, key)
    key_id = asking.err.split(",")[0]

    listed = asking("keys", "list")
    headings = ["KEY", "TENANT", "SCOPES", "CREATED", "EXPIRES", "NAME"]
    assert listed.splitlines()[0].split() == headings
    assert f"{key_id}  globex" in listed
    assert "read,submit" in listed
    assert "\x1b" not in listed
    assert key not in listed

    [line] = asking("keys", "list", "--json", "--tenant", "globex").splitlines()
    assert json.loads(line)["id"] == key_id
    asking("keys", "list", "--tenant", "nobody")
    assert "No keys" in asking.err

    assert f"{key_id} revoked" in asking("keys", "revoke", key_id, ABSENT, code=3)
    asking("keys", "revoke", key_id, code=1)
    assert f"there is no key {key_id}" in asking.err


def test_more_keys_than_a_page(asking: Cli) -> None:
    create = ("keys", "create", "--json", "--scope", "read", "--tenant", "many")
    made = [json.loads(asking(*create))["id"] for _ in range(55)]
    lines = asking("keys", "list", "--json", "--tenant", "many").splitlines()
    assert [json.loads(line)["id"] for line in lines] == made


def test_a_refusal_is_a_sentence(asking: Cli) -> None:
    past = "2001-01-01T00:00:00Z"
    asking("keys", "create", "--scope", "read", "--expires", past, code=1)
    [line] = asking.err.splitlines()
    assert line.startswith("gateway keys create: 422 ")
    assert "/expiresAt must lie in the future" in line


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("create",),
        ("create", "--scope", "all"),
        ("revoke",),
        ("revoke", "../tenants"),
        ("show", "x"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    cli("keys", *arguments, code=2)
    assert "Usage" in cli.err
