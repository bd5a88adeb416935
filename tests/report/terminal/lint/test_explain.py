"""A rule explained, and the pages that are made of the rules."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from ftbridge.data.lint.rules import RULES
from ftbridge.data.targets import TARGETS
from ftbridge.report.terminal.lint.explain import explain, rule_list, rules_page, rules_table


def explained(code: str, width: int = 80) -> list[str]:
    out = io.StringIO()
    explain(RULES[code], Console(file=out, width=width, highlight=False))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("code", sorted(RULES))
def test_every_rule_is_explained_in_the_width_there_is(code: str, width: int):
    lines = explained(code, width)
    result = "".join("".join(lines).split())
    rule = RULES[code]
    for part in (rule.summary, rule.reason, rule.source, rule.good):
        assert "".join(part.split()) in result
    assert all(cell_len(line) <= width for line in lines)


def test_the_bad_piece_is_underlined_and_what_is_said_of_it_is_told():
    lines = explained("FTB021", 200)
    below = next(index for index, line in enumerate(lines) if "‾" in line)
    start, length = lines[below].index("‾"), lines[below].count("‾")
    assert lines[below - 1][start : start + length] == "null"
    assert lines[below + 1].startswith("  messages[1].content is null")


def test_severities_that_differ_by_target_are_told():
    code = next(code for code, rule in RULES.items() if None in rule.severities.values())
    result = next(line for line in explained(code) if line.startswith("Severity"))
    for name in TARGETS:
        if RULES[code].severity_for(name) is None:
            assert f"{name}: off" in result


def test_the_list_the_page_and_the_table_hold_every_rule_once():
    out = io.StringIO()
    rule_list(RULES.values(), Console(file=out, width=160, highlight=False))
    page, table = rules_page(), rules_table()
    for code, rule in RULES.items():
        assert out.getvalue().count(f"{code}  ") == 1
        assert page.count(f"\n### {code} {rule.name}\n") == 1
        assert table.count(f"(rules.md#{code.lower()}-{rule.name})") == 1
