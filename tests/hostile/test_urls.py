"""The rows of URLs: refused wherever a client can name one, before any name is looked up."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable

import httpx
import pycares
import pytest

from tests.gateway.jobs import assert_problem

# Every example of the table, and more of each kind, by row.
ROWS: dict[str, dict[str, str]] = {
    "scheme and shape": {
        "ftp": "ftp://h/",
        "ftp, a full name": "ftp://h.example/",
        "file": "file:///etc/passwd",
        "gopher": "gopher://127.0.0.1:6379/_x",
        "no scheme": "//h/",
        "three slashes": "https:///127.0.0.1/",
        "tab in the scheme": "ht\ttps://h/",
        "plain http": "http://h.example/",
        "data": "data:text/plain,x",
        "javascript": "javascript:alert(1)",
        "blob": "blob:https://h.example/x",
        "ws": "wss://h.example/",
        "unix": "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
        "one slash": "https:/h.example/",
        "no slash": "https:h.example/",
        "backslashes": "https:\\\\h.example\\",
        "relative": "h.example/hook",
        "empty": "",
        "white space": " ",
        "leading space": " https://h.example/",
        "two schemes": "https://https://h.example/",
        "jar": "jar:https://h.example/!/x",
    },
    "userinfo": {
        "user and password": "https://u:p@h/",
        "user and password, a full name": "https://u:p@h.example/",
        "name before an address": "https://h@127.0.0.1/",
        "backslash before it": "https://h\\@127.0.0.1/",
        "empty user": "https://@h.example/",
        "encoded at": "https://h.example%40127.0.0.1/",
        "two": "https://a@b@h.example/",
        "colon only": "https://:@h.example/",
    },
    "numeric hosts": {
        "decimal": "https://2130706433/",
        "hexadecimal": "https://0x7f000001/",
        "octal": "https://0177.0.0.1/",
        "two parts": "https://127.1/",
        "mixed": "https://0x7f.1/",
        "trailing dot": "https://127.0.0.1./",
        "hexadecimal parts": "https://0x7f.0x0.0x0.0x1/",
        "zero": "https://0/",
        "overflow": "https://4294967297/",
        "leading zeros": "https://127.000.000.001/",
        "public, in decimal": "https://134744072/",
        "negative": "https://-1/",
    },
    "addresses": {
        "loopback": "https://127.0.0.1/",
        "private": "https://10.0.0.1/",
        "alibaba's metadata": "https://100.100.100.200/",
        "metadata": "https://169.254.169.254/",
        "loopback v6": "https://[::1]/",
        "mapped": "https://[::ffff:7f00:1]/",
        "scoped": "https://[fe80::1%25eth0]/",
        "translated": "https://[64:ff9b::a9fe:a9fe]/",
        "6to4": "https://[2002:7f00:1::]/",
        "aws's metadata v6": "https://[fd00:ec2::254]/",
        "this network": "https://0.0.0.0/",
        "unspecified": "https://[::]/",
        "broadcast": "https://255.255.255.255/",
        "multicast": "https://224.0.0.1/",
        "private, 172": "https://172.31.255.255/",
        "private, 192": "https://192.168.0.1/",
        "shared": "https://100.64.0.1/",
        "ecs's metadata": "https://169.254.170.2/",
        "azure's host": "https://168.63.129.16/",
        "oracle's metadata": "https://192.0.0.192/",
        "documentation": "https://192.0.2.1/",
        "benchmarking": "https://198.18.0.1/",
        "compatible": "https://[::127.0.0.1]/",
        "mapped, public": "https://[::ffff:8.8.8.8]/",
        "nat64, local": "https://[64:ff9b:1::7f00:1]/",
        "teredo": "https://[2001:0:7f00:1::]/",
        "site local": "https://[fec0::1]/",
        "unique local": "https://[fc00::1]/",
        "multicast v6": "https://[ff02::1]/",
        "scope without encoding": "https://[2606:4700::1%eth0]/",
        "gcp's metadata v6": "https://[fd20:ce::254]/",
    },
    "names": {
        "localhost": "https://localhost/",
        "plain": "https://redis/",
        "empty label": "https://a..b/",
        "trailing dot": "https://h.com./",
        "encoded": "https://exa%6dple.com/",
        "fullwidth": "https://\uff45xample.com/",
        "fullwidth, all of it": "https://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/",
        "fullwidth digits": "https://\uff11\uff12\uff17.0.0.1/",
        "circled letters": "https://\u24d4xample.com/",
        "circled letters, all of it": "https://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
        "circled digits": "https://\u2460\u2461\u2466.0.0.1/",
        "label of 64": f"https://{'a' * 64}.example/",
        "url over 2,048": "https://h.example/" + "a" * 2_031,
        "the gateway": "https://gateway.example/",
        "the gateway, another port": "https://GATEWAY.example:8443/",
        "underscore": "https://a_b.example/",
        "hyphen first": "https://-a.example/",
        "ideographic dot": "https://127。0。0。1/",
        "soft hyphen": "https://local\u00adhost.example/",
        "zero width": "https://h\u200b.example/",
        "right to left": "https://\u202eh.example/",
        "long s": "https://ſ.example/",
        "space": "https://h .example/",
        "nul": "https://h.example\x00.evil.example/",
        "a name of 254": "https://" + "a." * 126 + "bb/",
        "leading dot": "https://.example.com/",
        "comma": "https://a,b.example/",
        "kubernetes": "https://kubernetes/",
        "localhost, upper case": "https://LOCALHOST:8443/",
    },
    "ports": {
        "22": "https://h.example:22/",
        "0": "https://h.example:0/",
        "65536": "https://h.example:65536/",
        "80": "https://h.example:80/",
        "6379": "https://h.example:6379/",
        "empty": "https://h.example:/",
        "signed": "https://h.example:-443/",
        "zeros": "https://h.example:00443/",
        "wide digits": "https://h.example:\uff14\uff14\uff13/",
        "wrapped": "https://h.example:65979/",
        "two": "https://h.example:443:22/",
        "4,000 digits": "https://h.example:" + "4" * 4_000 + "/",
    },
    "control characters": {
        "carriage return": "https://h.example/a\rb",
        "line feed": "https://h.example/a\nb",
        "both": "https://h.example/a\r\nHost: evil.example\r\n\r\n",
        "fragment": "https://h.example/#fragment",
        "bad escape": "https://h.example/%zz",
        "cut escape": "https://h.example/%2",
        "nul in the path": "https://h.example/\x00",
        "tab in the path": "https://h.example/a\tb",
        "escape code": "https://h.example/\x1b[31m",
        "delete": "https://h.example/\x7f",
        "line separator": "https://h.example/\u2028",
        "in the host": "https://h\r\n.example/",
        "trailing line feed": "https://h.example/\n",
        "space in the query": "https://h.example/?a b",
        "backslash in the path": "https://h.example/a\\..\\b",
        "c1 control": "https://h.example/\x85",
    },
}
CASES = [
    pytest.param(url, id=f"{row}: {name}") for row, of in ROWS.items() for name, url in of.items()
]

Send = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


async def _job(client: httpx.AsyncClient, **members: object) -> httpx.Response:
    job = {"type": "demo.echo", "input": {"payload": 1}} | members
    return await client.post("/v1/jobs", json=job)


async def _form(client: httpx.AsyncClient, url: str) -> httpx.Response:
    job = {"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": url}
    return await client.post(
        "/v1/jobs", files={"job": ("job.json", json.dumps(job), "application/json")}
    )


SURFACES: dict[str, tuple[Send, str, str]] = {
    "callback": (
        lambda client, url: _job(client, callbackUrl=url),
        "invalid_callback_url",
        "/callbackUrl",
    ),
    "callback in a form": (_form, "invalid_callback_url", "/callbackUrl"),
    "callback of a route": (
        lambda client, url: client.post("/api/documents", json={"text": "a", "callbackUrl": url}),
        "invalid_callback_url",
        "/callbackUrl",
    ),
    "endpoint": (
        lambda client, url: client.post("/v1/endpoints", json={"url": url}),
        "invalid_callback_url",
        "/url",
    ),
    "video": (
        lambda client, url: _job(
            client, type="video.transcode", input={"videoUrl": url, "formats": ["720p"]}
        ),
        "invalid_input",
        "/input/videoUrl",
    ),
    "request": (
        lambda client, url: _job(client, type="http.request", input={"upstream": url}),
        "invalid_input",
        "/input/upstream",
    ),
}


@pytest.fixture(autouse=True)
def no_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail whatever would look up a name."""

    def refuse(*asked: object, **_options: object) -> None:
        raise AssertionError(f"{asked} was looked up")

    for name in ("getaddrinfo", "query", "search", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(pycares.Channel, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.parametrize("url", CASES)
async def test_refused_wherever_a_client_names_a_url(client: httpx.AsyncClient, url: str) -> None:
    for surface, (send, code, pointer) in SURFACES.items():
        answer = await send(client, url)
        assert answer.status_code in {400, 422}, surface
        problem = answer.json()
        assert problem["code"] == code, surface
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer], surface
        assert "127.0.0.1" not in problem["detail"]
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.get("/v1/jobs")).json()["items"] == []
    assert (await client.get("/v1/endpoints")).json()["items"] == []


