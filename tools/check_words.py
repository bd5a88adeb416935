"""Count words that this project does not use; exit 1 where one occurs more often than `words_left.toml` allows.

    python tools/check_words.py            # compare with the counts that are left
    python tools/check_words.py --where WORD   # list the places of one identifier or phrase
    python tools/check_words.py --update   # write the counts of today, which may only fall

`words.toml` lists each word with its replacement, and the names of the outside contract that stay. `words_left.toml`
holds what has not been renamed yet: it shrinks to nothing.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "tools" / "words.toml"
LEFT = ROOT / "tools" / "words_left.toml"
CODE = ("ftbridge", "tests")
PAGES = ("ftbridge", "docs")
NOT_CHECKED = {"glossary.md"}


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each name that the code binds (not each use), with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.lineno


def identifiers(banned: set[str], contract: dict[str, list[str]]) -> Iterator[tuple[str, str, Path, int]]:
    """Section, word, file and line of every banned name, apart from those that `contract` allows in the file."""
    for section in CODE:
        for path in sorted((ROOT / section).rglob("*.py")):
            allowed = contract.get(path.relative_to(ROOT).as_posix(), [])
            for name, line in names_in(ast.parse(path.read_text(encoding="utf-8"))):
                if name in banned and name not in allowed:
                    yield section, name, path, line


def phrases(banned: list[str]) -> Iterator[tuple[str, str, Path, int]]:
    """Section, pattern, file and line of every banned phrase."""
    patterns = {pattern: re.compile(pattern, re.IGNORECASE) for pattern in banned}
    pages = [
        path for folder in PAGES for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".md", ".j2")
    ]
    for path in [*pages, ROOT / "README.md"]:
        if path.name in NOT_CHECKED:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, regex in patterns.items():
                for _ in regex.finditer(line):
                    yield "phrases", pattern, path, number


def main(arguments: list[str]) -> int:
    """The exit code: 1 where a word occurs more often than is allowed."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    places = [
        *identifiers(set(words["identifiers"]), words["contract"]),
        *phrases(list(words["phrases"])),
    ]
    if arguments[:1] == ["--where"]:
        for _, word, path, line in places:
            if word == arguments[1]:
                print(f"{path.relative_to(ROOT)}:{line}")
        return 0
    counts = Counter((section, word) for section, word, _, _ in places)
    if arguments[:1] == ["--update"]:
        LEFT.write_text(_as_toml(counts), encoding="utf-8")
        return 0
    left = tomllib.loads(LEFT.read_text(encoding="utf-8"))
    replacements = {**words["identifiers"], **words["phrases"]}
    failures = 0
    for (section, word), count in sorted(counts.items()):
        allowed = left.get(section, {}).get(word, 0)
        if count > allowed:
            failures += 1
            print(f"{section}: {word} occurs {count} times; {allowed} are allowed. Write: {replacements[word]}")
    if failures:
        print("`python tools/check_words.py --where WORD` lists the places.")
    return 1 if failures else 0


def _as_toml(counts: Counter[tuple[str, str]]) -> str:
    lines = [
        "# What is not renamed yet, by word: bindings in the package and in the tests, and phrases. It may only shrink."
    ]
    for section in (*CODE, "phrases"):
        lines.append(f"\n[{section}]")
        lines += [f"'{word}' = {count}" for (where, word), count in sorted(counts.items()) if where == section]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
