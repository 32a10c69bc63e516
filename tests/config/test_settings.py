"""The layers, their precedence, and every reason not to start."""

import base64
import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.layers import DEFAULTS
from config.settings import (
    VARIABLES,
    SettingsError,
    current_settings,
    draft_settings,
    load_settings,
)

SEALING_KEY = "k1:" + base64.b64encode(bytes(range(32))).decode()
PRODUCTION = {
    "GATEWAY_PUBLIC_URL": "https://gateway.example.com",
    "GATEWAY_STORE_URL": "rediss://store.example.com",
    "GATEWAY_BROKER_URL": "redis://broker.example.com",
    "GATEWAY_ARTIFACTS_URL": "s3://bucket/prefix",
    "GATEWAY_SEALING_KEYS": SEALING_KEY,
}
DEVELOPMENT = {
    **PRODUCTION,
    "GATEWAY_PROFILE": "development",
    "GATEWAY_PUBLIC_URL": "",
    "GATEWAY_ARTIFACTS_URL": "file:///srv/artifacts",
}


def problems_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return caught.value.problems


def test_production_is_the_default_and_shut() -> None:
    settings = load_settings(PRODUCTION)
    assert settings.profile == "production"
    assert not settings.is_development
    assert settings.delivery.ports == (443, 8443)
    assert not settings.delivery.allow_http
    assert not settings.delivery.allow_loopback


def test_development_is_open() -> None:
    settings = load_settings(DEVELOPMENT)
    assert settings.is_development
    assert settings.public_url == "http://127.0.0.1:8080"
    assert settings.delivery.ports == ()
    assert settings.delivery.allow_http
    assert settings.delivery.allow_loopback


def test_the_schedule_is_the_contracts() -> None:
    delivery = load_settings(PRODUCTION).delivery
    minute, hour = 60, 3600
    hours = [2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour]
    assert list(delivery.gaps_seconds) == [0, 5, 5 * minute, 30 * minute, *hours]
    assert delivery.max_age_seconds == 96 * hour


def test_settings_are_frozen() -> None:
    settings = load_settings(PRODUCTION)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings.api, "port", 1)  # noqa: B010  mypy refuses the plain assignment


def test_every_setting_is_in_the_defaults_file_and_nothing_else() -> None:
    defaults = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))
    del defaults["profiles"]
    listed: set[tuple[str, ...]] = set()
    for top, value in defaults.items():
        if isinstance(value, dict) and value and top != "routes":
            listed |= {(top, name) for name in value}
        else:
            listed.add((top,))
    assert listed == {variable.path for variable in VARIABLES.values()}


def test_each_layer_covers_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[delivery]\nports = [9443]\nconcurrency = 10\njitter = 0.5\n")
    environ = {**DEVELOPMENT, "GATEWAY_CONFIG": str(file), "GATEWAY_DELIVERY_CONCURRENCY": "11"}
    delivery = load_settings(environ).delivery
    assert delivery.allow_http  # the profile over the defaults
    assert delivery.ports == (9443,)  # the file over the profile
    assert delivery.jitter == 0.5
    assert delivery.concurrency == 11  # the environment over the file


def test_a_file_can_choose_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('profile = "development"\n')
    settings = load_settings({**PRODUCTION, "GATEWAY_CONFIG": str(file)})
    assert settings.is_development
    assert settings.delivery.allow_loopback


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("GATEWAY_API_PORT", "9000", ("api", "port"), 9000),
        ("GATEWAY_API_REQUIRE_IDEMPOTENCY_KEY", "true", ("api", "require_idempotency_key"), True),
        ("GATEWAY_DELIVERY_PORTS", "[443, 9443]", ("delivery", "ports"), (443, 9443)),
        ("GATEWAY_DELIVERY_JITTER", "0.1", ("delivery", "jitter"), 0.1),
        ("GATEWAY_DELIVERY_CONTACT", "12", ("delivery", "contact"), "12"),
        ("GATEWAY_JOBS_MODULES", '["a.b"]', ("jobs", "modules"), ("a.b",)),
        ("GATEWAY_BROKER_NAMESPACE", '"x"', ("broker", "namespace"), '"x"'),
        ("GATEWAY_API_PORT", "", ("api", "port"), 8080),
    ],
)
def test_values_of_the_environment(
    name: str, text: str, path: tuple[str, str], value: object
) -> None:
    settings = load_settings({**PRODUCTION, name: text})
    assert getattr(getattr(settings, path[0]), path[1]) == value