HOME = "https://mine.example"

Address = Callable[[httpx.AsyncClient, str, str], Awaitable[httpx.Response]]

OF_AN_ENDPOINT: dict[str, tuple[Address, str]] = {
    "sample": (
        lambda client, endpoint, url: client.post(f"{endpoint}/test", json={"url": url}),
        "/url",
    ),
    "challenge": (
        lambda client, endpoint, url: client.post(f"{endpoint}/verify", json={"url": url}),
        "/url",
    ),
    "disabled": (
        lambda client, endpoint, url: client.patch(endpoint, json={"disabledUrls": [HOME, url]}),
        "/disabledUrls/1",
    ),
    "replay": (
        lambda client, _, url: client.post("/v1/replays", json={"all": True, "toUrl": url}),
        "/toUrl",
    ),
}


@pytest.mark.parametrize("url", CASES)
async def test_refused_wherever_an_operator_names_a_url(
    client: httpx.AsyncClient, url: str
) -> None:
    made = (await client.post("/v1/endpoints", json={"url": HOME})).json()
    endpoint = f"/v1/endpoints/{made['id']}"
    before = (await client.get(endpoint)).json()
    for surface, (send, pointer) in OF_AN_ENDPOINT.items():
        answer = await send(client, endpoint, url)
        problem = assert_problem(answer, "invalid_callback_url")
        assert [fault["pointer"] for fault in problem["errors"]] == [pointer], surface
        assert "127.0.0.1" not in problem["detail"]
    assert (await client.get(endpoint)).json() == before
    assert (await client.get("/v1/replays")).json()["items"] == []


