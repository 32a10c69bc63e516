"""The text of an HTML page, in time proportional to its length whatever the page.

Pages come from strangers. A parser that builds the tree as the standard demands takes quadratic
time on some (the fastest one needed 86 s for 200,000 nested elements, 2.6 MB, and no other thread
ran meanwhile) and can make a thousand nodes from one tag. Text needs no tree: one pass over the
tags, each of whose patterns ends at the end of the page at the latest, is enough.
"""

from __future__ import annotations

import html
import re

_ATTRIBUTES = r"""(?>=\s*+"[^"]*+(?:"|\Z)|=\s*+'[^']*+(?:'|\Z)|[^>])*+(?:>|\Z)"""
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    # Elements whose content no reader sees, or not here.
    r"|<(?P<hidden>script|style|template|noscript|svg|math|iframe|title)(?=[\s/>]).*?"
    rf"(?:</(?P=hidden)(?=[\s/>]){_ATTRIBUTES}|\Z)"
    rf"|</?(?P<tag>[a-z][^\s/>]*+){_ATTRIBUTES}"
    r"|<[!?/][^>]*+(?:>|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_TITLE = re.compile(rf"<title(?=[\s/>]){_ATTRIBUTES}(.*?)(?:</title|\Z)", re.IGNORECASE | re.DOTALL)
# Elements that do not break a line.
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i"}
    | {"ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub"}
    | {"sup", "time", "tt", "u", "var", "wbr"}
)
_BLANKS = re.compile(r"[ \t\r\f]+")
_AROUND_BREAK = re.compile(r"\s*\n\s*")


def page_title(page: str) -> str | None:
    """Return the page's title on one line, None when it has none."""
    found = _TITLE.search(page)
    return " ".join(html.unescape(found[1]).split()) or None if found else None


def page_text(page: str) -> str:
    """Return what a reader of the page would read, a line for each block."""
    blocks = _MARKUP.sub(_replacement, _BLANKS.sub(" ", page.replace("\n", " ")))
    return html.unescape(_AROUND_BREAK.sub("\n", blocks))


def _replacement(match: re.Match[str]) -> str:
    tag = match["tag"]
    return "\n" if tag is not None and tag.lower() not in _INLINE else ""
