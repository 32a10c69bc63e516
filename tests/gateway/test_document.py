from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reportlab.lib import pdfencrypt
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from gateway.handlers_ import extract as extraction
from gateway.handlers_.analysis import analyse, count_words, detect_language
from gateway.handlers_.document import analyze
from gateway.handlers_.extract import Extracted, extract
from gateway.handlers_.keywords import keywords
from gateway.handlers_.markup import page_text, page_title
from gateway.jobcontext import JobCancelled, JobError
from gateway.jobtypes import InputInvalid
from gateway.testing import HandlerRun, run_handler

SAMPLE = Path(__file__).parents[2] / "scripts" / "sample" / "river-restoration.pdf"
ENGLISH = "The river runs free again. Otters came back to the river in its second spring. "
REASONS = {
    "document_empty",
    "document_no_text",
    "document_damaged",
    "document_encrypted",
    "document_unsupported",
    "document_too_large",
}
STEPS = [
    (0, "Reading document"),
    (25, "Extracting text"),
    (50, "Analysing content"),
    (75, "Writing report"),
    (90, "Storing report"),
    (100, "Done"),
]


def pdf(*pages: str, title: str | None = None, password: str | None = None) -> bytes:
    output = io.BytesIO()
    encrypt = pdfencrypt.StandardEncryption(password) if password is not None else None
    canvas = Canvas(output, pagesize=A4, encrypt=encrypt)
    if title is not None:
        canvas.setTitle(title)
    for page in pages:
        canvas.rect(100, 100, 200, 200, fill=1)
        canvas.drawString(72, 720, page)
        canvas.showPage()
    canvas.save()
    return output.getvalue()


def analyse_file(data: bytes | Path, **options: Any) -> HandlerRun:
    given: dict[str, Any] = {"document": {"part": "file.bin"}}
    return run_handler(
        analyze, given | ({"options": options} if options else {}), {"file.bin": data}
    )


def test_the_sample_is_analysed_step_by_step() -> None:
    run = analyse_file(SAMPLE)
    assert [(report.percent, report.message) for report in run.progress] == STEPS
    assert run.result["pages"] == 3
    assert 1000 < run.result["words"] < 1300
    assert run.result["language"] == "en"
    assert len(run.result["keywords"]) == 10
    assert {"river", "gravel", "flood"} <= {found["term"] for found in run.result["keywords"]}
    assert run.result["resultUrl"] == "artifact:report.json"
    assert [kept["name"] for kept in run.result["artifacts"]] == ["report.json", "report.pdf"]
    assert [kept["contentType"] for kept in run.result["artifacts"]] == [
        "application/json",
        "application/pdf",
    ]


def test_the_reports_say_what_the_result_says() -> None:
    run = analyse_file(SAMPLE, maxKeywords=3)
    report = json.loads(run.artifacts["report.json"])
    assert report["title"] == "The Alder Runs Free"
    assert report["kind"] == "PDF"
    for member in ("pages", "words", "characters", "language", "keywords"):
        assert report[member] == run.result[member]
    printed = extract(run.artifacts["report.pdf"]).text
    for figure in ("The Alder Runs Free", f"{run.result['words']:,}", "river"):
        assert figure in printed


def test_a_repeated_attempt_writes_the_same_bytes() -> None:
    assert analyse_file(SAMPLE).artifacts == analyse_file(SAMPLE).artifacts


@pytest.mark.parametrize(
    ("formats", "names"),
    [
        (["pdf"], ["report.pdf"]),
        (["json"], ["report.json"]),
        (["pdf", "json", "pdf"], ["report.json", "report.pdf"]),
    ],
)
def test_only_the_reports_asked_for_are_written(formats: list[str], names: list[str]) -> None:
    run = run_handler(analyze, {"text": ENGLISH, "options": {"report": formats}})
    assert list(run.artifacts) == names
    assert run.result["resultUrl"] == f"artifact:{names[0]}"


def test_text_needs_no_file() -> None:
    run = run_handler(analyze, {"text": ENGLISH})
    assert (run.result["pages"], run.result["words"]) == (1, 15)
    assert run.result["characters"] == len(ENGLISH.strip())


