"""OpenAI's `text_similarity` grader: measures of likeness between two texts, each 0 to 1.

OpenAI names the measures and, for fuzzy_match alone, the library; docs/graders.md says which variant of each is used and why.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ftbridge import extras
from ftbridge.graders.result import ErrorName, Outcome
from ftbridge.graders.template import GraderError, render
from ftbridge.spec.graders import TextSimilarityGrader

_LIBRARIES = {
    "fuzzy_match": ("rapidfuzz",),
    "bleu": ("sacrebleu",),
    "gleu": ("nltk", "sacrebleu"),
    "meteor": ("nltk",),
    "rouge_l": ("rapidfuzz",),
}
_ROUGE_WORD = re.compile(r"[a-z0-9]+")
_ROUGE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")


def grade(grader: TextSimilarityGrader, item: Mapping[str, Any], sample: Mapping[str, Any]) -> Outcome:
    """The measure of likeness between input and reference, 0 to 1.

    Rouge sees only a-z and 0-9, as the reference implementation does, unless `tokenizer` is unicode: where most letters of a
    text are others, there is an `other_error`, since the measure then says nothing about the completion.
    """
    metric = grader.evaluation_metric
    completion = render(grader.input, item, sample, grader=grader.name)
    reference = render(grader.reference, item, sample, grader=grader.name)
    reward = measure(metric, completion, reference, grader.tokenizer)
    errors: dict[ErrorName, str] = {}
    if is_partly_blind(grader) and (blind := blind_to(reference) or blind_to(completion)):
        reward, errors["other_error"] = 0.0, f"{metric} {blind}; set tokenizer: unicode"
    details = {"synonyms": "WordNet" if _synonyms() else "none"} if metric == "meteor" else {}
    return Outcome(reward, errors, details)


def check(grader: TextSimilarityGrader) -> None:
    """Raise `GraderError` for cosine, `MissingDependency` when the measure's library is not installed."""
    metric = grader.evaluation_metric
    if metric == "cosine":
        raise GraderError(
            (
                f"grader {grader.name}: cosine needs OpenAI's text-embedding-3-large, which is not available on this "
                "machine."
            ),
            hint="Use fuzzy_match or rouge_l for wording, or a score_model grader for meaning.",
        )
    for library in _LIBRARIES.get(metric, ()):
        extras.require("eval", metric, library)


def measure(metric: str, completion: str, reference: str, tokenizer: str | None = None) -> float:
    """One measure of two texts, 0 to 1; `metric` is one of OpenAI's names beside cosine, `tokenizer` that of rouge."""
    if metric.startswith("rouge_"):
        tokens, expected = (rouge_words(text, tokenizer) for text in (completion, reference))
        return _rouge(metric.removeprefix("rouge_"), tokens, expected)
    return min(1.0, max(0.0, _MEASURES[metric](completion, reference)))


def _fuzzy_match(completion: str, reference: str) -> float:
    """RapidFuzz's ratio: 2 LCS / (characters of both), the normalised insertion-deletion similarity."""
    return float(_load("rapidfuzz.fuzz", "fuzzy_match").ratio(completion, reference)) / 100


def _bleu(completion: str, reference: str) -> float:
    """SacreBLEU's sentence BLEU with its defaults: 13a tokens, up to 4-grams, exponential smoothing, effective order."""
    return float(_sacrebleu().sentence_score(completion, [reference]).score) / 100


def _gleu(completion: str, reference: str) -> float:
    """NLTK's Google BLEU (Wu et al. 2016, section 6): min of precision and recall over 1- to 4-grams of 13a tokens."""
    gleu, tokens = _load("nltk.translate.gleu_score", "gleu"), _tokens_13a()
    return float(gleu.sentence_gleu([tokens(reference).split()], tokens(completion).split()))


def _meteor(completion: str, reference: str) -> float:
    """NLTK's METEOR (alpha 0.9, beta 3, gamma 0.5) on Penn Treebank tokens: exact words, then stems, then synonyms."""
    meteor, split = _load("nltk.translate.meteor_score", "meteor"), _treebank()
    return float(meteor.single_meteor_score(split(reference), split(completion), wordnet=_synonyms() or _NoSynonyms()))


_MEASURES: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": _fuzzy_match,
    "bleu": _bleu,
    "gleu": _gleu,
    "meteor": _meteor,
}


