"""How what is sent says who sends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config import release
from config.settings import load_settings
from delivery.configure import user_agent
from tests.config.test_settings import PRODUCTION


@pytest.mark.parametrize(
    ("contact", "told"),
    [
        ("ops@example.com", "ops@example.com"),
        ("", "+https://gateway.example.com"),
        ("Acme (Ops)", r"Acme \(Ops\)"),
        ("a\\", "a\\\\"),
    ],
)
def test_it_names_product_release_and_contact(contact: str, told: str) -> None:
    settings = load_settings({**PRODUCTION, "GATEWAY_DELIVERY_CONTACT": contact})
    said = user_agent(settings)
    assert said == f"{release.PRODUCT}/{release.release()} ({told})"
    # RFC 9110, 10.1.5: a product and a comment.
    assert re.fullmatch(r"[\w-]+/[\w.]+ \((?:[^()\\]|\\[()\\])*\)", said)


def test_the_release_is_that_of_the_project() -> None:
    project = Path(__file__).parent.parent.parent / "pyproject.toml"
    assert f'version = "{release.release()}"' in project.read_text()
