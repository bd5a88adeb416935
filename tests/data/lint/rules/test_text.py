"""Rules about texts: what they find, what they leave alone, and how fast they pass over a huge text."""

import json
import time

import pytest

from ftbridge.data.lint.rule import Context
from ftbridge.data.lint.rules import RULES
from ftbridge.data.lint.screens import RawLines
from ftbridge.data.targets import TARGETS
from support.rule_findings import chat, codes_of_kind, in_line, in_text

TEXT_RULES = codes_of_kind("text", "FTB")


@pytest.mark.parametrize("code", TEXT_RULES)
def test_a_rule_finds_its_bad_example_with_its_severity_and_leaves_the_good_one(code):
    rule = RULES[code]
    result = in_line(rule.bad.encode(), code)
    assert {(one.code, one.severity) for one in result} == {(code, rule.severity)}
    assert in_line(rule.good.encode(), code) == []


FOUND = [
    ("FTB100", "a <|fim_suffix|> b", "<|fim_suffix|>"),
    ("FTB100", "<|endofprompt|>", "<|endofprompt|>"),
    ("FTB101", "<|start_header_id|>user<|end_header_id|>", "<|start_header_id|>"),
    ("FTB101", "[INST] Capital? [/INST]", "[INST]"),
    ("FTB101", "<<SYS>>\nBe kind.", "<<SYS>>"),
    ("FTB101", "<start_of_turn>user", "<start_of_turn>"),
    ("FTB101", "<s> Hello", "<s>"),
    ("FTB101", "Hello.</s>", "</s>"),
    ("FTB101", "[TOOL_CALLS][]", "[TOOL_CALLS]"),
    ("FTB101", "<｜User｜>Hi", "<｜User｜>"),
    ("FTB102", "low first \ude00\ud83d", "\\ude00"),
    ("FTB102", "pair and half \U0001f600\ud83d", "\\ud83d"),
    ("FTB103", "a\0b", "NUL"),
    ("FTB104", "ding\x07", "U+0007"),
    ("FTB104", "del\x7f", "U+007F"),
    ("FTB104", "old quote \x93", "U+0093"),
    ("FTB105", "Stra\ufffd\ufffde", "U+FFFD"),
    ("FTB106", "itâ€™s", "’"),
    ("FTB106", "â€œquotedâ€\x9d", "“"),
    ("FTB106", "20Â°C", "°"),
    ("FTB106", "Å¾ivot", "ž"),
    ("FTB106", "ðŸ˜€ hello", "😀"),
    ("FTB107", "zero\u200bwidth", "U+200B"),
    ("FTB107", "mark\ufeff inside", "U+FEFF"),
    ("FTB107", "hidden\U000e0068\U000e0069", "U+E0068"),
    ("FTB108", "\u2066isolated\u2069", "U+2066"),
    ("FTB109", "Dear [Your Name],", "[Your Name]"),
    ("FTB109", "Hi {{ user.first_name }}", "{{ user.first_name }}"),
    ("FTB110", "Tom&nbsp;and&#39;s", "&nbsp;"),
]


@pytest.mark.parametrize(("code", "text", "shown"), FOUND, ids=lambda value: str(value)[:12].encode("ascii", "replace"))
def test_a_text_is_told_with_the_piece_that_is_wrong(code, text, shown):
    result = in_text(text, code)
    assert [one.code for one in result] == [code]
    assert shown in result[0].message
    assert result[0].field == "messages[0].content"
    start, end = result[0].span
    assert 0 <= start < end <= len(text)


LEFT_ALONE = [
    "the words endoftext and fim_prefix, and <|other|>",
    "a || b, a <| b |> c in Elm",
    "<s>old price</s> new price",
    "an arrow --> and a shift << 2",
    "emoji 👨‍👩‍👧 with joiners, 🏴󠁧󠁢󠁥󠁮󠁧󠁿 with tags, café, naïve, ÅÄÖ, SÃO PAULO, MÃE, ÂNGELA",
    "می‌خواهم",
    "שלום \u200fעולם",
    "tabs\tand\r\nline breaks\n",
    "Il a dit : «\xa0Bonjour\xa0»",
    "f(x) = {x | x > 0}, {key: value}, ${HOME}, {{1, 2}, {3, 4}}",
    "```jinja\n{{ name }}\n```",
    "{% for x in xs %}{{ x }}{% endfor %}",
    "[1] see [your-api] and [x]",
    "AT&T, R&D, a && b, &copy",
    "<p>Fish &amp; chips</p>",
    "Ŵ, Ÿ, ž, š and ð stand alone",
    "a \\u0000 written out, and \\ud83d too",
]