def _rouge(kind: str, completion_words: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of n-grams, or of the longest common subsequence (Lin 2004), as Google's rouge-score computes them."""
    if kind == "l":
        shared = int(_load("rapidfuzz.distance.LCSseq", "rouge_l").similarity(completion_words, reference))
        return _f1(shared, len(completion_words), len(reference))
    ngrams, expected = (_ngrams(words, int(kind)) for words in (completion_words, reference))
    return _f1((ngrams & expected).total(), ngrams.total(), expected.total())


def _f1(shared: int, produced: int, expected: int) -> float:
    return 2 * shared / (produced + expected) if shared else 0.0


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def rouge_words(text: str, tokenizer: str | None = None) -> list[str]:
    """The words that rouge compares, in order.

    None: runs of a-z and 0-9 in the lower-cased text, as Google's rouge-score has them without its stemmer. unicode: runs of
    letters, digits and marks of any script (NFKC, case folded); in scripts that put no spaces between words each character
    with its marks is one, which is how Chinese summaries are scored (Hu et al. 2015, arXiv:1506.05865) and how sacrebleu cuts
    Chinese.
    """
    if tokenizer is None:
        return _ROUGE_WORD.findall(text.lower())
    words: list[str] = []
    before = ""  # what the character before belongs to: a word, a character of its own, or nothing
    for letter in unicodedata.normalize("NFKC", text).casefold():
        kind = unicodedata.category(letter)[0]
        if kind == "M" and before:
            words[-1] += letter
        elif kind not in "LN":
            before = ""
        elif is_unspaced(letter):
            words.append(letter)
            before = "character"
        elif before == "word":
            words[-1] += letter
        else:
            words.append(letter)
            before = "word"
    return words


def is_unspaced(letter: str) -> bool:
    """Whether a character is of a script without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan."""
    code = ord(letter)
    return code >= 0x0E00 and any(low <= code <= high for low, high in _UNSPACED)


_UNSPACED = (
    (0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),
)  # fmt: skip


def is_partly_blind(grader: TextSimilarityGrader) -> bool:
    """Whether the measure sees letters of one script alone."""
    return grader.evaluation_metric.startswith("rouge") and grader.tokenizer is None


def blind_to(text: str) -> str | None:
    """Why rouge says little of a text: fewer than half of its letters and digits are among those it sees."""
    letters = [letter for letter in unicodedata.normalize("NFD", text.lower()) if letter.isalnum()]
    seen = sum(letter in _ROUGE_LETTERS for letter in letters)
    if 2 * seen >= len(letters):
        return None
    return f"sees only a-z and 0-9, which are {seen} of {len(letters)} letters and digits in {text[:40]!r}"


def words_needed(metric: str) -> int:
    """How many words a text must have for the measure to be above 0."""
    if not metric.startswith("rouge_"):
        return 0
    return int(metric[-1]) if metric[-1].isdigit() else 1


def remark(grader: TextSimilarityGrader, references: Sequence[str]) -> str | None:
    """What the measure sees badly in these references, for a reader of the scores; None where it sees them well.

    Rouge without `tokenizer: unicode` where more than one letter in twenty is not among a-z and 0-9; bleu, gleu and meteor,
    whose tokenizers cut at spaces, where most letters are of scripts without any.
    """
    letters = [letter for text in references for letter in text.lower() if letter.isalnum()]
    if not letters:
        return None
    unseen = sum(letter not in _ROUGE_LETTERS for letter in letters) / len(letters)
    if is_partly_blind(grader) and unseen > _MOST_UNSEEN:
        return (
            f"{grader.name}: {grader.evaluation_metric} sees only a-z and 0-9, and {100 * unseen:.0f} % of the letters in the "
            "references are others; tokenizer: unicode sees them."
        )
    unspaced = sum(is_unspaced(letter) for letter in letters) / len(letters)
    if grader.evaluation_metric in ("bleu", "gleu", "meteor") and unspaced > 0.5:
        return (
            f"{grader.name}: {grader.evaluation_metric} cuts words at spaces, and most letters of the references are of "
            "scripts without any, so that a sentence counts as one word; fuzzy_match, or rouge with "
            "tokenizer: unicode, sees more."
        )
    return None


_MOST_UNSEEN = 0.05


class _NoSynonyms:
    """Stands for WordNet where its data is not installed: no word has synonyms."""

    def synsets(self, word: str) -> list[Any]:
        return []


@functools.cache
def _synonyms() -> Any:
    """NLTK's WordNet when its data lies in one of `nltk.data.path`; it is never downloaded here."""
    wordnet = _load("nltk.corpus", "meteor").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


@functools.cache
def _sacrebleu() -> Any:
    return _load("sacrebleu.metrics.bleu", "bleu").BLEU(effective_order=True)


@functools.cache
def _tokens_13a() -> Callable[[str], str]:
    tokens: Callable[[str], str] = _load("sacrebleu.tokenizers.tokenizer_13a", "gleu").Tokenizer13a()
    return tokens


@functools.cache
def _treebank() -> Callable[[str], list[str]]:
    split: Callable[[str], list[str]] = _load("nltk.tokenize", "meteor").NLTKWordTokenizer().tokenize
    return split


def _load(module: str, metric: str) -> Any:
    """A module of the `eval` extra. Raises `MissingDependency`."""
    return extras.load("eval", metric, module)
