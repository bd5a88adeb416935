"""The rules of structure against a table of lines, against their own examples, and against their own repairs."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.rule import METHODS
from ftbridge.data.lint.rules import Context, Rule
from ftbridge.data.targets import TARGETS
from support.rule_cases import CASES, Case
from support.rule_verdicts import STRUCTURE, context_of, findings, judged_document, problems_in, severity, verdict


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}: {case.name}")
def test_a_line_gets_its_verdict_and_the_rule_that_tells_why(case: Case, tmp_path: Path) -> None:
    result = findings(tmp_path, case.line, case.method)

    assert verdict(result) == case.verdict, result
    assert case.code is None or case.code in {finding.code for finding in result}, result


@pytest.mark.parametrize("rule", STRUCTURE, ids=lambda rule: f"{rule.code} {rule.name}")
def test_a_rules_bad_line_is_found_by_it_and_its_good_line_is_not(rule: Rule) -> None:
    context = context_of(rule)
    bad, good = problems_in(rule.bad, context), problems_in(rule.good, context)

    items = [problem for code, problem in bad if code == rule.code]
    assert items
    assert items[0].severity in (None, rule.severity)
    assert rule.code not in {code for code, _ in good}
    errors = [(code, problem) for code, problem in good if severity(code, problem, context) != "info"]
    assert not errors, "a good line is good by every other rule too"


@pytest.mark.parametrize("rule", STRUCTURE, ids=lambda rule: f"{rule.code} {rule.name}")
def test_a_rules_messages_are_sentences_that_say_what_to_do(rule: Rule) -> None:
    for code, problem in problems_in(rule.bad, context_of(rule)):
        if code == rule.code:
            assert problem.message[0].islower()
            assert problem.message.endswith((".", "?"))
            assert len(problem.message) < 160


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method}: {case.name}")
def test_a_repair_makes_its_finding_go_away_and_no_other_appear(case: Case) -> None:
    context = Context(method=case.method)  # type: ignore[arg-type]
    before = problems_in(case.line, context)
    for where, (code, problem) in enumerate(before):
        if problem.repair is None:
            continue
        document = json.loads(case.line)
        mending = judged_document(document, context)[where][1]
        assert mending.repair is not None
        mending.repair.apply()
        after = judged_document(document, context)

        assert [(c, p.field) for c, p in after].count((code, problem.field)) < [(c, p.field) for c, p in before].count(
            (code, problem.field)
        )
        assert {c for c, _ in after} <= {c for c, _ in before}


@pytest.mark.parametrize(
    "rule", [r for r in STRUCTURE if r.fixable and r.code != "FTB028"], ids=lambda rule: f"{rule.code} {rule.name}"
)
def test_a_rule_that_calls_itself_fixable_repairs_its_bad_line(rule: Rule) -> None:
    context = context_of(rule)
    document = json.loads(rule.bad)
    for code, problem in judged_document(document, context):
        if code == rule.code and problem.repair:
            problem.repair.apply()

    assert rule.code not in {code for code, _ in judged_document(document, context)}


def test_only_rules_that_call_themselves_fixable_have_repairs() -> None:
    names = {
        code
        for case in CASES
        for code, problem in problems_in(case.line, Context(method=case.method))
        if problem.repair
    }

    assert names == {rule.code for rule in STRUCTURE if rule.fixable}


def test_every_rule_of_structure_has_a_case() -> None:
    codes = {code for case in CASES for code, _ in problems_in(case.line, Context(method=case.method))}

    assert {rule.code for rule in STRUCTURE} - codes == {"FTB019", "FTB078", "FTB079"}


@pytest.mark.parametrize("name", ["supervised", "dpo", "reinforcement"])
@pytest.mark.parametrize("target", ["openai", "azure", "nebius"])
def test_a_file_as_people_write_them_is_clean(name: str, target: str, tmp_path: Path) -> None:
    lines = (Path(__file__).parent / "clean" / f"{name}.jsonl").read_bytes()
    train, valid = tmp_path / "train.jsonl", tmp_path / "valid.jsonl"
    train.write_bytes((b"\xef\xbb\xbf" if target == "azure" else b"") + lines)
    valid.write_bytes((b"\xef\xbb\xbf" if target == "azure" else b"") + _other(name))

    report = lint([train, valid], Options(target=target, jobs=1), roles=["train", "validation"])

    assert report.files[0].examples >= 20
    assert report.files[0].method == name
    assert [f for file in report.files for f in file.findings if f.severity != "info"] == []


@pytest.mark.parametrize("name", ["supervised", "dpo", "reinforcement"])
def test_what_is_text_in_such_a_file_is_clean_for_this_machine_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = (Path(__file__).parent / "clean" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if "image_url" not in line), encoding="utf-8")

    report = lint(path, Options(target="local", jobs=1))

    assert [finding for finding in report.files[0].findings if finding.severity != "info"] == []


def _other(name: str) -> bytes:
    """A validation line of a method, on another subject."""
    question = {"role": "user", "content": "Which planet has the largest moon, and what is the moon called?"}
    completion = {"role": "assistant", "content": "Jupiter; its largest moon is Ganymede."}
    lines = {
        "supervised": {"messages": [question, completion]},
        "dpo": {
            "input": {"messages": [question]},
            "preferred_output": [completion],
            "non_preferred_output": [{"role": "assistant", "content": "Saturn, because it has rings."}],
        },
        "reinforcement": {"messages": [question], "reference_answer": "Jupiter", "subject": "astronomy", "level": 2},
    }
    return json.dumps(lines[name]).encode() + b"\n"


_KEYS = st.sampled_from(
    [
        "role",
        "content",
        "name",
        "weight",
        "refusal",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "type",
        "text",
        "image_url",
        "url",
        "detail",
        "id",
        "function",
        "arguments",
        "parameters",
        "properties",
        "required",
        "description",
        "strict",
        "messages",
        "input",
        "preferred_output",
        "non_preferred_output",
        "preferred_completion",
        "tools",
        "functions",
        "parallel_tool_calls",
        "audio",
        "prompt",
        "completion",
        "chosen",
        "rejected",
    ]
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3) | st.just(10**30),
    st.sampled_from([0.0, 1.0, 0.5, 1e308]),
    st.sampled_from(
        ["", " ", "user", "assistant", "tool", "function", "system", "developer", "text", "refusal", "a", "1"]
    ),
    st.sampled_from(
        ["{}", "[[", "data:", "data:image/png;base64,", "http://[", "https://", "image_url", "object", "\ud800"]
    ),
)
_ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=12
)
_MESSAGE = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("content", "name", "weight", "refusal", "tool_calls", "function_call", "tool_call_id"), _ANYTHING)
    | {"role": st.sampled_from(["user", "assistant", "tool", "function", "system", "developer", "Bot"]) | _ANYTHING},
)  # fmt: skip
_TALK = st.lists(_MESSAGE | _ANYTHING, max_size=4)
_HOLDER = st.fixed_dictionaries(
    {"messages": _TALK},
    optional={"tools": _ANYTHING, "functions": _ANYTHING, "parallel_tool_calls": _ANYTHING, "x": _ANYTHING},
)
_PAIRS = st.fixed_dictionaries(
    {"input": _HOLDER | _ANYTHING},
    optional={"preferred_output": _TALK | _ANYTHING, "non_preferred_output": _TALK | _ANYTHING, "tools": _ANYTHING},
)


@settings(max_examples=int(os.environ.get("FTBRIDGE_FUZZ", "300")), deadline=None)
@given(_HOLDER | _PAIRS | _ANYTHING, st.sampled_from(METHODS), st.sampled_from(sorted(TARGETS)))
def test_no_line_makes_a_rule_or_a_repair_fail(document: object, method: str, target: str) -> None:
    context = Context(target=TARGETS[target], method=method)  # type: ignore[arg-type]
    for _ in range(20):
        fixed = next((problem for _, problem in judged_document(document, context) if problem.repair), None)
        if fixed is None or fixed.repair is None:
            return
        fixed.repair.apply()
    assert not any(problem.repair for _, problem in judged_document(document, context)), "repairs end"