def test_a_cancel_stops_between_steps() -> None:
    with pytest.raises(JobCancelled):
        run_handler(analyze, {"text": ENGLISH}, cancel_at=75)


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({}, ""),
        ({"text": "a", "document": {"part": "p"}}, ""),
        ({"text": ""}, "/text"),
        ({"text": "x" * 1_000_001}, "/text"),
        ({"text": "a", "options": {"maxKeywords": 0}}, "/options/maxKeywords"),
        ({"text": "a", "options": {"maxKeywords": 101}}, "/options/maxKeywords"),
        ({"text": "a", "options": {"maxKeywords": "5"}}, "/options/maxKeywords"),
        ({"text": "a", "options": {"report": []}}, "/options/report"),
        ({"text": "a", "options": {"report": ["docx"]}}, "/options/report/0"),
        ({"text": "a", "options": {"colour": "red"}}, "/options/colour"),
        ({"document": {"part": ""}}, "/document/part"),
        ({"document": {"url": "https://h/"}}, "/document/url"),
    ],
)
def test_unfit_input_is_told_by_member(given: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InputInvalid) as caught:
        analyze.parse_input(given)
    assert pointer in [fault.pointer for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("data", "kind", "title", "text"),
    [
        (pdf("Plain words"), "PDF", "untitled", "Plain words"),
        (pdf("One", "Two", title="Mine"), "PDF", "Mine", "One\n\nTwo"),
        (pdf("Open to read", password=""), "PDF", "untitled", "Open to read"),
        (b"junk before\n" + pdf("Shifted"), "PDF", "untitled", "Shifted"),
        (b"Plain words\r\n", "plain text", None, "Plain words"),
        (b"a < b and b > c", "plain text", None, "a < b and b > c"),
        ("Grüße aus Köln".encode(), "plain text", None, "Grüße aus Köln"),
        ("\ufeffGrüße".encode(), "plain text", None, "Grüße"),
        ("Grüße".encode("utf-16"), "plain text", None, "Grüße"),
        (
            "Die Straßen sind naß, Grüße aus München und schöne Träume.".encode("latin-1"),
            "plain text",
            None,
            "Die Straßen sind naß, Grüße aus München und schöne Träume.",
        ),
        (b"<!DOCTYPE html><title>A &amp; B</title><p>Hi", "HTML", "A & B", "Hi"),
        (b"\n<!-- x --><html lang=en><body>Hi</body></html>", "HTML", None, "Hi"),
        (b"<?xml version='1.0'?><html><body>Hi</body></html>", "HTML", None, "Hi"),
        (
            "<html><meta charset='shift_jis'><body>川は流れる</body>".encode("shift_jis"),
            "HTML",
            None,
            "川は流れる",
        ),
    ],
)
def test_content_decides_what_a_document_is(
    data: bytes, kind: str, title: str | None, text: str
) -> None:
    found = extract(data)
    assert (found.kind, found.title, found.text) == (kind, title, text)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "document_empty"),
        (b" \n\t ", "document_empty"),
        ("\ufeff \u2003".encode(), "document_empty"),
        (b"<html><body><script>var text;</script></body></html>", "document_empty"),
        (pdf("", ""), "document_no_text"),
        (pdf("Words and more words")[:400], "document_damaged"),
        (b"%PDF-1.7\n" + b"nonsense " * 99, "document_damaged"),
        (pdf("Secret", password="open sesame"), "document_encrypted"),
        (b"PK\x03\x04\x14\x00\x06\x00", "document_unsupported"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "document_unsupported"),
        (bytes(range(256)), "document_unsupported"),
        (b"word " * 500_000, "document_too_large"),
        (pdf(*["page"] * (extraction.MAX_PAGES + 1)), "document_too_large"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_an_unusable_document_fails_for_good_with_a_reason(data: bytes, code: str) -> None:
    with pytest.raises(JobError) as caught:
        analyse_file(data)
    assert caught.value.code == code
    assert not caught.value.retry
    assert caught.value.message.endswith(".")


def test_a_file_past_the_limit_is_not_read_to_its_end() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert 0 < size <= extraction.MAX_BYTES + 1
            self.taken += size
            return b"x" * size

    source = Endless()
    with pytest.raises(JobError) as caught:
        extraction.read(source)  # type: ignore[arg-type]  # all that is read of a BinaryIO
    assert caught.value.code == "document_too_large"
    assert source.taken == extraction.MAX_BYTES + 1


@settings(deadline=None)  # the first example loads the language model
@given(
    st.one_of(
        st.binary(max_size=2000),
        st.binary(max_size=500).map(lambda tail: b"%PDF-1.4\n" + tail),
        st.text(max_size=500).map(lambda text: f"<html>{text}".encode()),
        st.text(max_size=500).map(lambda text: text.encode("utf-16")),
    )
)
def test_whatever_the_bytes_a_job_completes_or_fails_with_a_reason(data: bytes) -> None:
    reason, run = None, None
    try:
        run = analyse_file(data)
    except JobError as error:
        reason = error.code
    assert (run is not None and run.progress[-1].percent == 100) or reason in REASONS


@settings(deadline=None)
@given(st.data())
def test_a_damaged_pdf_completes_or_fails_with_a_reason(data: st.DataObject) -> None:
    whole = SAMPLE.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=200))
    reason, found = None, None
    try:
        found = extract(whole[:start] + damage + whole[start + len(damage) :])
    except JobError as error:
        reason = error.code
    assert (found is not None and found.text) or reason in REASONS


