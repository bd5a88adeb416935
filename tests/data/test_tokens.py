"""Token counts against OpenAI's cookbook arithmetic and published o200k_base encodings."""

import time

import pytest

from ftbridge.data.examples import parse_example
from ftbridge.data.tokens import _ONE_TOKEN, _slow_counter, count_texts, count_tokens, encoding_for


def _example(*messages, **extra):
    return parse_example({"messages": list(messages), **extra})


def test_a_short_chat_costs_what_the_cookbook_counts():
    # In o200k_base: user 1, assistant 1, hello world 2, and tiktoken is great! 6
    # (the last from the cookbook, examples/How_to_count_tokens_with_tiktoken.ipynb).
    chat = _example({"role": "user", "content": "hello world"}, {"role": "assistant", "content": "tiktoken is great!"})
    assert count_tokens([chat]) == (3 + 1 + 2) + (3 + 1 + 6) + 3
    assert count_tokens([chat, chat]) == 2 * count_tokens([chat])


def test_a_name_costs_its_text_and_one_more():
    plain = _example({"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"})
    named = _example({"role": "user", "content": "hi", "name": "world"}, {"role": "assistant", "content": "ho"})
    assert count_tokens([named]) - count_tokens([plain]) == 1 + 1


def test_tools_tool_calls_and_parts_count():
    completion = {"role": "assistant", "content": "ok"}
    bare = count_tokens([_example(completion)])
    call = {"function": {"name": "find_card", "arguments": '{"id": 1}'}}
    assert (
        count_tokens([_example(completion, tools=[{"type": "function", "function": {"name": "find_card"}}])]) > bare + 5
    )
    assert count_tokens([_example({**completion, "tool_calls": [call]})]) > bare + 5
    assert count_tokens([_example({"role": "assistant", "content": [{"type": "text", "text": "ok"}]})]) == bare


def test_text_that_looks_like_a_special_token_is_counted_as_text():
    text = _example({"role": "assistant", "content": "<|endoftext|>"})
    assert count_tokens([text]) > count_tokens([_example({"role": "assistant", "content": ""})]) + 1


def test_texts_longer_than_the_tokenizer_takes_are_counted():
    words = _example({"role": "assistant", "content": "card " * 300_000})
    assert abs(count_tokens([words]) - 300_000) < 100
    assert count_tokens([_example({"role": "assistant", "content": "日é" * 600_000})]) > 1_000_000


def test_ten_thousand_short_chats_are_counted_in_seconds():
    chats = [
        _example(
            {"role": "system", "content": "Classify the intent of the query."},
            {"role": "user", "content": f"I lost card number {number} yesterday; how do I order a new one, please?"},
            {"role": "assistant", "content": "lost_card"},
        )
        for number in range(10_000)
    ]
    began = time.process_time()
    assert count_tokens(chats) > 300_000
    assert time.process_time() - began < 5


def test_both_counters_agree_on_text_of_many_scripts():
    pytest.importorskip("toktok")
    texts = [
        "",
        "Überweisung\u00a0nötig",
        "カードを失くしました。",
        "🧑‍🚀 e\u0301 \u2028 \ud83d",
        "a" * 5_000,
        " \n\n\t x" * 300,
        "<|endoftext|>",
    ]
    for encoding in ("o200k_base", "cl100k_base"):
        assert _slow_counter(encoding)(texts) == count_texts(texts, encoding)


def test_every_role_is_one_token_in_both_vocabularies():
    for encoding in ("o200k_base", "cl100k_base"):
        assert set(count_texts(sorted(_ONE_TOKEN), encoding)) == {1}


@pytest.mark.parametrize(
    ("model", "encoding"),
    [(None, "o200k_base"), ("gpt-4.1-mini-2025-04-14", "o200k_base"), ("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base"),
     ("gpt-3.5-turbo-0125", "cl100k_base"), ("ft:gpt-3.5-turbo-0125:org::1", "cl100k_base"), ("gpt-4-0613", "cl100k_base")],
)  # fmt: skip
def test_a_model_has_its_vocabulary(model, encoding):
    assert encoding_for(model) == encoding
