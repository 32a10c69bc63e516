"""The operators' script for API keys, against a running api process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from gateway.auth import is_made_here
from scripts.keys import main
from tests.gateway import test_app
from tests.gateway.test_app import KEY, Served

api = test_app.served
"""A running api process."""


@pytest.fixture
def named(api: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Have the environment name the gateway and its key."""
    monkeypatch.setenv("GATEWAY_API_URL", api.url)
    monkeypatch.setenv("GATEWAY_API_KEY", KEY)
    with api.client() as client:
        client.get("/readyz").raise_for_status()
    return api


def accepts(api: Served, key: str) -> bool:
    """Tell whether the gateway takes a key."""
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(f"{api.url}/v1/job-types", headers=headers, trust_env=False)
    return answer.status_code == 200


def test_a_key_from_its_making_to_its_end(
    named: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ["create", "--scope", "read", "--scope", "submit", "--tenant", "globex"]
    assert main([*create, "--name", "Globex \x1b[31msite"]) == 0
    out, err = capsys.readouterr()
    key = out.strip()
    assert is_made_here(key)
    assert accepts(named, key)
    key_id = err.split(",")[0]

    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert listed.splitlines()[0].split() == [
        "KEY",
        "TENANT",
        "SCOPES",
        "CREATED",
        "EXPIRES",
        "NAME",
    ]
    assert f"{key_id}  globex" in listed
    assert "read,submit" in listed
    assert "\x1b" not in listed
    assert key not in listed

    assert main(["list", "--json", "--tenant", "globex"]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["id"] == key_id
    assert main(["list", "--tenant", "nobody"]) == 0
    assert "No keys" in capsys.readouterr().out

    assert main(["revoke", key_id, "key_00" + "0" * 22]) == 3
    assert f"{key_id} revoked" in capsys.readouterr().out
    assert main(["revoke", key_id]) == 1
    assert main(["revoke", "../tenants"]) == 1


def test_more_keys_than_a_page(named: Served, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for _ in range(55):
        assert main(["create", "--json", "--scope", "read"]) == 0
        made.append(json.loads(capsys.readouterr().out)["id"])
    assert main(["list", "--json"]) == 0
    listed = [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]
    assert listed == made


def test_the_gateway_of_a_data_directory(
    named: Served,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_API_")]:  # noqa: TID251
        monkeypatch.delenv(name)
    folder = tmp_path / "data"
    assert main(["list", "--data-dir", str(folder)]) == 1
    assert "no gateway runs" in capsys.readouterr().err
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"apiUrl": named.url}))
    (folder / "api.key").write_text(f"{KEY}\n")
    assert main(["list", "--data-dir", str(folder)]) == 0


def test_a_refusal_is_a_sentence(
    named: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["create", "--scope", "read", "--expires", "2001-01-01T00:00:00Z"]) == 1
    assert (
        capsys.readouterr().err == "keys: the gateway refused: /expiresAt must lie in the future\n"
    )
    monkeypatch.setenv("GATEWAY_API_KEY", "not-a-key")
    assert main(["list"]) == 1
    assert "not known or was revoked" in capsys.readouterr().err
    monkeypatch.setenv("GATEWAY_API_URL", "http://127.0.0.1:1")
    assert main(["list"]) == 1
    assert "Connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [[], ["create"], ["create", "--scope", "all"], ["revoke"], ["show", "x"]]
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err
