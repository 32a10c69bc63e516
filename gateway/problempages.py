"""The page of each problem, which its `type` leads to."""

from __future__ import annotations

import html

from gateway.problems import PROBLEMS


def page_of(code: str) -> str | None:
    """Return the HTML page that explains `code`; None when there is no such code."""
    kind = PROBLEMS.get(code)
    if kind is None:
        return None
    return _PAGE.format(
        code=html.escape(code),
        status=kind.status,
        title=html.escape(kind.title),
        explanation=html.escape(kind.explanation),
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1.1em/1.6 system-ui, sans-serif; max-width: 36em; margin: 4em auto; padding: 0 1em }}
code {{ background: #8882; padding: .1em .4em; border-radius: .3em }}</style>
<h1>{title}</h1>
<p><code>{code}</code>, answered with HTTP status {status}</p>
<p>{explanation}</p>
</html>
"""
