"""Fill the generated parts of the documentation: `python docs/generate.py`, or with `--check` tell what is stale.

A page holds `<!-- generated: NAME -->` … `<!-- end: NAME -->`; what stands between them comes from `PARTS[NAME]`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from ftbridge.cli import COMMANDS
from ftbridge.data.known_formats import listed_formats
from ftbridge.migrate.cost import costs_table
from ftbridge.prices import load_prices
from ftbridge.providers.openai.jobs.page import lowering_table, targets_table
from ftbridge.providers.openai.sampling.answers import answers_table
from ftbridge.report.terminal.lint.explain import rules_page, rules_table
from ftbridge.server.api.openapi import interface
from ftbridge.server.simulator.scenario import Scenario
from ftbridge.spec.schemas import schema as document_schema

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def render_spec_table() -> str:
    """Every field of a job spec, one table for each section: type and bounds, default, meaning."""
    schema = document_schema("job")
    # Two types of grader hold the same messages: a section that is there already is not repeated.
    return "\n\n".join(dict.fromkeys(_section(schema, schema, "", "The job")))


def render_scenario_table() -> str:
    """Every key of a simulator's scenario."""
    schema = Scenario.model_json_schema()
    return "\n\n".join(dict.fromkeys(_section(schema, schema, "", "The scenario")))


def render_clients() -> str:
    """Which feature works with which client, from the results of the tests that ran them, and why others do not."""
    results: dict[str, Any] = json.loads((DOCS / "clients.json").read_text(encoding="utf-8"))
    lines = [f"| client | version | {' | '.join(_CLIENT_COLUMNS)} |", "|" + "---|" * (2 + len(_CLIENT_COLUMNS))]
    reasons, tried, worked = [], 0, 0
    for client in results.values():
        cells = []
        for starts in _CLIENT_COLUMNS.values():
            outcomes = {name: result for name, result in client["features"].items() if name.split("_")[0] in starts}
            works = sum(result == "ok" for result in outcomes.values())
            tried, worked = tried + len(outcomes), worked + works
            cells.append("–" if not outcomes else "yes" if works == len(outcomes) else f"{works} of {len(outcomes)}")
            failed = {name: " ".join(result.split()) for name, result in outcomes.items() if result != "ok"}
            reasons += [f"- {client['title']}, `{name}`: {reason}." for name, reason in failed.items()]
        lines.append(f"| {client['title']} | {client['version']} | {' | '.join(cells)} |")
    summary = f"{worked} of {tried} features of {len(results)} clients work ({worked / tried:.1%})."
    return "\n".join([summary, "", *lines, *(["", "What does not work, and why:", "", *reasons] if reasons else [])])


_CLIENT_COLUMNS = {
    "chat": {"chat", "asynchronous"},
    "stream": {"stream"},
    "functions": {"call"},
    "JSON schema": {"schema"},
    "Responses API": {"responses"},
    "log probabilities": {"logprobs"},
    "completions": {"completions"},
    "embeddings": {"embeddings"},
    "models, files": {"models", "files"},
    "fine-tuning": {"jobs", "events", "checkpoints"},
    "batches": {"batches"},
}
"""The columns of the table of clients, each with how its features' names begin."""


def render_commands() -> str:
    """Every command with its arguments and options, as `--help` has them."""
    return "\n\n".join(_command(importlib.import_module(f"ftbridge.cli.{name}").command, name, 2) for name in COMMANDS)


def _command(command: click.Command, name: str, level: int) -> str:
    context = click.Context(command, info_name=f"ftbridge {name}", help_option_names=["-h", "--help"])
    usage = " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "").split()
    lines = [f"{'#' * level} {name}", "", command.help or "", "", f"    ftbridge {' '.join([name, *usage])}"]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        lines += ["", "| option | does |", "|---|---|"]
        lines += [
            f"| {_option(option, context)} | {_cell(option.help or '')}{_option_default(option)} |"
            for option in options
        ]
    if isinstance(command, click.Group):
        for part in command.list_commands(context):
            lines += ["", _command(command.get_command(context, part), f"{name} {part}", level + 1)]
    return "\n".join(lines)


def _option(option: click.Option, context: click.Context) -> str:
    value = "" if option.is_flag or option.count else f" {option.make_metavar(context)}"
    return ", ".join(f"`{name}{value}`".replace("|", "\\|") for name in option.opts)


def _option_default(option: click.Option) -> str:
    return f" Default: `{option.default}`." if option.show_default else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def render_routes() -> str:
    """What the server answers."""
    rows = ["| route | does |", "|---|---|"]
    for path, methods in interface()["paths"].items():
        rows += [f"| `{method.upper()} {path}` | {about['summary']} |" for method, about in methods.items()]
    return "\n".join(rows)


