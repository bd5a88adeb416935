"""Rules about the file as it stands on disk: its encoding, its shape, its size and line ends."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from ftbridge.data.lint.forms import CONVERTED, TO_CONVERT
from ftbridge.data.lint.rule import Context, Problem, rule
from ftbridge.data.lint.source import FileFacts
from ftbridge.data.targets import MB

_FILES_GUIDE = "OpenAI API reference, files: fine-tune files are .jsonl"


@rule(
    "FTB001",
    "not-json-lines",
    kind="file",
    severity="error",
    reason="An upload is refused (HTTP 400, every line must be a JSON dictionary) when its first line is not an object.",
    source="OpenAI's server, as reported in OkGoDoIt/OpenAI-API-dotnet#59 and openai/openai-python#426",
    bad="a JSON array, one object over several lines, a compressed file, CSV, Parquet",
    good="one JSON object per line, in UTF-8",
    fixable=True,
)
def not_json_lines(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file is not JSON Lines."""
    trains_here = file.is_read_here
    lines = "a fine-tuning file has one example per line"
    fix = "write one example per line"
    if file.refusals and file.form in TO_CONVERT:
        return  # FTB009 tells why
    if file.form == "array" and file.advice:
        yield Problem("", f"is a JSON array that cannot be read: {file.advice}.")
    elif file.form == "wrapped" and file.advice:
        yield Problem(
            "",
            (f'is one object whose "{file.detail}" holds the examples, but {file.advice}. Write one example per line.'),
        )
    elif file.form == "array" and trains_here:
        yield Problem("", f"is a JSON array, which runs on this machine can read; {lines}.", fix=fix, severity="info")
    elif file.form == "array":
        yield Problem("", f"is a JSON array; {lines}.", fix=fix)
    elif file.form == "pretty":
        description = "spreads an object over several lines; each example must be on one line."
        yield Problem("", description, fix=fix, severity="info" if trains_here else None)
    elif file.form == "wrapped":
        description = f'is one object whose "{file.detail}" holds the examples; {lines}.'
        yield Problem("", description, fix=fix, severity="info" if trains_here else None)
    elif file.form in CONVERTED:
        kind = {"gzip": "gzip data", "zstd": "zstd data", "parquet": "a Parquet file"}[file.form]
        convert = file.advice or f"`ftbridge convert {shlex.quote(file.path)} out.jsonl` reads it."
        yield Problem(
            "", f"is {kind}; a fine-tuning file is plain text. {convert}", severity="warning" if trains_here else None
        )
    elif file.form == "table":
        description = f"is a table ({file.detail}), not JSON Lines. {file.advice}"
        yield Problem("", description, severity="warning" if trains_here else None)
    elif file.form in ("zip", "other"):
        description = f"is {file.detail}; a fine-tuning file is JSON Lines. {file.advice}"
        yield Problem("", description, severity="warning" if trains_here else None)
    elif file.form == "binary":
        yield Problem("", "is binary data, not text.")


@rule(
    "FTB009",
    "unreadable-for-run",
    kind="file",
    severity="error",
    severities={"openai": None, "azure": None, "nebius": None},
    reason="A run on this machine reads a file whole before it trains, and stops at what it cannot read.",
    source="ftbridge's own reader of data, which this rule applies to the file",
    bad="a CSV file in which a row has more cells than the header",
    good="one JSON object per line, in UTF-8",
)
def unreadable_for_run(file: FileFacts, context: Context) -> Iterator[Problem]:
    """A run on this machine cannot read the file, or a line of it."""
    if file.form in ("zip", "other", "binary") or (file.form == "utf-16" and not file.is_read_here):
        return  # FTB001 and FTB002 tell what it is
    for line, reason in file.refusals:
        yield Problem("", reason, line=line or None)


