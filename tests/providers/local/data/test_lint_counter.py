"""The linter counts with a local model's own tokenizer and chat template."""

import json

import pytest

from ftbridge.data.lint import Options, lint
from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.data.lint_counter import local_counter
from ftbridge.providers.local.data.rendering import Renderer
from ftbridge.providers.local.models.load import load_tokenizer

MODEL = "smollm2-135m-instruct"
CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]}
PICTURE = {
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]},
        {"role": "assistant", "content": "A cat"},
    ]
}
PREFERENCE = {
    "input": {"messages": [{"role": "user", "content": "hi"}]},
    "preferred_output": [{"role": "assistant", "content": "a"}],
    "non_preferred_output": [{"role": "assistant", "content": "one two three four"}],
}


@pytest.fixture(scope="module")
def counter(base_model_dir, tmp_path_factory):
    with local_counter(str(base_model_dir), log=tmp_path_factory.mktemp("log") / "lint.log", max_length=64) as counter:
        yield counter


@pytest.mark.slow
def test_counts_are_those_that_training_sees(counter, base_model_dir):
    from ftbridge.data.examples import parse_example

    rendered = Renderer(load_tokenizer(base_model_dir)).example(parse_example(CHAT))
    [counted] = counter.count([CHAT], "supervised")
    assert (counted.tokens, counted.loss_tokens) == (rendered.n_tokens, rendered.num_loss_tokens)
    assert counted.target == rendered.loss_mask.index(True)
    assert (counter.name, counter.limit) == (str(base_model_dir), 64)


@pytest.mark.slow
def test_a_preference_counts_as_its_longer_side_and_an_item_as_its_prompt(counter):
    [one] = counter.count([PREFERENCE], "dpo")
    [long_side] = counter.count(
        [{"messages": [*PREFERENCE["input"]["messages"], *PREFERENCE["non_preferred_output"]]}], "supervised"
    )
    assert one == long_side
    [item] = counter.count([{"messages": CHAT["messages"][:1], "answer": 4}], "reinforcement")
    assert item.loss_tokens == 0
    assert 0 < item.tokens < one.tokens


@pytest.mark.slow
def test_lines_that_are_no_examples_count_nothing_and_the_next_ones_are_counted(counter):
    lines = [None, 4, [], {}, {"messages": 3}, {"messages": [{"role": "user", "content": "\ud800"}]}, CHAT]
    for method in ("supervised", "dpo", "reinforcement"):
        assert [counted[:3] for counted in counter.count(lines[:-1], method)] == [(0, 0, 0)] * 6
    assert counter.count(lines, "supervised")[-1].tokens > 0


@pytest.mark.slow
def test_the_linter_tells_what_the_model_cuts_and_cannot_read(counter, tmp_path):
    long = {"messages": [{"role": "user", "content": "word " * 100}, CHAT["messages"][1]]}
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in (CHAT, long, PICTURE)))
    [file] = lint(path, Options(target="local", select=("FTB200", "FTB201"), counter=counter)).files
    assert [(one.code, one.line, one.severity) for one in file.findings] == [
        ("FTB200", 2, "warning"),
        ("FTB201", 3, "error"),
    ]
    assert "training on this machine reads text only" in file.findings[1].message
    assert file.token_counts.counted_with == counter.name


@pytest.mark.slow
def test_reasoning_that_the_template_leaves_out_is_told(counter, tmp_path):
    def talk(*replies):
        messages = [{"role": "user", "content": "hi"}]
        for reply in replies:
            messages += [{"role": "assistant", "content": "hello there", **reply}, {"role": "user", "content": "and?"}]
        return {"messages": messages[:-1]}

    lines = [
        talk({"reasoning_content": "They greet me."}),
        talk({"thinking": "They greet me."}, {}),
        talk({}),
        talk({"reasoning": ""}),
        talk({"reasoning": "Not learnt.", "weight": 0}, {}),
        talk({"reasoning_content": "hello there"}),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in lines))
    [file] = lint(path, Options(target="local", select=("FTB205",), counter=counter)).files

    assert [(one.line, one.field, one.severity) for one in file.findings] == [
        (1, "messages[1].reasoning_content", "warning"),
        (2, "messages[1].thinking", "warning"),
    ]
    pair = {**PREFERENCE, "preferred_output": [{"role": "assistant", "content": "a", "reasoning_content": "Not b."}]}
    assert counter.count([pair], "dpo")[0].unwritten == "preferred_output[0].reasoning_content"


@pytest.mark.slow
def test_a_model_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelUnavailable, match="there is no model"), local_counter("nothing", log=tmp_path / "log"):
        pass
