"""Every refusal has a code, a status, a page, and a body that says what is at fault."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from gateway import problems
from gateway.faults import Fault
from gateway.problempages import page_of
from gateway.problems import PROBLEMS, Problem, render

PAGE = "https://gateway.example/problems/x"
INSTANCE = "https://gateway.example/v1/jobs"


def _rendered(problem: Problem) -> tuple[dict[str, object], dict[str, str]]:
    body, headers = render(problem, page=PAGE, instance=INSTANCE)
    return json.loads(body), headers


def test_members_of_a_problem() -> None:
    faults = [Fault("/input/a~1b", "is required")]
    problem = Problem("invalid_input", "does not fit", faults=faults, members={"jobId": "job_1"})
    body, headers = _rendered(problem)
    assert body == {
        "jobId": "job_1",
        "type": PAGE,
        "title": PROBLEMS["invalid_input"].title,
        "status": 422,
        "detail": "does not fit",
        "instance": INSTANCE,
        "code": "invalid_input",
        "errors": [{"pointer": "/input/a~1b", "detail": "is required"}],
    }
    assert headers == {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}


def test_members_cannot_replace_the_standard_ones() -> None:
    body, _ = _rendered(Problem("not_found", "no", members={"status": 200}))
    assert body["status"] == 404


@pytest.mark.parametrize(
    ("problem", "name", "value"),
    [
        (Problem("unauthorized", "no"), "WWW-Authenticate", "Bearer"),
        (
            Problem("insufficient_scope", "no"),
            "WWW-Authenticate",
            'Bearer error="insufficient_scope"',
        ),
        (Problem("store_full", "no", retry_after=5), "Retry-After", "5"),
        (Problem("method_not_allowed", "no", headers={"Allow": "GET"}), "Allow", "GET"),
    ],
)
def test_headers(problem: Problem, name: str, value: str) -> None:
    assert _rendered(problem)[1][name] == value


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_has_a_page(code: str) -> None:
    page = page_of(code)
    assert page is not None
    assert code in page
    assert str(PROBLEMS[code].status) in page
    assert 400 <= PROBLEMS[code].status <= 599


def test_other_codes_have_none() -> None:
    assert page_of("<script>") is None


def test_every_code_raised_in_the_package_is_in_the_table() -> None:
    used = {
        node.args[0].value
        for path in Path(problems.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Problem"
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(used) > 10
    assert used <= PROBLEMS.keys()