def test_documents_may_be_read_from_many_threads() -> None:
    whole = SAMPLE.read_bytes()
    broken = whole[: len(whole) // 2]

    def read_both(_: int) -> Extracted:
        with pytest.raises(JobError):
            extract(broken)
        return extract(whole)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_both, range(40)))
    assert found == [extract(whole)] * 40


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>one</p><p>two</p>three", "one\ntwo\nthree"),
        ("wo<b>r</b>d<br>next <i>line</i>", "word\nnext line"),
        ("<ul><li>a<li>b</ul>", "a\nb"),
        ("<script>if (a < b) {}</script>x<style>p{}</style >y", "xy"),
        ("<SCRIPT src=x></SCRIPT>x", "x"),
        ("<a title='x > y'>link</a>", "link"),
        ("<a href=it's>link</a> it's", "link it's"),
        ("a &lt;b&gt; &amp; &#x41;", "a <b> & A"),
        ("x<!-- <p>no -->y", "xy"),
        ("x<!-- never closed", "x"),
        ("x<script>never closed", "x"),
        ("x<p never closed", "x"),
        ("many   \n  blanks", "many blanks"),
        ("<scripture>psalm</scripture>", "psalm"),
    ],
)
def test_the_text_of_a_page(page: str, text: str) -> None:
    assert page_text(page).strip() == text


def test_the_title_of_a_page() -> None:
    assert page_title("<head><TITLE lang=en>\n A &amp;\n B </TITLE>") == "A & B"
    assert page_title("<title></title>") is None
    assert page_title("<titles>x</titles>") is None


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 200_000 + "x",
        "<a " + " ".join(f"a{index}=1" for index in range(100_000)) + ">x",
        "<script " * 200_000,
        "<script></scrip" * 100_000,
        "<!--" * 200_000,
        '<a ="' * 200_000,
        "<a =\n" * 200_000,
        "<" * 500_000,
        "<title>" * 200_000,
        "&#" * 500_000,
    ],
    ids=lambda page: page[:12],
)
@pytest.mark.timeout(30)
def test_no_page_takes_more_than_linear_time(page: str) -> None:
    page_text(page)
    page_title(page)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("one", 1),
        ("  two\n words ", 2),
        ("it's a well-known fact", 4),
        ("3.5 metres", 3),
        ("— … !", 0),
        ("नमस्ते दुनिया", 2),
        ("人工智能", 4),
        ("コンピューター", 1),
        ("Русский язык", 2),
    ],
)
def test_words_are_counted(text: str, words: int) -> None:
    assert count_words(text) == words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "en"),
        ("Der Fluss fließt wieder frei durch das Tal und die Wiesen.", "de"),
        ("La rivière coule de nouveau librement dans la vallée.", "fr"),
        ("Река снова свободно течёт через долину и луга.", "ru"),
        ("川は再び谷を自由に流れ、草原を潤しています。", "ja"),
        ("河流再次自由地流过山谷,滋润着草地。", "zh"),
        ("hi", None),
        ("12345 67890 12345 67890", None),
        ("", None),
    ],
)
def test_languages_are_told_where_there_is_enough_text(text: str, language: str | None) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize(
    ("text", "language", "best"),
    [
        (ENGLISH, "en", "river"),
        ("Rivers flow. A river's bed. The river. Stones lie still.", "en", "river"),
        ("The lunar module landed. A lunar module flies. One lunar module.", "en", "lunar module"),
        ("Der Fluss steigt. Am Fluss sitzt ein Otter.", "de", "Fluss"),
        ("人工智能研究很多。人工智能有用。人工智能在发展。", "zh", "人工智能"),
        ("zorp blim zorp klat of an zorp", None, "zorp"),
    ],
)
def test_the_best_term_is_what_the_text_is_about(
    text: str, language: str | None, best: str
) -> None:
    found = keywords(text, language, 5)
    assert found[0].term == best
    assert found[0].score == 1.0


@settings(deadline=None)
@given(st.text(max_size=400), st.sampled_from(["en", "zh", "tlh", None]), st.integers(1, 20))
def test_terms_are_few_distinct_and_in_order(text: str, language: str | None, limit: int) -> None:
    found = keywords(text, language, limit)
    assert len(found) <= limit
    assert len({one.term for one in found}) == len(found)
    assert all(0 < one.score <= 1 for one in found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_terms_the_report_cannot_print_are_said_to_be_missing_there() -> None:
    run = run_handler(analyze, {"text": "人工智能研究。人工智能。Реки & <b>луга</b>. " * 3})
    printed = extract(run.artifacts["report.pdf"]).text
    assert "see the JSON report" in printed
    assert "Реки" in printed
    terms = [one["term"] for one in json.loads(run.artifacts["report.json"])["keywords"]]
    assert "人工智能" in terms


def test_a_text_without_terms_is_analysed_too() -> None:
    run = run_handler(analyze, {"text": "1 2 3 ... !"})
    assert run.result["keywords"] == []
    assert run.result["words"] == 3
    assert "No term stands out" in extract(run.artifacts["report.pdf"]).text


def test_the_longest_text_is_analysed_whole() -> None:
    words = " ".join(f"w{index % 70_001}x" for index in range(250_000))
    found = analyse(words[: extraction.MAX_CHARACTERS], max_keywords=5)
    assert found.words > 200_000
    assert len(found.keywords) == 5
