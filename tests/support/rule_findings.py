"""Look at one line or a few with chosen rules, the way the linter does: raw bytes, screens, rules."""

import json

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.block import Checker, LintPlan
from ftbridge.data.lint.rule import Context
from ftbridge.data.lint.rules import RULES
from ftbridge.data.targets import TARGETS


def chat(question="Capital of France?", reply="Paris", system=None, **more):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages], **more}


def in_line(raw, *codes, target="openai", **context):
    """Findings in raw bytes by these rules: (code, field, message, span)."""
    plan = LintPlan(Context(TARGETS[target], **context), codes, count=False, compare=False, sketch=False)
    return Checker(plan).check(raw, first=True, last=True).findings


def in_text(text, *codes, target="openai"):
    """Findings in a user's text, which must be the same whether it is written in ASCII or in UTF-8."""
    document = chat(question=text)
    escaped = in_line(json.dumps(document).encode(), *codes, target=target)
    try:
        plain = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return escaped
    assert [result[:1] + result[4:] for result in in_line(plain, *codes, target=target)] == [
        result[:1] + result[4:] for result in escaped
    ]
    slashes = json.dumps(document).replace("/", "\\/").encode()
    assert len(in_line(slashes, *codes, target=target)) == len(escaped)
    return escaped


def codes_of_kind(kind, *beginnings):
    return [code for code, rule in RULES.items() if rule.kind == kind and code.startswith(beginnings)]


def in_file(folder, documents, *codes, name="train.jsonl", **options):
    """Findings in a file of these documents."""
    path = folder / name
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    [file] = lint(path, Options(select=codes, **options)).files
    return file.findings


def in_files(folder, files, *codes, **options):
    """Findings in a job's files, as (name, line, code, message); `files` maps a name to (role, documents)."""
    for name, (_, documents) in files.items():
        (folder / name).write_text("".join(json.dumps(document) + "\n" for document in documents))
    report = lint(
        [folder / name for name in files], Options(select=codes, **options), roles=[r for r, _ in files.values()]
    )
    return [
        (file.path.rsplit("/", 1)[-1], finding.line, finding.code, finding.message)
        for file in report.files
        for finding in file.findings
    ]
