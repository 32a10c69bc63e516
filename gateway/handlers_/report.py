"""The analysis as files: JSON for programs, PDF for people.

The PDF embeds Noto Sans (SIL Open Font License, from the package pymupdf-fonts), which covers the
Latin, Greek and Cyrillic scripts. Others would need a font of their own and, many of them, a
shaping engine: their terms are named as left out, with the place where they stand in full. The JSON
report has every term.

The same analysis gives the same bytes, so that a repeated attempt replaces a report by its equal.
"""

from __future__ import annotations

import functools
import io
import json
import threading
from typing import Final
from xml.sax.saxutils import escape

import pymupdf_fonts
from reportlab.graphics.shapes import Drawing, Rect
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table

from gateway.handlers_.analysis import Analysis
from gateway.handlers_.extract import Extracted
from gateway.handlers_.keywords import Keyword

_TITLE_LENGTH: Final = 160
_ELSEWHERE: Final = "in a script this page cannot show; see the JSON report"

_REGULAR: Final = "Gateway-NotoSans"
_BOLD: Final = "Gateway-NotoSans-Bold"
_INK = HexColor(0x1F2933)
_QUIET = HexColor(0x6B7785)
_ACCENT = HexColor(0x0F766E)
_PALE = HexColor(0xF0F5F4)
_LINE = HexColor(0xD9E2E1)

_MARGIN = 20 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_BAR = 50 * mm
_FRAME_PADDING = 6  # points that reportlab leaves inside the margins
_CELL_PADDING = 2

# reportlab keeps fonts, and the state of the one being subset, in globals of the process.
_drawing = threading.Lock()


def report_json(document: Extracted, analysis: Analysis) -> bytes:
    """Return the report for programs, UTF-8."""
    report = {
        "title": document.title,
        "kind": document.kind,
        "pages": document.pages,
        "words": analysis.words,
        "characters": analysis.characters,
        "language": analysis.language,
        "keywords": [{"term": one.term, "score": one.score} for one in analysis.keywords],
    }
    return json.dumps(report, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"


def report_pdf(document: Extracted, analysis: Analysis) -> bytes:
    """Return the report for people, A4."""
    title = _shown(document.title or "") or f"Untitled {document.kind} document"
    output = io.BytesIO()
    with _drawing:
        _register_fonts()
        SimpleDocTemplate(
            output,
            pagesize=A4,
            leftMargin=_MARGIN - _FRAME_PADDING,
            rightMargin=_MARGIN - _FRAME_PADDING,
            topMargin=24 * mm,
            bottomMargin=22 * mm,
            title=f"Analysis of {title}",
            author="document.analyze",
            invariant=1,
        ).build(
            [
                Paragraph("DOCUMENT ANALYSIS", _style("kicker", 8, _ACCENT, bold=True)),
                Paragraph(escape(title), _style("title", 20, _INK, bold=True)),
                Spacer(1, 7 * mm),
                _figures(document, analysis),
                Spacer(1, 10 * mm),
                Paragraph("What it is about", _style("heading", 12, _INK, bold=True)),
                Spacer(1, 3 * mm),
                _terms(analysis.keywords),
            ],
            onFirstPage=_frame,
            onLaterPages=_frame,
        )
    return output.getvalue()


def _figures(document: Extracted, analysis: Analysis) -> Flowable:
    values = (
        ("Format", document.kind),
        ("Pages", f"{document.pages:,}"),
        ("Words", f"{analysis.words:,}"),
        ("Characters", f"{analysis.characters:,}"),
        ("Language", analysis.language or "not known"),
    )
    figure, label = _style("figure", 13, _INK, bold=True), _style("label", 8, _QUIET)
    cells = [[Paragraph(value, figure), Paragraph(name, label)] for name, value in values]
    return Table(
        [cells],
        colWidths=[_WIDTH / len(values)] * len(values),
        style=[
            ("BACKGROUND", (0, 0), (-1, -1), _PALE),
            ("LINEBEFORE", (1, 0), (-1, -1), 0.6, _LINE),
            ("LEFTPADDING", (0, 0), (-1, -1), 10),
            ("TOPPADDING", (0, 0), (-1, -1), 9),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 9),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ],
    )


def _terms(keywords: tuple[Keyword, ...]) -> Flowable:
    if not keywords:
        return Paragraph("No term stands out.", _style("none", 10, _QUIET))
    plain, quiet = _style("term", 10, _INK), _style("quiet", 8.5, _QUIET)
    head: list[Flowable | str] = [Paragraph(name, quiet) for name in ("", "Term", "Score", "")]
    rows = [head]
    for rank, keyword in enumerate(keywords, start=1):
        shown = _shown(keyword.term)
        term = Paragraph(escape(shown), plain) if shown else Paragraph(_ELSEWHERE, quiet)
        score = Paragraph(f"{keyword.score:.2f}", quiet)
        rows.append([Paragraph(str(rank), quiet), term, score, _bar(keyword.score)])
    return Table(
        rows,
        colWidths=[10 * mm, _WIDTH - 26 * mm - _BAR, 16 * mm, _BAR],
        repeatRows=1,
        style=[
            ("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE),
            ("LEFTPADDING", (0, 0), (-1, -1), _CELL_PADDING),
            ("RIGHTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 4),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ],
    )


def _bar(score: float) -> Drawing:
    whole = _BAR - _CELL_PADDING
    drawing = Drawing(whole, 7)
    for width, colour in ((whole, _PALE), (max(2.0, whole * score), _ACCENT)):
        bar = Rect(0, 0, width, 7, rx=2, ry=2)
        bar.fillColor, bar.strokeColor = colour, None
        drawing.add(bar)
    return drawing


def _frame(canvas: Canvas, _template: object) -> None:
    """Draw what every page has."""
    canvas.setFillColor(_ACCENT)
    canvas.rect(0, A4[1] - 4 * mm, A4[0], 4 * mm, stroke=0, fill=1)
    canvas.setFillColor(_QUIET)
    canvas.setFont(_REGULAR, 8)
    canvas.drawString(_MARGIN, 12 * mm, "document.analyze")
    canvas.drawRightString(A4[0] - _MARGIN, 12 * mm, f"Page {canvas.getPageNumber()}")


def _style(name: str, size: float, colour: Color, *, bold: bool = False) -> ParagraphStyle:
    font = _BOLD if bold else _REGULAR
    return ParagraphStyle(name, fontName=font, fontSize=size, leading=size * 1.35, textColor=colour)


def _shown(text: str) -> str:
    """Return `text` on one line if the font can draw all of it, else nothing."""
    line = " ".join(text.split())[:_TITLE_LENGTH]
    return line if all(ord(character) in _drawable() for character in line) else ""


@functools.cache
def _drawable() -> frozenset[int]:
    return frozenset(TTFont(_REGULAR, io.BytesIO(pymupdf_fonts.myfont("notos"))).face.charToGlyph)


@functools.cache
def _register_fonts() -> None:
    for name, key in ((_REGULAR, "notos"), (_BOLD, "notosbo")):
        pdfmetrics.registerFont(TTFont(name, io.BytesIO(pymupdf_fonts.myfont(key))))
