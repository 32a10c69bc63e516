"""The figures of the performance page, measured: `./scripts/bench`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from config.embedded import EmbeddedError
from config.variables import allow_open_files
from tests.bench.bench import Bench, Measure
from tests.bench.gateway import p3, p4, p5
from tests.bench.isolation import p7, p9
from tests.bench.listing import j1
from tests.bench.memory import m1, m2, m3
from tests.bench.pending import p6
from tests.bench.replaying import p8
from tests.bench.report import Figure, Progress, as_json, table
from tests.bench.surroundings import BenchError, surroundings
from tests.bench.throughput import p1, p2

_FILES = 8_192

SUITES: dict[str, dict[str, Measure]] = {
    "delivery": {"P1": p1, "P2": p2, "P3": p3, "P6": p6, "P7": p7, "P8": p8, "P9": p9},
    "api": {"P4": p4, "P5": p5, "J1": j1},
    "memory": {"M1": m1, "M2": m2, "M3": m3},
}


def main(argv: Sequence[str]) -> int:
    """Run and return the exit code: 0 measured, 1 something could not be, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures what the gateway promises of its speed, on loopback, with stores and "
        "processes of its own. Figures that are ratios are measured in turns.",
    )
    parser.add_argument("suite", choices=sorted(SUITES), help="which figures")
    parser.add_argument("--only", metavar="P1,P7", help="these of them")
    parser.add_argument("--quick", action="store_true", help="try all in seconds; says little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it there as well")
    given = parser.parse_args(argv)
    measures = SUITES[given.suite]
    chosen = given.only.upper().split(",") if given.only else list(measures)
    if unknown := sorted(set(chosen) - set(measures)):
        parser.error(f"{given.suite} has no figure {', '.join(unknown)}: {', '.join(measures)}")
    allow_open_files(_FILES)
    progress = Progress()
    try:
        figures = uvloop.run(_measure([measures[name] for name in chosen], progress, given.quick))
    except (BenchError, EmbeddedError) as error:
        progress.clear()
        sys.stderr.write(f"bench: {error}\n")
        return 1
    except KeyboardInterrupt:
        progress.clear()
        return 130
    if given.json:
        given.json.write_text(as_json(figures, quick=given.quick), encoding="utf-8")
    sys.stdout.write(table(figures) + "\n")
    return 0


async def _measure(measures: Sequence[Measure], progress: Progress, quick: bool) -> list[Figure]:
    figures = []
    for measure in measures:
        async with surroundings() as around:
            bench = Bench(around=around, progress=progress, quick=quick)
            figures.append(await measure(bench))
            progress.clear()
        await asyncio.sleep(0)
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