def render_formats() -> str:
    """Every format that `ftbridge convert` knows, in the order in which it looks for them: one line of sample each."""
    rows = ["| format | read as | a line of it | source |", "|---|---|---|---|"]
    for name, shape, sample, source in listed_formats():
        shown = sample.replace("|", "\\|")
        rows.append(f"| {name} | {shape} | `{shown}` | {source} |")
    return "\n".join(rows)


def render_migrate_costs() -> str:
    """What recording costs, from the built-in price list."""
    return costs_table(load_prices())


PARTS: dict[str, Callable[[], str]] = {
    "commands": render_commands,
    "migrate-costs": render_migrate_costs,
    "spec": render_spec_table,
    "rules": rules_page,
    "rules-table": rules_table,
    "routes": render_routes,
    "clients": render_clients,
    "scenario": render_scenario_table,
    "targets": targets_table,
    "answers": answers_table,
    "openai-lowering": lowering_table,
    "formats": render_formats,
}
PAGES = [*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"]


def filled(text: str) -> str:
    """A page with its generated parts made again. Raises `KeyError` for a part nobody makes."""
    return _PART.sub(lambda match: f"{match[1]}{PARTS[match[2]]()}\n{match[3]}", text)


def stale() -> list[Path]:
    """Pages that differ from what would be generated now."""
    return [page for page in PAGES if (text := page.read_text("utf-8")) != filled(text)]


def _section(schema: dict[str, Any], section: dict[str, Any], path: str, title: str) -> Iterator[str]:
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    below: list[tuple[str, dict[str, Any]]] = []
    for name, field in section["properties"].items():
        rows.append(_row(schema, section, f"{path}{name}", name, field))
        below += [(f"{path}{name}{mark}", inner) for mark, inner in _sections(schema, field)]
    yield f"### {title}\n\n{section['description'].splitlines()[0]}\n\n" + "\n".join(rows)
    for inner_path, inner in below:
        of = inner["properties"].get("type", {}).get("const")
        yield from _section(schema, inner, f"{inner_path}.", f"`{inner_path}`" + (f" of type `{of}`" if of else ""))


def _sections(schema: dict[str, Any], field: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections a field holds: itself one, one or nothing, one of several, or a list of these (marked [])."""
    if "$ref" in field:
        yield "", schema["$defs"][field["$ref"].rpartition("/")[2]]
    for branch in [*field.get("anyOf", []), *field.get("oneOf", [])]:
        yield from _sections(schema, branch)
    if "items" in field:
        yield from (("[]", inner) for _, inner in _sections(schema, field["items"]))


def _row(schema: dict[str, Any], section: dict[str, Any], path: str, name: str, field: dict[str, Any]) -> str:
    meaning = field.get("description")
    if meaning is None:
        meaning = next(inner["description"] for _, inner in _sections(schema, field)).splitlines()[0]
    cells = [f"`{path}`", _value(field), _default(section, name, field), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(section: dict[str, Any], name: str, field: dict[str, Any]) -> str:
    if name in section.get("required", []):
        return "**required**"
    if "$ref" in field:
        return "its defaults"
    default = field.get("default")
    if default is None:
        return "absent"
    if isinstance(default, list) and default and isinstance(default[0], dict):
        return ", ".join(f"`{entry['name']}`" for entry in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _value(field: dict[str, Any]) -> str:
    """The type of a field and its bounds, in words."""
    if "anyOf" in field:
        return " or ".join(_value(branch) for branch in field["anyOf"] if branch.get("type") != "null")
    if "$ref" in field or "oneOf" in field:
        return "a section"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field["type"]
    if kind == "array":
        least = f", at least {field['minItems']}" if "minItems" in field else ""
        if "prefixItems" in field:
            return f"[{', '.join(_value(item) for item in field['prefixItems'])}]"
        sections = not {"$ref", "oneOf"}.isdisjoint(field["items"])
        return f"list of {'sections' if sections else _value(field['items'])}{least}"
    if kind == "object" and "maxProperties" not in field:
        values = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), None)
        return "sections by name" if isinstance(values, dict) and "oneOf" in values else "an object"
    if kind == "object":
        return f"up to {field['maxProperties']} pairs of text"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "`true`, `false`"}
    return words[kind] + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {_number(field[key])}" for key, sign in signs.items() if key in field]
    if "maxLength" in field:
        told.append(f"{field.get('minLength', 0)} to {field['maxLength']} characters")
    elif "minLength" in field:
        told.append("not empty")
    if "pattern" in field:
        told.append(f"matching `{field['pattern']}`")
    return f" {', '.join(told)}" if told else ""


def _number(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    pages = stale()
    for page in pages:
        print(f"{page.name} is stale" if "--check" in sys.argv else f"{page.name} written")
        if "--check" not in sys.argv:
            page.write_text(filled(page.read_text("utf-8")), "utf-8")
    sys.exit(1 if pages and "--check" in sys.argv else 0)
