"""Which rules to run: `--select` and `--ignore` take codes, their beginnings, or names; the longer one wins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from ftbridge.data.lint.rule import Rule
from ftbridge.errors import UsageError


def chosen(rules: Mapping[str, Rule], select: Sequence[str], ignore: Sequence[str]) -> tuple[str, ...]:
    """The codes to run, in order. An empty `select` is all rules.

    A code is run when what selects it is longer than what ignores it: `--select FTB2 --ignore FTB201` leaves FTB201 out,
    `--select FTB201 --ignore FTB2` runs only it. Raises `UsageError` for words that mean no rule.
    """
    names = {rule.name: code for code, rule in rules.items()}
    wanted = [_code(word, rules, names) for word in select] or [""]
    unwanted = [_code(word, rules, names) for word in ignore]
    codes = []
    for code in sorted(rules):
        for_it = max((len(word) for word in wanted if code.startswith(word)), default=-1)
        against = max((len(word) for word in unwanted if code.startswith(word)), default=-1)
        if for_it > against:
            codes.append(code)
    return tuple(codes)


def one(rules: Mapping[str, Rule], word: str) -> Rule:
    """The rule with this code or name. Raises `UsageError`."""
    code = _code(word, rules, {rule.name: code for code, rule in rules.items()})
    if code not in rules:
        matching = [rule_code for rule_code in sorted(rules) if rule_code.startswith(code)]
        raise UsageError(f"{word} is more than one rule.", hint=f"One of {', '.join(matching[:12])}.")
    return rules[code]


def _code(word: str, rules: Mapping[str, Rule], names: Mapping[str, str]) -> str:
    code = names.get(word.strip().lower(), word.strip().upper())
    if code == "ALL":
        return ""
    if code and any(rule_code.startswith(code) for rule_code in rules):
        return code
    close = difflib.get_close_matches(word.upper(), list(rules), n=1) or difflib.get_close_matches(
        word, list(names), n=1
    )
    hint = f"Did you mean {close[0]}?" if close else "ftbridge lint --explain all lists them."
    raise UsageError(f"{word} is not a rule.", hint=hint)