@rule(
    "FTB002",
    "utf-16",
    kind="file",
    severity="error",
    reason="Services read UTF-8 only; UTF-16 is refused as not JSON.",
    source="OpenAI's server: uploads that are not UTF-8 are refused (PSOpenAI#19, chatgpt-java#168)",
    bad="a file that an old editor saved as Unicode",
    good="the same file in UTF-8",
    fixable=True,
)
def utf16(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file is UTF-16 text."""
    if file.form == "utf-16":
        if file.detail:
            description = f"is UTF-16 text and a table ({file.detail}), not JSON Lines. {file.advice}"
            yield Problem("", description, severity="warning" if file.is_read_here else None)
        else:
            yield Problem("", "is UTF-16 text; services read UTF-8.", fix="write it in UTF-8")


@rule(
    "FTB003",
    "empty-file",
    kind="file",
    severity="error",
    reason="There is nothing to train on.",
    source="OpenAI supervised fine-tuning guide: at least 10 examples",
    bad="a file of 0 bytes, or of blank lines",
    good="a file with examples",
)
def empty_file(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file contains no line."""
    if file.form == "empty":
        yield Problem("", f"is {file.detail}." if file.detail else "is empty.")


@rule(
    "FTB004",
    "byte-order-mark",
    kind="file",
    severity="warning",
    reason="With a byte order mark, strict readers fail on the first line; Azure requires one.",
    source="Microsoft's fine-tuning guide (UTF-8 with a byte order mark); third-party guides for OpenAI, which says nothing",
    bad="a file that begins with EF BB BF (OpenAI), or without it (Azure)",
    good="the other way round",
    severities={"local": None},
    fixable=True,
)
def byte_order_mark(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file begins with a byte order mark where none is wanted, or has none where one is."""
    policy = context.target.bom
    if file.form not in ("lines", "pretty"):
        return
    if file.bom and policy == "breaks":
        yield Problem("", "begins with a byte order mark, which strict JSON readers refuse.", fix="remove it")
    elif not file.bom and policy == "needed":
        yield Problem(
            "", "has no byte order mark; Azure's guide asks for UTF-8 with one.", fix="add it", severity="info"
        )


@rule(
    "FTB005",
    "wrong-extension",
    kind="file",
    severity="warning",
    reason="OpenAI accepts fine-tuning files only with the extension .jsonl.",
    source=_FILES_GUIDE,
    bad="train.json, train.txt",
    good="train.jsonl",
    severities={"local": None},
)
def wrong_extension(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file's name does not end in .jsonl."""
    if file.form == "lines" and file.path != "<stdin>" and not file.name.lower().endswith(".jsonl"):
        yield Problem("", f"is named {file.name}; {context.target.title} accepts .jsonl files. Rename it.")


@rule(
    "FTB006",
    "file-too-large",
    kind="file",
    severity="error",
    reason="The service refuses larger uploads, some of them without a clear message.",
    source="OpenAI API reference: 512 MB a file, 8 GB by /uploads; Azure: single uploads fail above about 150 MB; "
    "Nebius Token Factory: 5 GB",
    bad="a file of 9 GB",
    good="a sample of it",
)
def file_too_large(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file is larger than the service takes."""
    target = context.target
    if target.largest_file and file.bytes > target.largest_file:
        yield Problem("", f"has {file.bytes / MB:,.0f} MB; {target.title} takes {target.largest_file / MB:,.0f} MB.")
    elif target.upload_in_parts_above and file.bytes > target.upload_in_parts_above:
        limit = target.upload_in_parts_above / MB
        description = (
            f"has {file.bytes / MB:,.0f} MB; {target.title} takes more than {limit:,.0f} MB only in parts (/uploads)."
        )
        yield Problem("", description, severity="warning")


@rule(
    "FTB007",
    "blank-line",
    kind="file",
    severity="warning",
    late=True,
    reason="Checkers skip blank lines; no service documents what it does with them.",
    source="together 3.1.1, llmcomp 1.6.0 and Microsoft's validators skip them; OpenAI publishes nothing",
    bad="an empty line between two examples",
    good="no empty lines",
    severities={"local": "info"},
    fixable=True,
)
def blank_line(file: FileFacts, context: Context) -> Iterator[Problem]:
    """The file has blank lines."""
    if file.blank and file.form == "lines":
        count = "a blank line" if file.blank == 1 else f"{file.blank:,} blank lines"
        yield Problem("", f"has {count}; no service documents whether it skips them.", fix="remove blank lines")


@rule(
    "FTB008",
    "crlf",
    kind="file",
    severity="info",
    late=True,
    reason="JSON allows a carriage return before a line feed, and checkers strip it; plain line feeds are safer.",
    source="RFC 8259 section 2; third-party guides ask for line feeds",
    bad="lines that end in CR LF",
    good="lines that end in LF",
    severities={"local": None},
    fixable=True,
)
def crlf(file: FileFacts, context: Context) -> Iterator[Problem]:
    """Lines end in CR LF."""
    if file.crlf and file.form == "lines":
        yield Problem("", f"has {file.crlf:,} lines that end in CR LF.", fix="end lines in LF")
