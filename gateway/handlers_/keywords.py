"""The terms a text is about, by where and how often they occur.

The scoring is our own because no library fits. YAKE finds good terms in European languages, but its
licence file holds the Affero GPL where its metadata say LGPL and GPL, it brings a graph library,
costs 20 MB in every worker process and knows no script without spaces; RAKE ports are unkept. So
the usual evidence, in one pass over the words:

- Candidates are runs of words within a sentence that no stop word interrupts, up to three long; in
  Chinese characters, runs of two to six. More than one word must occur twice to count.
- A candidate weighs its number of occurrences, more when it is longer, when it first occurs early,
  and when it is spread over the text rather than heaped up in one place.
- A candidate that nearly always occurs inside a longer one gives way to it.

Stop words are those of stopwords-iso, by language; in a language it lacks, words under four
letters. Of single Chinese characters it stops many that long words are made of, so there a few
particles do instead.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import regex
import stopwordsiso

_DENSE = r"\p{Han}\p{Hiragana}"
# A word: letters, digits and their marks, joined by apostrophes or hyphens; of Chinese characters
# and Hiragana, each one. Anything else but blanks ends the phrase.
TOKEN = regex.compile(
    rf"(?V1)(?P<dense>[{_DENSE}])"
    rf"|(?P<word>[[\p{{L}}\p{{N}}]--[{_DENSE}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_DENSE}]]*"
    rf"(?:['’\-‐‑][[\p{{L}}\p{{N}}]--[{_DENSE}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_DENSE}]]*)*)"
    r"|(?P<stop>[^\s\p{L}\p{N}]|\n\s*\n)"
)
_CONTENT = regex.compile(
    r"(?V1)[\p{Han}--[的了是在和与與及或不也就都而被把对對从從到为為之其这這那有个個一以于於并並等由让讓如]]"
)

_WORDS_PER_TERM = range(1, 4)
_CHARACTERS_PER_TERM = range(2, 7)
_SLICES = 20
_SHORT_WORD = 4
_LONGEST_WORD = 40
_ABSORBED = 0.7
_MAX_CANDIDATES = 2_000

Term = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyword:
    """A term and how well it stands for the text.

    Attributes:
        term: as it is most often written.
        score: above 0, at most 1; the best term of a text has 1.
    """

    term: str
    score: float


@dataclass(slots=True)
class _Candidate:
    count: int = 0
    first: int = 0
    slices: set[int] = field(default_factory=set)
    spellings: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring tokens that a term may be made of.

    Attributes:
        start: position of the first one among all tokens of the text.
        tokens: as written.
        keys: as compared.
        joiner: what stands between them in a term.
    """

    start: int
    tokens: Sequence[str]
    keys: Sequence[str]
    joiner: str

    @property
    def lengths(self) -> range:
        return _WORDS_PER_TERM if self.joiner else _CHARACTERS_PER_TERM


def keywords(text: str, language: str | None, limit: int) -> tuple[Keyword, ...]:
    """Return at most `limit` terms, the best first.

    Args:
        text: any text.
        language: ISO 639-1, None when it is not known.
        limit: how many terms to return.
    """
    runs = _folded(list(_runs(text, _stop_words(language))))
    total = max((run.start + len(run.keys) for run in runs), default=1)
    found = _count(runs, total)
    weights = {term: _weight(term, seen, total) for term, seen in found.items()}
    ranked = sorted(weights, key=lambda term: (-weights[term], found[term].first))[:_MAX_CANDIDATES]
    chosen = _without_absorbed(ranked, found)[:limit]
    best = weights[chosen[0]] if chosen else 1.0
    return tuple(
        Keyword(
            term=_usual(found[term].spellings),
            score=max(0.001, round(weights[term] / best, 3)),
        )
        for term in chosen
    )


def _usual(spellings: Counter[str]) -> str:
    """Return the most frequent spelling; of equals the shortest, which is the plain form."""
    return min(spellings, key=lambda spelling: (-spellings[spelling], len(spelling), spelling))


@functools.lru_cache(maxsize=8)
def _stop_words(language: str | None) -> frozenset[str] | None:
    if language is None or not stopwordsiso.has_lang(language):
        return None
    return frozenset(word.casefold() for word in stopwordsiso.stopwords(language))