@pytest.mark.parametrize("text", LEFT_ALONE, ids=lambda text: text[:16].encode("ascii", "replace"))
def test_a_text_that_is_right_is_left_alone(text):
    assert in_text(text, *TEXT_RULES) == []


@pytest.mark.parametrize(
    ("target", "severity"), [("openai", "error"), ("azure", "error"), ("nebius", None), ("local", None)]
)
def test_special_tokens_are_errors_where_they_are_refused_and_template_tokens_elsewhere(target, severity):
    by_name = {one.code: one.severity for one in in_text("<|endoftext|>", "FTB100", "FTB101", target=target)}
    assert by_name == ({"FTB100": severity} if severity else {"FTB101": "warning"})


def test_texts_are_found_in_parts_calls_tools_outputs_and_item_fields():
    part = {"messages": [{"role": "user", "content": [{"type": "text", "text": "<|endoftext|>"}]}]}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "<|endoftext|>"}'}}
    tools = [{"type": "function", "function": {"name": "f", "description": "<|endoftext|>"}}]
    preference = {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "<|endoftext|>"}],
    }
    for document, method, field in [
        (part, "supervised", "messages[0].content[0].text"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [call]}]},
            "supervised",
            "messages[0].tool_calls[0].function.arguments",
        ),
        (chat(tools=tools), "supervised", "tools[0].function.description"),
        (preference, "dpo", "non_preferred_output[0].content"),
        ({"messages": [], "answer": {"text": "<|endoftext|>"}}, "reinforcement", "answer.text"),
    ]:
        assert [one.field for one in in_line(json.dumps(document).encode(), "FTB100", method=method)] == [field]


def test_many_of_a_kind_are_told_once_with_their_number():
    [result] = in_text("a\u200bb\u200bc\u200bd", "FTB107")
    assert result.message.endswith("2 more like it follow.")
    assert result.span == (1, 2)


def test_a_refusal_is_found_in_answers_only():
    message = "I'm sorry, but I can't help with that."
    assert [one.field for one in in_line(json.dumps(chat("q", message)).encode(), "FTB309")] == ["messages[1].content"]
    assert in_line(json.dumps(chat(message, "Why not?")).encode(), "FTB309") == []


@pytest.mark.parametrize(
    "completion",
    ["I’m sorry, but I can’t do that.", "I cannot assist with that request.", "Sorry, I am unable to", "I'm unable to help.",
     "That is hard. As an AI language model, I have no opinion.", "I apologize, but I won't do it."],
)  # fmt: skip
def test_refusals_are_known_in_their_usual_wordings(completion):
    for raw in (json.dumps(chat("q", completion)), json.dumps(chat("q", completion), ensure_ascii=False)):
        assert len(in_line(raw.encode(), "FTB309")) == 1


@pytest.mark.parametrize(
    "completion",
    [
        "I can help!",
        "I cannot recommend this book enough.",
        "Sorry for the delay. It is on its way.",
        "I can nothing find.",
    ],
)
def test_helpful_answers_are_no_refusals(completion):
    assert in_line(json.dumps(chat("q", completion)).encode(), "FTB309") == []


HUGE = {
    "letters": "a" * 1_000_000,
    "digits": "4" * 1_000_000,
    "digits with spaces": "4 4-4." * 170_000,
    "plus signs": "+1 23 " * 170_000,
    "at signs": "a@b." * 250_000,
    "dotted domain": "@" + "a." * 500_000,
    "colons": "://a:b" * 170_000,
    "keys": "-sk-eyJ" * 140_000,
    "pem": "-----BEGIN PRIVATE KEY-----" * 37_000,
    "braces": "{{ a" * 250_000,
    "brackets": "[your " * 170_000,
    "capitals": "DE89 " * 200_000,
    "marks": "<|im_start" * 100_000,
    "mojibake": "Ã" * 500_000,
    "spaces": " " * 1_000_000,
    "sorry": "I'm sorry, " * 90_000,
    "entities": "&am" * 330_000,
    "tags": "<s>" * 330_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_text_of_a_megabyte_takes_no_more_than_three_seconds_by_all_rules(name):
    text = HUGE[name]
    raw = json.dumps(text, ensure_ascii=False).encode()
    started = time.process_time()
    piece = RawLines(raw)
    for code in TEXT_RULES:
        for _ in RULES[code].screen(piece):
            break
        for _ in RULES[code].check(text, Context(TARGETS["local"])):
            pass
    assert time.process_time() - started < 3.0
