"""There is one way out: what could open a connection is imported where the guard is, or meant."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.running import ROOT

# What can open a connection by itself. `socket` is watched too: who has it could dial.
DIALS = (
    *("aiodns", "aiohttp", "httpx", "pycares", "requests", "urllib3", "websockets", "grpc"),
    *("ftplib", "http.client", "imaplib", "poplib", "smtplib", "socket", "telnetlib"),
    *("urllib.request", "xmlrpc"),
)

MEANT = {
    # under the guard
    "delivery/connections.py": "makes every socket, behind the check",
    "delivery/engine.py": "speaks over those connections",
    "delivery/fetch.py": "the same, for handlers",
    "delivery/guard.py": "asks which addresses are the machine's own; sends nothing",
    "delivery/proxy.py": "through the operator's proxy, to a vetted address",
    "delivery/resolver.py": "looks names up, and checks what it finds",
    "delivery/sender.py": "httpx's types",
    "delivery/transport.py": "httpx's types, over those connections",
}
LISTENERS = {
    # what others connect to, or what connects to the operator's own
    "config": "ports that are listened on, the stores that the settings name",
    "gateway/app.py": "listens",
    "gateway/sockets.py": "the same, for WebSockets",
    "gateway/client": "the client: runs elsewhere",
    "gateway/cli": "commands: run by people",
    "gateway/examples": "receivers: run elsewhere",
    "gateway/isolated.py": "a socket pair with the handler's process",
    "gateway/isolation.py": "the same",
    "gateway/zygote.py": "the same",
    "gateway/child.py": "the same",
    "gateway/frames.py": "the same",
}


def _imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case _:
                continue


def _dials(source: Path) -> bool:
    return any(
        name == each or name.startswith(f"{each}.") for name in _imports(source) for each in DIALS
    )


def test_nothing_dials_beside_the_guard() -> None:
    found = {
        str(source.relative_to(ROOT))
        for package in ("config", "delivery", "gateway")
        for source in (ROOT / package).rglob("*.py")
        if _dials(source)
    }
    stray = {
        each
        for each in found - set(MEANT)
        if not any(each == known or each.startswith(f"{known}/") for known in LISTENERS)
    }
    assert stray == set()
    assert set(MEANT) <= found
