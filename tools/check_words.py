"""Find words that this project does not use; exit 1 and list their places where there are any.

`words.toml` holds each word with its replacement, and the names of the outside contract that stay.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "tools" / "words.toml"
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


def identifiers(banned: set[str], contract: dict[str, list[str]]) -> Iterator[tuple[str, Path, int]]:
    """Word, file and line of every banned name, apart from those that `contract` allows in the file."""
    for section in CODE:
        for path in sorted((ROOT / section).rglob("*.py")):
            allowed = contract.get(path.relative_to(ROOT).as_posix(), [])
            for name, line in names_in(ast.parse(path.read_text(encoding="utf-8"))):
                if name in banned and name not in allowed:
                    yield name, path, line


def phrases(banned: list[str]) -> Iterator[tuple[str, Path, int]]:
    """Pattern, file and line of every banned phrase."""
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
                    yield pattern, path, number


def main() -> int:
    """The exit code: 1 where a word occurs."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    replacements = {**words["identifiers"], **words["phrases"]}
    places = [*identifiers(set(words["identifiers"]), words["contract"]), *phrases(list(words["phrases"]))]
    for word, path, line in places:
        print(f"{path.relative_to(ROOT)}:{line}: {word}. Write: {replacements[word]}")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main())
