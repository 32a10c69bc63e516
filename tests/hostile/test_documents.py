"""The row of files, further: documents that want more memory or time than any document may."""

from __future__ import annotations

import hashlib
import sys
import threading
import zlib
from collections.abc import Callable, Iterator

import pytest

from config.clock import SystemClock
from gateway.artifacts import ArtifactStore, input_path
from gateway.isolation import Isolation
from gateway.jobcontext import JobError
from gateway.models import Job, JsonObject, StoredFile
from tests.gateway.isolation.conftest import Reports

JOB_ID = "job_00hostile"
SECONDS = 60


def packed(data: bytes, times: int) -> bytes:
    """Return what unpacks to `data` so often, packed once more."""
    packer = zlib.compressobj(9)
    inner = b"".join([*(packer.compress(data) for _ in range(times)), packer.flush()])
    return zlib.compress(inner, 9)


def pdf(content: bytes, *, filters: str = "", kids: str = "3 0 R") -> bytes:
    """Return a PDF of one page that shows `content`, without a table of its objects."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count 1/Kids[{kids}]>>".encode(),
        (
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R"
            b"/Resources<</Font<</F 5 0 R>>>>>>"
        ),
        f"<</Length {len(content)}{filters}>>stream\n".encode() + content + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    )
    body = b"".join(b"%d 0 obj%b endobj\n" % (at, each) for at, each in enumerate(objects, 1))
    return b"%PDF-1.7\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF\n"


TWICE = "/Filter[/FlateDecode/FlateDecode]"
SHOWN = b"BT /F 1 Tf (" + b"word " * 10_000 + b") Tj ET\n"

# By name: what makes the document, and what its job fails with. Where nothing but the limit of its
# process ends the work, that is said.
DOCUMENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "2 GiB of nothing in a page": (
        lambda: pdf(packed(b" " * 2**20, 2_048), filters=TWICE),
        "memory_limit",
    ),
    "2 GiB of text in a page": (
        lambda: pdf(packed(SHOWN, 40_000), filters=TWICE),
        "memory_limit",
    ),
    "pages that hold themselves": (
        lambda: pdf(b"", kids=" ".join(["2 0 R"] * 1_000)),
        "document_damaged",
    ),
    "brackets without end": (lambda: pdf(b"[" * 5_000_000), "document_no_text"),
    "a document in a document": (lambda: pdf(pdf(b"") * 1_000), "document_no_text"),
    "open dictionaries": (lambda: b"%PDF-1.7\n1 0 obj" + b"<</A" * 2_000_000, "document_damaged"),
    "open arrays": (lambda: b"%PDF-1.7\n1 0 obj" + b"[" * 5_000_000, "document_damaged"),
    "HTML, 5,000,000 open elements": (
        lambda: b"<html>" + b"<div>" * 5_000_000,
        "document_empty",
    ),
    "HTML, one element of 50 MB": (lambda: b"<html><p " + b"a" * 50_000_000, "document_empty"),
    "HTML, entities": (lambda: b"<html><p>" + b"&amp;" * 10_000_000, "document_too_large"),
    "text, one word of 50 MB": (lambda: b"a" * 50_000_000, "document_too_large"),
    "text, many words": (lambda: b"word " * 10_000_000, "document_too_large"),
    "text, a file over the limit": (lambda: b"word " * 14_000_000, "document_too_large"),
    "text, marks upon a letter": (
        lambda: b"a" + "\u0301".encode() * 10_000_000,
        "document_too_large",
    ),
}


@pytest.fixture(scope="module")
def isolation(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Isolation, ArtifactStore]]:
    """Return where handlers run as they do in a worker, and its artifacts."""
    url = tmp_path_factory.mktemp("artifacts").as_uri()
    made = Isolation(
        modules=["gateway.handlers_.document"], profile="production", artifacts_url=url
    )
    yield made, ArtifactStore(url)
    made.close()


def analyze(isolation: tuple[Isolation, ArtifactStore], document: bytes) -> JsonObject:
    """Run `document.analyze` on it."""
    runs, artifacts = isolation
    path = input_path(JOB_ID, 0)
    artifacts.save(path, document, limit=len(document))
    file = StoredFile(
        path=path,
        name="document",
        size=len(document),
        sha256=hashlib.sha256(document).hexdigest(),
        content_type="application/pdf",
    )
    job = Job(
        id=JOB_ID,
        tenant="acme",
        type="document.analyze",
        status="processing",
        rev=1,
        attempt=1,
        max_attempts=3,
        timeout=SECONDS,
        input={"document": {"part": "f"}, "options": {"report": ["json"]}},
        files={"f": file},
    )
    return runs.run(
        job, Reports(), deadline=SystemClock().monotonic() + SECONDS, stop=threading.Event()
    )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound address space")
@pytest.mark.parametrize("case", DOCUMENTS)
def test_files_that_want_everything_end_their_job_and_no_more(
    case: str, isolation: tuple[Isolation, ArtifactStore]
) -> None:
    make, code = DOCUMENTS[case]
    with pytest.raises(JobError) as caught:
        analyze(isolation, make())
    assert (caught.value.code, caught.value.retry) == (code, False)
    assert len(caught.value.message) < 500
    assert analyze(isolation, b"Four words are enough.")["words"] == 4
