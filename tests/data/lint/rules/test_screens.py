"""Screens: they may find too much, and never miss what their rule finds."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.lint.rule import Context
from ftbridge.data.lint.rules import RULES
from ftbridge.data.lint.screens import LONG_RUN, RawLines, characters, digit_runs, drawn, in_long_runs, lone_surrogates
from ftbridge.data.targets import TARGETS
from support.rule_findings import codes_of_kind

TEXT_RULES = [RULES[code] for code in codes_of_kind("text", "FTB")]
BAD = [message["content"] for rule in TEXT_RULES for message in json.loads(rule.bad)["messages"]]
MORE = [
    "\n",
    "\t",
    '"',
    "\\",
    "/",
    "é",
    "’",
    "\U0001f600",
    "\ud83d",
    "\x7f",
    "\x85",
    "a",
    "7",
    "-",
    ".",
    " ",
    "@",
    "{{",
    "I can",
    "not",
]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(BAD), st.sampled_from(MORE)), max_size=5).map("".join))
def test_what_a_rule_finds_in_a_text_its_screen_finds_in_the_texts_json(text):
    forms = [json.dumps(text).encode(), json.dumps(text).replace("/", "\\/").encode()]
    forms.append(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))
    for rule in TEXT_RULES:
        for target in ("openai", "local"):
            if any(True for _ in rule.check(text, Context(TARGETS[target]))):
                # A text with half a character cannot be written as UTF-8: only its escaped forms count.
                for raw in forms[: 2 if any("\ud800" <= c <= "\udfff" for c in text) else 3]:
                    assert any(True for _ in rule.screen(RawLines(raw))), (rule.code, raw)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from(BAD), st.text("0123456789 -+().@:/AZaz_{}[]<|>&", max_size=30))
    )
)
def test_whatever_a_text_says_a_finding_lies_in_it_and_shows_no_secret(pieces):
    text = "".join(pieces)
    for rule in TEXT_RULES:
        for problem in rule.check(text, Context(TARGETS["local"])):
            start, end = problem.span
            assert 0 <= start < end <= len(text)
            assert not (problem.secret and text[start:end] in problem.message)


def test_a_picture_finds_digits_and_capitals_by_their_place():
    piece = RawLines(b"ab 12-34 and XY99 or xy99")
    assert list(drawn(b"00-00")(piece)) == [3]
    assert list(drawn(b"AA00")(piece)) == [13]
    assert list(drawn(b"AA00", confirmed=b"ZZ")(piece)) == []


def test_long_runs_are_words_that_no_language_has():
    word = b"a_B-9" * (LONG_RUN // 5)
    piece = RawLines(b"short words " + word + b" internationalization " + b"- " * 30 + word + b"more")
    assert [piece.raw[start:end] for start, end in piece.long_runs] == [word, b"internationalization", word + b"more"]
    assert list(in_long_runs(b"9m", [b"9more", b"9int"])(piece)) == [piece.raw.rindex(b"9more")]


def test_a_key_is_found_in_the_middle_of_a_very_long_run():
    key = b"_ghp_" + b"aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3gH6"
    raw = b"x" * 100_000 + key + b"-" + b"y" * 100_000
    assert list(RULES["FTB400"].screen(RawLines(raw)))
    assert not list(RULES["FTB400"].screen(RawLines(raw.replace(b"ghp_", b"ghq_"))))


def test_digits_behind_a_decimal_point_and_longer_numbers_are_passed_over():
    screen = digit_runs(15, 16)
    piece = RawLines(b"0.4539148803436467 453914880343646745391488 \\n4539148803436467 \\u4e004539148803436467")
    assert [piece.raw[at : at + 4] for at in screen(piece)] == [b"4539", b"0045"]


def test_characters_are_found_as_utf8_and_as_escapes_in_either_case():
    screen = characters(rb"\xe2\x80\x8b", rb"200b")
    for raw in ("a\u200b".encode(), b"a\\u200b", b"a\\u200B"):
        assert list(screen(RawLines(raw))) == [1]
    assert list(screen(RawLines(b"200b and \\u200c"))) == []


def test_surrogates_are_lone_when_their_other_half_is_not_next_to_them():
    def matches(raw):
        return list(lone_surrogates(RawLines(raw)))

    assert matches(rb"\ud83d\ude00 \uD83D\uDE00") == []
    assert matches(rb"\ud83d \ude00") == [0, 7]
    assert matches(rb"\ude00\ud83d") == [0, 6]
    assert matches(rb"\ud83d\ud83d\ude00") == [0]
    assert matches(rb"\\ud83d\ude00") == [1]