async def test_taken_wherever_an_operator_names_a_url(client: httpx.AsyncClient) -> None:
    made = (await client.post("/v1/endpoints", json={"url": HOME})).json()
    for surface, (send, _) in OF_AN_ENDPOINT.items():
        answer = await send(client, f"/v1/endpoints/{made['id']}", f"{HOME}/a%0d%0ab?c=%00")
        assert answer.is_success, (surface, answer.text)


@pytest.mark.parametrize(
    "url",
    [
        "https://xn--fa-hia.de/",
        "https://h.example/a%0d%0ab?c=%00",
        "https://h.example",
        "https://H.Example:8443/a?b=c&d=e",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
    ],
)
async def test_taken_as_it_is_wherever_a_client_names_a_url(
    client: httpx.AsyncClient, url: str
) -> None:
    for surface, (send, _, _) in SURFACES.items():
        answer = await send(client, url)
        assert answer.is_success, (surface, answer.text)


@pytest.mark.parametrize("url", ["\ud800", "https://h.example/\udc00"])
async def test_half_a_surrogate_is_no_json(client: httpx.AsyncClient, url: str) -> None:
    body = json.dumps({"type": "demo.echo", "input": {"payload": 1}, "callbackUrl": url})
    answer = await client.post(
        "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["https://h.example/"]])
async def test_what_is_no_text_is_no_url(client: httpx.AsyncClient, value: object) -> None:
    for surface, (send, _, _) in SURFACES.items():
        answer = await send(client, value)  # type: ignore[arg-type]
        if value is None and surface.startswith("callback"):
            assert answer.status_code == 202  # none is wanted
        else:
            assert answer.status_code == 422, surface
