"""What a text is like: its size, its language and its terms."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import Final

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from gateway.handlers_.keywords import TOKEN, Keyword, keywords

_LEAST_LETTERS: Final = 12
_LEAST_PROBABILITY: Final = 0.5
_SAMPLE: Final = 20_000
_CODE_LENGTH: Final = 2

_loading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The figures of a text.

    Attributes:
        words: runs of letters and digits; of Chinese characters and Hiragana, each one.
        characters: Unicode code points, blanks among them.
        language: ISO 639-1, None when there is too little text to tell or no language fits.
        keywords: the best first.
    """

    words: int
    characters: int
    language: str | None
    keywords: tuple[Keyword, ...]


def analyse(text: str, *, max_keywords: int) -> Analysis:
    """Return the figures of `text`. Takes about a second for a million characters."""
    language = detect_language(text)
    return Analysis(
        words=count_words(text),
        characters=len(text),
        language=language,
        keywords=keywords(text, language, max_keywords),
    )


def count_words(text: str) -> int:
    """Return the number of words, as `Analysis.words` defines them."""
    return sum(match.lastgroup != "stop" for match in TOKEN.finditer(text))


def detect_language(text: str) -> str | None:
    """Return the language of the text's beginning, as `Analysis.language` defines it."""
    sample = text[:_SAMPLE]
    if sum(map(str.isalpha, sample)) < _LEAST_LETTERS:
        return None
    code, probability = _identifier().classify(sample)
    # The model also knows varieties without a two-letter code, and `zxx`: no language at all.
    if probability < _LEAST_PROBABILITY or len(code) != _CODE_LENGTH:
        return None
    return str(code)


def _identifier() -> LanguageIdentifier:
    with _loading:  # half a second and 50 MB, once in a process however many threads ask
        return _load_identifier()


@functools.cache
def _load_identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