def test_handler_folders_are_separated_as_in_path(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    settings = load_settings({**PRODUCTION, "GATEWAY_HANDLERS_PATH": f"{first}:{second}"})
    assert settings.handlers_path == (first, second)


def test_variables_of_the_process_and_of_others_are_left_alone() -> None:
    environ = {**PRODUCTION, "GATEWAY_PARENT_FD": "7", "GATEWAYS": "x", "PATH": "/bin"}
    assert load_settings(environ) == load_settings(PRODUCTION)


def test_sealing_keys_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(SEALING_KEY + "\n")
    environ = {**PRODUCTION, "GATEWAY_SEALING_KEYS": "", "GATEWAY_SEALING_KEYS_FILE": str(file)}
    assert load_settings(environ).sealing.keys.get_secret_value().strip() == SEALING_KEY


UPSTREAMS = """
[upstreams.reports]
base_url = "http://reports:9000/api/"
headers = { Authorization = "Bearer c2VjcmV0", X-Key = "k" }
methods = ["GET", "POST"]
timeout_seconds = 5

[upstreams.other]
base_url = "https://[fd00::1]:8443"
"""


def test_upstreams_are_tables_by_name(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(UPSTREAMS)
    settings = load_settings({**PRODUCTION, "GATEWAY_CONFIG": str(file)})
    reports, other = settings.upstreams["reports"], settings.upstreams["other"]
    assert reports.base_url == "http://reports:9000/api"
    assert {name: value.get_secret_value() for name, value in reports.headers.items()} == {
        "authorization": "Bearer c2VjcmV0",
        "x-key": "k",
    }
    assert reports.methods == ("GET", "POST")
    assert reports.timeout_seconds == 5
    assert other.base_url == "https://[fd00::1]:8443"
    assert "DELETE" in other.methods
    assert "c2VjcmV0" not in repr(settings)


def test_upstreams_of_the_environment_come_beside_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(UPSTREAMS)
    environ = {
        **PRODUCTION,
        "GATEWAY_CONFIG": str(file),
        "GATEWAY_UPSTREAMS": '{other = {timeout_seconds = 7}, third = {base_url = "https://h"}}',
    }
    upstreams = load_settings(environ).upstreams
    assert sorted(upstreams) == ["other", "reports", "third"]
    assert upstreams["other"].timeout_seconds == 7
    assert upstreams["other"].base_url == "https://[fd00::1]:8443"


@pytest.mark.parametrize(
    "url",
    [
        "", "reports", "ftp://h", "https://", "https://h?q=1", "https://h/#f", "https://u:p@h",
        "https://h/a b", "https://h\\@x", "https://h:0", "https://h:65536", "https://h:", "https://-h",
        "https://h/%zz", "https://h/../x", "https://h/a/%2E%2e", "https://h/.", "https://ｈ/",
        "https://h/\n",
    ],
)  # fmt: skip
def test_an_upstreams_address_has_one_reading(tmp_path: Path, url: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(f"[upstreams.a]\nbase_url = {json.dumps(url)}\n")
    (problem,) = problems_of({**PRODUCTION, "GATEWAY_CONFIG": str(file)})
    assert problem.startswith("upstreams.a.base_url: must ")


def test_the_settings_of_the_process_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    current_settings.cache_clear()
    try:
        first = current_settings()
        assert first == load_settings(PRODUCTION)
        monkeypatch.setenv("GATEWAY_API_PORT", "9000")
        assert current_settings() is first
    finally:
        current_settings.cache_clear()


REFUSED = {
    "upstream's name": (
        {"GATEWAY_UPSTREAMS": '{A = {base_url = "https://h"}}'},
        "upstreams.A.[key]: ",
    ),
    "upstream without address": (
        {"GATEWAY_UPSTREAMS": "{a = {timeout_seconds = 1}}"},
        "upstreams.a.base_url: is missing",
    ),
    "upstream's method": (
        {"GATEWAY_UPSTREAMS": '{a = {base_url = "https://h", methods = ["GET", "TRACE"]}}'},
        "upstreams.a.methods.1: ",
    ),
    "upstream's patience": (
        {"GATEWAY_UPSTREAMS": '{a = {base_url = "https://h", timeout_seconds = 3601}}'},
        "upstreams.a.timeout_seconds: ",
    ),
    "upstream's header": (
        {"GATEWAY_UPSTREAMS": '{a = {base_url = "https://h", headers = {x = "a\\nb"}}}'},
        "upstreams.a.headers.x: must be printable ASCII",
    ),
    "unknown setting of an upstream": (
        {"GATEWAY_UPSTREAMS": '{a = {base_url = "https://h", url = 1}}'},
        "upstreams.a.url: no such setting (from GATEWAY_UPSTREAMS)",
    ),
    "unknown variable": ({"GATEWAY_API_PROT": "1"}, "GATEWAY_API_PROT: no such setting; did you"),
    "not a number": ({"GATEWAY_API_PORT": "http"}, "api.port: "),
    "port": ({"GATEWAY_API_PORT": "65536"}, "api.port: "),
    "infinite": ({"GATEWAY_DELIVERY_JITTER": "inf"}, "delivery.jitter: "),
    "not a number at all": ({"GATEWAY_DELIVERY_JITTER": "nan"}, "delivery.jitter: "),
    "two values in one": ({"GATEWAY_API_PORT": '1\nprofile="development"'}, "api.port: "),
    "no processes": ({"GATEWAY_WORKER_PROCESSES": "0"}, "worker.processes: "),
    "no gaps": ({"GATEWAY_DELIVERY_GAPS_SECONDS": "[]"}, "delivery.gaps_seconds: "),
    "profile": ({"GATEWAY_PROFILE": "staging"}, "profile: "),
    "store scheme": ({"GATEWAY_STORE_URL": "http://h"}, "store.url: must start with redis://"),
    "no Sentinel": (
        {"GATEWAY_STORE_URL": "redis+sentinel:///name"},
        "store.url: must be redis+sentinel://host:port,host:port/name (from GATEWAY_STORE_URL)",
    ),
    "Sentinels of nobody": (
        {"GATEWAY_STORE_URL": "rediss+sentinel://one:26379,two:26379"},
        "store.url: must be rediss+sentinel://host:port,host:port/name",
    ),
    "port of a Sentinel": (
        {"GATEWAY_STORE_URL": "redis+sentinel://one:26379,two:99999/name"},
        "store.url: must have ports from 1 to 65535",
    ),
    "Sentinels of the soft store": (
        {"GATEWAY_BROKER_URL": "redis+sentinel://one:26379/name"},
        "broker.url: must start with redis://",
    ),
    "artifacts scheme": ({"GATEWAY_ARTIFACTS_URL": "/srv"}, "artifacts.url: must start with file"),
    "public url": ({"GATEWAY_PUBLIC_URL": "gateway"}, "public_url: must be an http or https URL"),
    "public url with query": ({"GATEWAY_PUBLIC_URL": "https://h/?a"}, "public_url: must have no"),
    "http in production": ({"GATEWAY_PUBLIC_URL": "http://h"}, "public_url: production takes"),
    "loopback in production": ({"GATEWAY_DELIVERY_ALLOW_LOOPBACK": "true"}, "delivery.allow_loopb"),
    "plain http in production": ({"GATEWAY_DELIVERY_ALLOW_HTTP": "true"}, "delivery.allow_http: "),
    "local artifacts": ({"GATEWAY_ARTIFACTS_URL": "file:///srv"}, "artifacts.url: production ref"),
    "missing": ({"GATEWAY_STORE_URL": ""}, "store.url: must be set (GATEWAY_STORE_URL)"),
    "one server for both": (
        {"GATEWAY_BROKER_URL": PRODUCTION["GATEWAY_STORE_URL"]},
        "broker.url: must be another server",
    ),
    "short lease": (
        {"GATEWAY_DELIVERY_LEASE_SECONDS": "29"},
        "delivery.lease_seconds: must be at least 30",
    ),
    "slow connect": (
        {"GATEWAY_DELIVERY_CONNECT_TIMEOUT_SECONDS": "21"},
        "delivery.connect_timeout_seconds: must not exceed",
    ),
    "no such ack": ({"GATEWAY_STORE_ACK": "disk"}, "store.ack: "),
    "endless wait for a replica": (
        {"GATEWAY_STORE_ACK": "replica", "GATEWAY_STORE_REPLICA_WAIT_SECONDS": "2.6"},
        "store.replica_wait_seconds: must not exceed half",
    ),
    "limits": ({"GATEWAY_DELIVERY_ENDPOINT_LIMIT_INITIAL": "65"}, "delivery.endpoint_limit_initi"),
    "sent again for longer than kept": (
        {"GATEWAY_DELIVERY_REDELIVERY_SECONDS": "259201"},
        "delivery.redelivery_seconds: must not exceed delivery.delivered_retention_seconds",
    ),
    "ringing": ({"GATEWAY_JOBS_RING_AGAIN_SECONDS": "61"}, "jobs.ring_again_seconds: must not"),
    "short key": (
        {"GATEWAY_SEALING_KEYS": "k1:AAAA"},
        "sealing.keys: k1: a key is 32 bytes, not 3",
    ),
    "key without name": (
        {"GATEWAY_SEALING_KEYS": SEALING_KEY[2:]},
        "sealing.keys: an id is 1 to 32",
    ),
    "keys twice": ({"GATEWAY_SEALING_KEYS_FILE": "/x"}, "sealing.keys, sealing.keys_file: set one"),
    "no handlers": (
        {"GATEWAY_HANDLERS_PATH": "/nowhere/at/all"},
        "handlers_path.0: no such folder",
    ),
    "collector's scheme": (
        {"GATEWAY_TRACING_ENDPOINT": "collector:4318"},
        "tracing.endpoint: must be http or https, a host",
    ),
    "collector's query": (
        {"GATEWAY_TRACING_ENDPOINT": "https://collector/?key=1"},
        "tracing.endpoint: must be http or https, a host",
    ),
    "sample ratio": ({"GATEWAY_TRACING_SAMPLE_RATIO": "1.1"}, "tracing.sample_ratio: "),
    "no service name": ({"GATEWAY_TRACING_SERVICE_NAME": "a b"}, "tracing.service_name: "),
    "no file": ({"GATEWAY_CONFIG": "/nowhere/at/all"}, "GATEWAY_CONFIG: cannot read"),
}


@pytest.mark.parametrize(("given_environ", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(given_environ: dict[str, str], problem: str) -> None:
    problems = problems_of({**PRODUCTION, **given_environ})
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"]
)
def test_a_collector_needs_packages(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    environ = {**PRODUCTION, "GATEWAY_TRACING_ENDPOINT": "http://collector:4318/base/"}
    assert load_settings(environ).tracing.endpoint == "http://collector:4318/base"
    monkeypatch.setitem(sys.modules, missing, None)
    [problem] = problems_of(environ)
    assert problem.startswith("tracing.endpoint: traces need packages")
    assert "scripts/setup otel" in problem
    assert load_settings(PRODUCTION).tracing.endpoint == ""


def test_all_problems_are_told_at_once() -> None:
    problems = problems_of(
        {**PRODUCTION, "GATEWAY_API_PORT": "x", "GATEWAY_WORKER_THREADS": "0", "GATEWAY_NO": "1"}
    )
    assert [line.partition(":")[0] for line in problems] == [
        "GATEWAY_NO", "api.port", "worker.threads",
    ]  # fmt: skip


def test_a_problem_names_where_the_value_came_from(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[api]\nprot = 1\n[worker]\nthreads = 0\n")
    problems = problems_of({**PRODUCTION, "GATEWAY_CONFIG": str(file), "GATEWAY_API_PORT": "x"})
    assert f"api.prot: no such setting (from {file})" in problems
    assert any(p.startswith("worker.threads") and p.endswith(f"(from {file})") for p in problems)
    assert any(p.startswith("api.port") and p.endswith("(from GATEWAY_API_PORT)") for p in problems)


def test_secrets_stay_out_of_messages_and_representations() -> None:
    secret = "c2VjcmV0LXRoYXQtbXVzdC1ub3QtYmUtc2hvd24"
    assert secret not in str(problems_of({**PRODUCTION, "GATEWAY_SEALING_KEYS": f"k1:{secret}"}))
    settings = load_settings(
        {
            **PRODUCTION,
            "GATEWAY_BOOTSTRAP_API_KEY": f"gwk_{secret}",
            "GATEWAY_STORE_URL": f"redis://:{secret}@h",
        }
    )
    assert secret not in repr(settings)
    assert SEALING_KEY not in repr(settings)
    assert settings.bootstrap_api_key.get_secret_value() == f"gwk_{secret}"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://one/main",
        "redis+sentinel://:p%40ss@one:26379,10.0.0.2:65535,[::1]:26379/main",
        "rediss+sentinel://user:pass@one.example.com:26379/main?ssl_ca_certs=/etc/ca.pem",
    ],
)
def test_sentinels(url: str) -> None:
    assert load_settings({**PRODUCTION, "GATEWAY_STORE_URL": url}).store.url == url


def test_a_draft_tells_what_is_still_missing() -> None:
    draft = draft_settings({"GATEWAY_STORE_URL": "redis://h", "GATEWAY_PROFILE": "development"})
    assert draft.text("store", "url") == "redis://h"
    assert draft.text("broker", "url") == ""
    assert draft.text("api", "port") == ""
    assert draft.is_given("store", "url")
    assert not draft.is_given("public_url")


@given(st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.text(max_size=40), max_size=5))
def test_any_environment_gives_settings_or_a_settings_error(extra: dict[str, str]) -> None:
    try:
        settings = load_settings({**PRODUCTION, **extra})
    except SettingsError as error:
        told = error.problems
    else:
        told = (settings.profile,)
    assert told
