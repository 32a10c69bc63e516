"""The alerts and the dashboard that operators load: they parse, and name what there is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from config.clock import SystemClock
from config.metrics import make_registry
from config.settings import load_settings
from config.store import Store
from delivery.metrics import DeliveryMetrics, delivery_numbers
from delivery.models import Deliver
from delivery.store import DeliveryStore
from gateway.metrics import JobMetrics, job_numbers
from gateway.vitals import Vitals
from tests.conftest import RunningStores
from tests.delivery.test_store import claim, enqueue, over, wanted
from tests.gateway.conftest import SEALING

CONFIG = Path(__file__).parents[2] / "config"
ALERTS = CONFIG / "prometheus" / "alerts.yml"
SCRAPE = CONFIG / "prometheus" / "prometheus.yml"
DASHBOARD = CONFIG / "grafana" / "gateway.json"

FROM_PROMETHEUS = {"up": {"job", "instance"}}
BY_SCRAPING = {"job", "instance"}
"""Labels that Prometheus adds to what it scrapes."""

NOT_SHOWN = {"gateway_worker_turned_timestamp_seconds", "gateway_worker_draining"}
"""What the worker's own port reads to answer /livez and /readyz."""


def _alerts() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def _queries() -> dict[str, str]:
    """Return every expression, by what it belongs to; Grafana's variables filled in."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in _alerts()}
    for panel in _panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m")
            found[f"panel {panel['title']} {target['refId']}"] = query
    return found


QUERIES = _queries()


@pytest.fixture
async def known(store: Store) -> dict[str, set[str]]:
    """Return the metrics that there are, every one of them used once, with their labels."""
    registry = make_registry(store)
    jobs = JobMetrics(registry)
    jobs.accepted("demo.echo")
    jobs.refused("store_full")
    jobs.answered("GET", 200)
    jobs.attempted("demo.echo", "completed", 1.0)
    jobs.show_workers(lambda: 1.0)
    deliveries = DeliveryStore(store, 1)
    await enqueue(deliveries, "a.example")
    [claimed] = await claim(deliveries, wanted(1))
    attempted = replace(over(claimed, Deliver()), took=1)
    other = CollectorRegistry()
    DeliveryMetrics(other).attempted(claimed, attempted, claimed.born_at)
    Vitals(registry, SystemClock())
    numbers = job_numbers(registry, store, 1, SystemClock(), ["demo.echo"])
    await numbers.refresh()
    await delivery_numbers(other, store, 1, SystemClock()).refresh()
    return {
        sample.name: set(sample.labels)
        for each in (registry, other)
        for family in each.collect()
        for sample in family.samples
    }


def _nodes(query: str) -> Iterator[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(query), found.append)
    yield from found


@pytest.mark.parametrize("name", QUERIES)
def test_every_metric_and_label_that_is_named_exists(name: str, known: dict[str, set[str]]) -> None:
    there = {**FROM_PROMETHEUS, **{each: labels | BY_SCRAPING for each, labels in known.items()}}
    nodes = list(_nodes(QUERIES[name]))
    selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
    assert selectors
    for selector in selectors:
        assert selector.name in there
        assert {matcher.name for matcher in selector.matchers.matchers} <= there[selector.name]
    grouped = {
        label
        for node in nodes
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier
        for label in node.modifier.labels
    }
    assert grouped <= set.union(*(there[str(selector.name)] for selector in selectors))


def test_every_metric_is_on_the_dashboard(known: dict[str, set[str]]) -> None:
    text = " ".join(query for name, query in QUERIES.items() if name.startswith("panel"))
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name) for name in known if name.startswith("gateway_")
    }
    assert {name for name in ours - NOT_SHOWN if name not in text} == set()


def test_labels_are_bounded(known: dict[str, set[str]]) -> None:
    """None takes what a client chooses: no tenant, no URL, no identifier."""
    labels = set.union(*(labels for name, labels in known.items() if name.startswith("gateway_")))
    assert labels == {
        "cause", "code", "kind", "le", "method", "outcome", "place", "priority", "reason", "status",
        "status_class", "type",
    }  # fmt: skip


def test_names_say_their_unit(known: dict[str, set[str]]) -> None:
    ours = {name for name in known if name.startswith("gateway_")}
    assert not [name for name in ours if re.search(r"_(ms|milliseconds|minutes)\b", name)]
    assert {name for name in ours if "_seconds" in name}
    assert {name for name in ours if name.endswith("_total")}


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    rules = _alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["alert"].startswith("Gateway")
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"].endswith(".")
        if "for" in rule:
            assert promql_parser.parse_duration(rule["for"])


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(dashboard)
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    [source] = dashboard["templating"]["list"]
    assert (source["name"], source["type"]) == ("source", "datasource")
    for panel in _panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${source}"


def test_what_is_scraped_are_the_default_admin_ports(stores: RunningStores) -> None:
    settings = load_settings(
        {
            "GATEWAY_PUBLIC_URL": "https://gateway.example",
            "GATEWAY_STORE_URL": stores.durable_url,
            "GATEWAY_BROKER_URL": stores.soft_url,
            "GATEWAY_ARTIFACTS_URL": "s3://bucket",
            "GATEWAY_SEALING_KEYS": SEALING,
        }
    )
    scraped = {
        config["job_name"]: config["static_configs"][0]["targets"]
        for config in yaml.safe_load(SCRAPE.read_text())["scrape_configs"]
    }
    roles = ("api", "relay", "worker", "delivery")
    assert scraped == {
        f"gateway-{role}": [f"{settings.admin.host}:{getattr(settings.admin, f'{role}_port')}"]
        for role in roles
    }
