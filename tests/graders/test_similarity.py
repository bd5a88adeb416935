"""The text_similarity grader: agreement with reference libraries and with formulas written out here, and hand-made cases."""

import math
import random
import subprocess
import sys
from collections import Counter

import pytest

from ftbridge.errors import MissingDependency
from ftbridge.graders import GraderError, check, grade
from ftbridge.graders.similarity import measure, rouge_words
from ftbridge.spec.graders import TextSimilarityGrader

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "rain",
    "fell",
    "softly",
    "over",
    "town",
    "running",
    "runs",
    "runner",
    "quickly",
    "refund",
    "order",
    "#4711",
    "12.50",
    "U.S.",
    "don't",
    "e-mail",
    "Straße",
    "naïve",
    "café",
    "café",
    "Москва",
    "быстро",
    "東京",
    "天気",
    "👍",
    "👩\u200d👩\u200d👧",
    "½",
    "\u200b",
    "ﬁne",
    "İstanbul",
]
BREAKS = [" ", " ", " ", " ", ", ", ". ", "\n", "\t", "  ", "-", "…", '"', "'s "]
LETTERS = "abc XYZ 012 äöü ßſ жЖ 漢字 \U0001f600\u0301\u00a0\x00\u2028.,!?"
ROUGES = ["rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]


def _text(draw, length):
    return "".join(draw.choice(WORDS) + draw.choice(BREAKS) for _ in range(length))


def _changed(draw, text):
    """The text with some of its words lost, doubled, swapped or replaced: pairs that share something."""
    words = text.split(" ")
    for _ in range(draw.randint(0, max(1, len(words) // 2))):
        where = draw.randrange(len(words))
        words[where : where + 1] = draw.choice([[], [draw.choice(WORDS)], [words[where]] * 2, [words[where].upper()]])
        words = words or [""]
    return " ".join(words)


def _pairs():
    draw = random.Random(20260)
    pairs = [
        ("", ""),
        ("", "a"),
        ("a", ""),
        (" ", "\n"),
        ("a", "a"),
        ("...", "..."),
        ("\ud800", "a"),
        ("x" * 9000, "x"),
    ]
    pairs += [(text := _text(draw, draw.randint(0, 40)), _changed(draw, text)) for _ in range(300)]
    pairs += [(_text(draw, draw.randint(0, 12)), _text(draw, draw.randint(0, 12))) for _ in range(120)]
    pairs += [("".join(draw.choices(LETTERS, k=draw.randint(0, 30))), _text(draw, 5)) for _ in range(80)]
    pairs += [(text := _text(draw, 700), _changed(draw, text)) for _ in range(4)]
    return pairs


PAIRS = _pairs()


def _agrees(metric, expected):
    assert len(PAIRS) >= 500
    values = []
    for candidate, reference in PAIRS:
        value = measure(metric, candidate, reference)
        assert 0 <= value <= 1
        assert value == pytest.approx(expected(candidate, reference), abs=1e-6), (candidate[:80], reference[:80])
        values.append(value)
    assert len(set(values)) > 50  # pairs that tell measures apart


def _common(one, other):
    """Length of the longest common subsequence, by bits of long integers (Hyyrö 2004)."""
    at = {}
    for where, element in enumerate(one):
        at[element] = at.get(element, 0) | 1 << where
    everywhere = (1 << len(one)) - 1
    row = everywhere
    for element in other:
        result = row & at.get(element, 0)
        row = ((row + result) | (row - result)) & everywhere
    return len(one) - bin(row).count("1")


def test_fuzzy_match_is_the_indel_ratio_of_characters():
    def ratio(one, other):
        return 2 * _common(one, other) / (len(one) + len(other)) if one or other else 1.0

    _agrees("fuzzy_match", ratio)


def test_fuzzy_match_agrees_with_rapidfuzz():
    from rapidfuzz import fuzz

    _agrees("fuzzy_match", lambda candidate, reference: fuzz.ratio(candidate, reference) / 100)


def _grams(tokens, n):
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def test_bleu_agrees_with_sacrebleu_and_with_its_formula():
    import sacrebleu

    _agrees("bleu", lambda candidate, reference: sacrebleu.sentence_bleu(candidate, [reference]).score / 100)
    tokens = sacrebleu.metrics.bleu._get_tokenizer("13a")()

    def bleu(candidate, reference):
        """Geometric mean of 1- to 4-gram precisions; an order without a match counts 1 / (2^k total), k the how-manyth."""
        created, expected = tokens(candidate.rstrip()).split(), tokens(reference.rstrip()).split()
        logs, none = [], 0
        for n in range(1, 5):
            total = len(created) - n + 1
            if total <= 0:
                break
            right = (_grams(created, n) & _grams(expected, n)).total()
            none += right == 0
            logs.append(math.log(right / total if right else 1 / (2**none * total)))
        if not logs or none == len(logs):
            return 0.0
        return math.exp(sum(logs) / len(logs)) * min(1.0, math.exp(1 - len(expected) / len(created)))

    _agrees("bleu", bleu)


def test_gleu_agrees_with_nltk_and_with_its_formula():
    import sacrebleu
    from nltk.translate.gleu_score import sentence_gleu

    tokens = sacrebleu.metrics.bleu._get_tokenizer("13a")()
    _agrees("gleu", lambda candidate, reference: sentence_gleu([tokens(reference).split()], tokens(candidate).split()))

    def gleu(candidate, reference):
        created, expected = (
            Counter(gram for n in range(1, 5) for gram in _grams(tokens(text).split(), n).elements())
            for text in (candidate, reference)
        )
        most = max(created.total(), expected.total())
        return (created & expected).total() / most if most else 0.0

    _agrees("gleu", gleu)


class NoSynonyms:
    def synsets(self, word):
        return []


def _has_wordnet():
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return False
    return True


def test_meteor_agrees_with_nltk():
    from nltk.corpus import wordnet
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    split, synonyms = NLTKWordTokenizer().tokenize, wordnet if _has_wordnet() else NoSynonyms()
    _agrees("meteor", lambda candidate, reference: meteor_score([split(reference)], split(candidate), wordnet=synonyms))


@pytest.mark.parametrize("metric", ROUGES)
def test_rouge_agrees_with_rouge_score(metric):
    from rouge_score.rouge_scorer import RougeScorer

    kind = metric.replace("rouge_l", "rougeL").replace("_", "")
    scorer = RougeScorer([kind], use_stemmer=False)
    _agrees(metric, lambda candidate, reference: scorer.score(reference, candidate)[kind].fmeasure)


@pytest.mark.parametrize(
    ("metric", "candidate", "reference", "expected"),
    [
        ("fuzzy_match", "this is a test", "this is a test!", 28 / 29),  # RapidFuzz's own documentation
        ("fuzzy_match", "Paris", "paris", 0.8),
        ("rouge_1", "the cat was found under the bed", "the cat was under the bed", 12 / 13),
        ("rouge_2", "the cat was found under the bed", "the cat was under the bed", 8 / 11),
        ("rouge_l", "police kill the gunman", "police killed the gunman", 3 / 4),  # Lin 2004, section 3.1
        ("rouge_l", "the gunman kill police", "police killed the gunman", 2 / 4),
        ("rouge_5", "four words are few", "four words are few", 0.0),
        ("meteor", "the cat sat", "the cat sat", 1 - 0.5 * (1 / 3) ** 3),
        ("meteor", "sat the cat", "the cat sat", 1 - 0.5 * (2 / 3) ** 3),
        ("meteor", "the cats sat", "the cat sat", 1 - 0.5 * (1 / 3) ** 3),  # by stem
        ("meteor", "the cat", "the cat sat", (10 * 1 * (2 / 3) / (2 / 3 + 9 * 1)) * (1 - 0.5 * (1 / 2) ** 3)),
        ("gleu", "the cat sat on the mat", "the cat sat on the mat", 1.0),
        ("gleu", "the cat", "the cat sat", 3 / 6),  # 2 words and 1 pair, of 3 + 2 + 1
        ("bleu", "the cat sat on the mat", "the cat sat on the mat", 1.0),
        # 1-grams 4/5, 2-grams 2/4, 3-grams 1/3, 4-grams 0, which counts 1/(2 * 2)
        ("bleu", "the cat sat on mats", "the cat sat under mats", (4 / 5 * 2 / 4 * 1 / 3 * 1 / 4) ** 0.25),
    ],
)
def test_published_and_hand_made_cases(metric, candidate, reference, expected):
    assert measure(metric, candidate, reference) == pytest.approx(expected, abs=1e-9)


def _grader(metric, **more):
    return TextSimilarityGrader(
        type="text_similarity",
        name="close",
        input="{{sample.output_text}}",
        reference="{{item.reference}}",
        evaluation_metric=metric,
        **more,
    )


def test_an_answer_passes_at_the_threshold():
    item = {"reference": "abcd"}
    for output, passed in (("abcd", True), ("abcx", True), ("xxxx", False)):
        result = grade(_grader("fuzzy_match", pass_threshold=0.75), item, {"output_text": output})
        assert result.passed is passed
    assert grade(_grader("fuzzy_match"), item, {"output_text": "abcd"}).passed is None


def test_rouge_says_when_it_sees_nothing_of_a_text():
    result = grade(_grader("rouge_l"), {"reference": "東京は雨です"}, {"output_text": "東京は雨です"})
    assert result.reward == 0
    assert "sees only a-z and 0-9" in result.errors["other_error"]
    assert grade(_grader("rouge_l"), {"reference": "…"}, {"output_text": "rain"}).errors == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("退款成功 OK!", ["退", "款", "成", "功", "ok"]),
        ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("ありがとう", ["あ", "り", "が", "と", "う"]),
        ("Привет, мир", ["привет", "мир"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("데이터 과학", ["데이터", "과학"]),
        ("Crème STRASSE Straße", ["crème", "strasse", "strasse"]),
        ("ﬁve ５ x_y", ["five", "5", "x", "y"]),
        ("\u0301 …", []),
    ],
)
def test_the_unicode_tokenizer_sees_words_of_every_script(text, words):
    assert rouge_words(text, "unicode") == words


@pytest.mark.parametrize(
    ("metric", "candidate", "reference", "expected"),
    [
        ("rouge_1", "发货 订单 5", "退款 订单 5", 0.6),  # 3 of 5 and 5
        ("rouge_2", "退款成功", "退款失败", 1 / 3),
        ("rouge_l", "東京は雨", "東京は晴れ", 2 * 3 / 9),
        ("rouge_l", "the cat sat", "The cat sat down.", 6 / 7),
    ],
)
def test_rouge_with_the_unicode_tokenizer_counts_what_texts_share(metric, candidate, reference, expected):
    result = grade(_grader(metric, tokenizer="unicode"), {"reference": reference}, {"output_text": candidate})
    assert (result.reward, result.errors) == (pytest.approx(expected), {})


def test_on_ascii_words_both_tokenizers_agree():
    for text in ("the cat's hat", "a1 b2, c3-d4", "Nothing (else) matters!"):
        assert rouge_words(text, "unicode") == rouge_words(text)


def test_meteor_tells_whether_synonyms_were_known():
    result = grade(_grader("meteor"), {"reference": "a big dog"}, {"output_text": "a large dog"})
    assert result.metadata.details == {"synonyms": "WordNet" if _has_wordnet() else "none"}
    assert result.reward == pytest.approx(measure("meteor", "a large dog", "a big dog"))


def test_cosine_is_refused_by_name_before_anything_is_spent():
    with pytest.raises(GraderError, match=r"grader close: cosine needs OpenAI's text-embedding-3-large"):
        check(_grader("cosine"), {"reference": "x"})


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "meteor", "rouge_l"])
def test_a_library_that_is_not_installed_is_named_with_the_command(metric):
    # A process whose site-packages hold pydantic but none of the measures' libraries.
    code = (
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('rapidfuzz', 'sacrebleu', 'nltk'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from ftbridge.graders.similarity import measure\n"
        f"measure({metric!r}, 'a b', 'a b')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert MissingDependency.__name__ in done.stderr
    assert "pip install 'ftbridge[eval]'" in done.stderr


def test_grading_imports_no_library_until_it_is_needed():
    code = "import ftbridge.graders, sys; print([n for n in ('nltk', 'rapidfuzz', 'sacrebleu', 'httpx', 'jsonschema') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
