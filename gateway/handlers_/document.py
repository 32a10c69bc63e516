"""`document.analyze`: what a document says, how long it is, in which language, and about what."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.handlers import Artifact, FileRef, JobContext, JobModel, job_type
from gateway.handlers_.analysis import Analysis, analyse, detect_language
from gateway.handlers_.extract import Extracted, extract, from_text, read
from gateway.handlers_.report import report_json, report_pdf
from gateway.jobcontext import artifact_uri

ReportFormat = Literal["pdf", "json"]

_MAX_TEXT = 1_000_000


class AnalyzeOptions(JobModel):
    """What to find and what to write.

    Attributes:
        max_keywords: how many terms at most.
        report: the formats of the report; a format named twice is written once.
    """

    max_keywords: Annotated[int, Field(strict=True, ge=1, le=100)] = 10
    report: Annotated[tuple[ReportFormat, ...], Field(min_length=1, max_length=8)] = ("pdf", "json")


class AnalyzeInput(JobModel):
    """Exactly one of an uploaded document and a text.

    Attributes:
        document: a PDF, HTML page or plain text; what it is, its content decides.
        text: the text itself.
        options: what to find and what to write.
    """

    document: FileRef | None = None
    text: Annotated[str, Field(strict=True, min_length=1, max_length=_MAX_TEXT)] | None = None
    options: AnalyzeOptions = AnalyzeOptions()

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.document is None) == (self.text is None):
            raise ValueError("give exactly one of 'document' and 'text'")
        return self


class Term(JobModel):
    """A term the document is about.

    Attributes:
        term: as it is most often written.
        score: above 0, at most 1; the best term has 1.
    """

    term: str
    score: float


class AnalyzeResult(JobModel):
    """The figures and the reports.

    Attributes:
        pages: of a PDF; HTML and plain text count as one.
        words: runs of letters and digits; of Chinese characters and Hiragana, each one.
        characters: Unicode code points of the text.
        language: ISO 639-1, null when it cannot be told.
        keywords: the best first.
        result_url: where the report is: the JSON one if it was asked for.
        artifacts: the reports.
    """

    pages: int
    words: int
    characters: int
    language: str | None
    keywords: tuple[Term, ...]
    result_url: str
    artifacts: tuple[Artifact, ...]


def warm_up() -> None:
    """Load the language model before jobs come, so that their processes share it."""
    detect_language("A few words are enough.")


@job_type(
    "document.analyze",
    timeout=600,
    max_attempts=3,
    isolation="process",
    memory_bytes=1024**3,
    example={
        "text": "The river runs free again. Otters came back to the river in its second spring.",
        "options": {"maxKeywords": 5, "report": ["pdf", "json"]},
    },
)
def analyze(job: JobContext, given: AnalyzeInput) -> AnalyzeResult:
    """Extract a document's text, count and characterise it, and write a report."""
    job.progress(0, "Reading document")
    source = _read(job, given)
    job.progress(25, "Extracting text")
    document = _titled(job, given, _extract(source))
    job.progress(50, "Analysing content")
    analysis = analyse(document.text, max_keywords=given.options.max_keywords)
    job.progress(75, "Writing report")
    reports = _write(document, analysis, given.options)
    job.progress(90, "Storing report")
    artifacts = tuple(job.save(name, data, kind) for name, data, kind in reports)
    job.progress(100, "Done")
    return _result(document, analysis, artifacts)


def _read(job: JobContext, given: AnalyzeInput) -> bytes | str:
    if given.document is None:
        return given.text or ""
    with job.open(given.document) as file:
        return read(file)


def _extract(source: bytes | str) -> Extracted:
    return extract(source) if isinstance(source, bytes) else from_text(source)


def _titled(job: JobContext, given: AnalyzeInput, document: Extracted) -> Extracted:
    """Call a document without a title by the name of its file."""
    if document.title is not None or given.document is None:
        return document
    return replace(document, title=job.file_info(given.document).name)


def _write(
    document: Extracted, analysis: Analysis, options: AnalyzeOptions
) -> list[tuple[str, bytes, str]]:
    """Return name, bytes and content type of each report, the one for programs first."""
    reports: list[tuple[str, bytes, str]] = []
    if "json" in options.report:
        reports.append(("report.json", report_json(document, analysis), "application/json"))
    if "pdf" in options.report:
        reports.append(("report.pdf", report_pdf(document, analysis), "application/pdf"))
    return reports


def _result(
    document: Extracted, analysis: Analysis, artifacts: tuple[Artifact, ...]
) -> AnalyzeResult:
    return AnalyzeResult(
        pages=document.pages,
        words=analysis.words,
        characters=analysis.characters,
        language=analysis.language,
        keywords=tuple(Term(term=one.term, score=one.score) for one in analysis.keywords),
        result_url=artifact_uri(artifacts[0].name),
        artifacts=artifacts,
    )