def _runs(text: str, stop_words: frozenset[str] | None) -> Iterator[_Run]:
    """Cut the text into runs of tokens that carry meaning."""
    tokens: list[str] = []
    position = 0
    dense = False
    for match in TOKEN.finditer(text):
        token = match[0]
        is_dense = match.lastgroup == "dense"
        means = match.lastgroup != "stop" and _means(token, is_dense, stop_words)
        if tokens and (not means or is_dense != dense):
            yield _run(position - len(tokens), tokens, dense)
            tokens = []
        position += match.lastgroup != "stop"
        if means:
            tokens.append(token)
            dense = is_dense
    if tokens:
        yield _run(position - len(tokens), tokens, dense)


def _run(start: int, tokens: list[str], dense: bool) -> _Run:
    keys = [token.casefold() for token in tokens]
    return _Run(start, tokens, keys, "" if dense else " ")


def _means(token: str, dense: bool, stop_words: frozenset[str] | None) -> bool:
    if dense:
        return _CONTENT.fullmatch(token) is not None
    if not 1 < len(token) <= _LONGEST_WORD or token[0].isdigit():
        return False
    if stop_words is None:
        return len(token) >= _SHORT_WORD
    key = token.casefold().replace("’", "'")
    return key not in stop_words and key.partition("'")[0] not in stop_words


def _folded(runs: Sequence[_Run]) -> list[_Run]:
    """Compare "rivers" and "river's" as "river" where the text has that word too."""
    known = {key for run in runs for key in run.keys}

    def fold(key: str) -> str:
        stem = next((key.removesuffix(end) for end in ("'s", "’s", "s") if key.endswith(end)), key)
        return stem if stem in known else key

    return [replace(run, keys=[fold(key) for key in run.keys]) for run in runs]


def _count(runs: Sequence[_Run], total: int) -> dict[Term, _Candidate]:
    """Count candidates, shorter ones first: a term is worth counting only if its parts repeat.

    Memory stays in proportion to what repeats, not to all the word pairs of the text.
    """
    found: dict[Term, _Candidate] = {}
    for length in range(1, _CHARACTERS_PER_TERM.stop):
        grown: defaultdict[Term, _Candidate] = defaultdict(_Candidate)
        for run in runs:
            for offset in range(len(run.keys) - length + 1):
                term = tuple(run.keys[offset : offset + length])
                if length in run.lengths and _parts_repeat(term, found):
                    _see(grown[term], run, offset, length, total)
        least = 1 if length == 1 else 2
        found |= {term: seen for term, seen in grown.items() if seen.count >= least}
    return found


def _parts_repeat(term: Term, found: dict[Term, _Candidate]) -> bool:
    if len(term) == 1 or (len(term) == _CHARACTERS_PER_TERM.start and term[:1] not in found):
        return True
    return all(part in found and found[part].count > 1 for part in (term[:-1], term[1:]))


def _see(seen: _Candidate, run: _Run, offset: int, length: int, total: int) -> None:
    position = run.start + offset
    if not seen.count:
        seen.first = position
    seen.count += 1
    seen.slices.add(position * _SLICES // total)
    seen.spellings[run.joiner.join(run.tokens[offset : offset + length])] += 1


def _weight(term: Term, seen: _Candidate, total: int) -> float:
    length = math.sqrt(len(term)) * min(1.0, sum(map(len, term)) / 6 + 0.3)
    early = 1.0 + 0.5 * (1.0 - seen.first / total)
    spread = 1.0 + math.log(len(seen.slices))
    return math.log2(1 + seen.count) * length * early * spread


def _without_absorbed(ranked: Sequence[Term], found: dict[Term, _Candidate]) -> list[Term]:
    """Drop terms that another of the ranked contains wherever they occur."""
    longer: Counter[Term] = Counter()
    for term in ranked:
        for part in _parts(term):
            longer[part] = max(longer[part], found[term].count)
    return [term for term in ranked if longer[term] < _ABSORBED * found[term].count]


def _parts(term: Term) -> Iterator[Term]:
    for length in range(1, len(term)):
        for offset in range(len(term) - length + 1):
            yield term[offset : offset + length]
