"""From the bytes of a document to its text.

What a document is, its content decides: file names and declared types lie.

Every way a document can be unusable is a `JobError` that another attempt would not mend:

document_empty: no bytes, or nothing but white space.
document_no_text: a PDF whose pages hold no text, as a scan does. It fails rather than completing
    with zero words: every figure would be empty, and a scan's owner needs to hear about text
    recognition.
document_damaged: a PDF that cannot be read.
document_encrypted: a PDF that opens only with a password.
document_unsupported: none of PDF, HTML and plain text.
document_too_large: past one of the bounds below.
"""

from __future__ import annotations

import codecs
import re
import threading
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

import charset_normalizer
import pypdfium2
import pypdfium2.raw as pdfium_c

from gateway.handlers import JobError
from gateway.handlers_.markup import page_text, page_title

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_PAGES: Final = 2_000
MAX_CHARACTERS: Final = 2_000_000

# PDFium is not thread-safe, across documents neither: every call into it is made under this lock,
# and every object is closed under it, so that no finaliser calls in from elsewhere.
_pdfium = threading.Lock()

_SNIFFED = 1445  # bytes looked at to tell a type: the resource header of MIME Sniffing, section 5.2
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # binary data bytes, ibid. section 3
# Section 7.1 of the same, and XHTML.
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|!--|html|head|script|iframe|h1|div|"
    rb"font|table|a|style|title|b|body|br|p)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_KNOWN_BINARY = (
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"GIF8", "an image"),
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META_CHARSET = re.compile(
    rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE
)
# Codecs that web pages use. Python's others include some that take quadratic time.
_WEB_CHARSET = re.compile(
    r"utf-?8|us-ascii|ascii|latin-?1|iso-8859-\d{1,2}|(?:windows|cp)-?(?:125\d|874)|koi8-[ru]|"
    r"shift_jis|euc-(?:jp|kr)|iso-2022-jp|gb2312|gbk|gb18030|big5|macintosh",
    re.IGNORECASE,
)
_CHARSET_SAMPLE = 64 * 1024

_BROKEN_HYPHEN = re.compile("[\x02\xad\ufffe]\\s*")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")

Kind = Literal["PDF", "HTML", "plain text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """A document's text.

    Attributes:
        kind: what the document is.
        title: as the document itself gives it, if it does.
        pages: of a PDF; HTML and plain text count as one page.
        text: what a reader would read, lines ended by `\\n`; never blank.
    """

    kind: Kind
    title: str | None
    pages: int
    text: str


def read(file: BinaryIO) -> bytes:
    """Return the document's bytes.

    Raises:
        JobError: `document_too_large`.
    """
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise _too_large(f"more than {MAX_BYTES // 1024**2} MiB")
    return data


def extract(data: bytes) -> Extracted:
    """Return the text of a document.

    Raises:
        JobError: it is unusable; the module's docstring lists the codes.
    """
    if not data.strip():
        raise JobError("The document is empty.", code="document_empty")
    if b"%PDF-" in data[:1024]:
        return _from_pdf(data)
    head = data[:_SNIFFED]
    if not _bom(data) and _BINARY.search(head):
        kind = next(
            (name for magic, name in _KNOWN_BINARY if data.startswith(magic)), "binary data"
        )
        raise JobError(
            f"This looks like {kind}. PDF, HTML and plain text can be analysed.",
            code="document_unsupported",
        )
    text = _decode(data)
    if _HTML.match(text[:_SNIFFED].encode("utf-8", "replace")):
        return _from_html(text)
    return from_text(text)


def from_text(text: str) -> Extracted:
    """Return plain text as a document of one page.

    Raises:
        JobError: `document_empty`, `document_too_large`.
    """
    return _checked(kind="plain text", title=None, pages=1, text=text)


def _from_pdf(data: bytes) -> Extracted:
    try:
        title, pages = _read_pdf(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code in {pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY}:
            raise JobError(
                "The PDF is protected by a password. Remove the protection and submit it again.",
                code="document_encrypted",
            ) from error
        raise JobError("The PDF is damaged and cannot be read.", code="document_damaged") from error
    if not any(page.strip() for page in pages):
        raise JobError(
            "The PDF contains no text. If it is a scan, run text recognition (OCR) on it first.",
            code="document_no_text",
        )
    return _checked(kind="PDF", title=title, pages=len(pages), text="\n\n".join(pages))


def _read_pdf(data: bytes) -> tuple[str | None, list[str]]:
    with _pdfium:
        document = pypdfium2.PdfDocument(data)
    try:
        with _pdfium:
            count = len(document)
            title = document.get_metadata_value("Title").strip() or None
        if count > MAX_PAGES:
            raise _too_large(f"more than {MAX_PAGES:,} pages")
        pages: list[str] = []
        length = 0
        for index in range(count):
            with _pdfium:  # page by page, so that a long document does not hold up all others
                pages.append(_read_page(document, index))
            length += len(pages[-1])
            if length > MAX_CHARACTERS:
                raise _too_large(f"more than {MAX_CHARACTERS:,} characters")
        return title, pages
    finally:
        with _pdfium:
            document.close()


def _read_page(document: pypdfium2.PdfDocument, index: int) -> str:
    page = document[index]
    try:
        content = page.get_textpage()
        try:
            return str(content.get_text_bounded())
        finally:
            content.close()
    finally:
        page.close()


def _from_html(page: str) -> Extracted:
    return _checked(kind="HTML", title=page_title(page), pages=1, text=page_text(page))


def _decode(data: bytes) -> str:
    """Decode by byte order mark, UTF-8, what the page says of itself, then by statistics."""
    bom = _bom(data)
    if bom:
        return data.decode(bom, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode(_declared_charset(data) or _guessed_charset(data), "replace")


def _bom(data: bytes) -> str | None:
    return next((name for mark, name in _BOMS if data.startswith(mark)), None)


def _declared_charset(data: bytes) -> str | None:
    found = _META_CHARSET.search(data[:1024])
    name = found[1].decode("ascii") if found else ""
    return name if _WEB_CHARSET.fullmatch(name) else None


def _guessed_charset(data: bytes) -> str:
    best = charset_normalizer.from_bytes(data[:_CHARSET_SAMPLE]).best()
    return best.encoding if best else "windows-1252"


def _checked(*, kind: Kind, title: str | None, pages: int, text: str) -> Extracted:
    """Tidy the text and hold it to what `Extracted` promises."""
    text = _BROKEN_HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = _BLANK_LINES.sub("\n\n", text).strip()
    if not text:
        raise JobError("The document contains no text.", code="document_empty")
    if len(text) > MAX_CHARACTERS:
        raise _too_large(f"more than {MAX_CHARACTERS:,} characters of text")
    return Extracted(kind=kind, title=title, pages=pages, text=text)


def _too_large(what: str) -> JobError:
    return JobError(
        f"The document has {what}, the most that can be analysed.", code="document_too_large"
    )
