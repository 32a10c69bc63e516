"""The benchmark runs and says what it is meant to say; never how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import environment
from tests.bench.__main__ import SUITES
from tests.bench.report import Figure, as_json, table
from tests.bench.samples import described, ratios
from tests.bench.throughput import rate_of
from tests.running import ROOT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as `./scripts/bench` does."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.bench", *arguments],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("suite", "name"), [(suite, name) for suite, measures in SUITES.items() for name in measures]
)
def test_every_figure_is_measured(suite: str, name: str, tmp_path: Path) -> None:
    place = tmp_path / "figures.json"
    ran = bench(suite, "--quick", "--only", name, "--json", str(place))
    assert ran.returncode == 0, ran.stderr
    said = json.loads(place.read_text())
    assert said["quick"] is True
    assert {"processors", "processor", "memoryMiB", "system", "python", "versions"} <= set(
        said["machine"]
    )
    [figure] = said["figures"]
    assert set(figure) == {"name", "what", "target", "measured", "ratio", "ok", "details"}
    assert figure["name"] == name
    assert figure["details"]
    header, row = ran.stdout.splitlines()
    assert header.split() == ["figure", "target", "measured", "ratio"]
    assert row.startswith(name)
    assert row.endswith("ok" if figure["ok"] else "NOT MET")


def test_a_figure_that_is_not_there_is_named() -> None:
    ran = bench("api", "--only", "P1,P4")
    assert ran.returncode == 2
    assert "api has no figure P1: P4, P5, J1" in ran.stderr


def test_values_are_described_by_their_quantiles() -> None:
    assert described([float(number) for number in range(1, 1001)]) == {
        "count": 1000, "min": 1, "p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1000,
        "mean": 500.5,
    }  # fmt: skip
    assert described([]) == {"count": 0}
    assert described([7.0])["p99"] == 7.0


def test_a_ratio_is_that_of_the_medians() -> None:
    assert ratios([1.0, 4.0, 100.0], [2.0, 2.0, 50.0]) == 2.0


def test_a_rate_leaves_out_the_beginning_and_the_end() -> None:
    marks = [(count, count / 100) for count in range(50, 1001, 50)]
    slow_start = [(0, -100.0), *marks, (1000, 500.0)]
    assert rate_of(slow_start, 1000) == pytest.approx(100.0)


def test_figures_are_shown_in_columns() -> None:
    figures = [
        Figure(name="P1", what="short", target="1", measured="2", ratio=2.0, ok=True),
        Figure(name="P10", what="much longer", target="100/s", measured="3", ok=False),
    ]
    assert table(figures).splitlines() == [
        "     figure       target  measured  ratio",
        "P1   short        1       2         2.00   ok",
        "P10  much longer  100/s   3                NOT MET",
    ]
    assert json.loads(as_json(figures, quick=False))["figures"][1]["ok"] is False
