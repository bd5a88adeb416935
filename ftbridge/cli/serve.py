"""`ftbridge serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ftbridge import files
from ftbridge.cli.options import print_json, talkative, verbosity
from ftbridge.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from ftbridge.server.service import Service

TOKEN = "FTBRIDGE_SERVER_TOKEN"
DEFAULT_MODEL = "smollm2-135m-instruct"


def _pairs(_ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:
    pairs = [item.partition("=") for item in value]
    if bad := next((item for item, pair in zip(value, pairs, strict=True) if not pair[0] or not pair[2]), None):
        raise click.BadParameter(f"{bad}: write {param.metavar}.")
    return {name: told for name, _, told in pairs}


@click.command(help="OpenAI's dialect over this machine's own models.")
@click.option(
    "--map",
    "models",
    multiple=True,
    callback=_pairs,
    metavar="NAME=MODEL",
    help="Serve a local model under a client's name for it, as in gpt-4.1-mini-2025-04-14=smollm2-135m-instruct.",
)
@click.option("--model", "plain", multiple=True, help="Serve a local model under its own name.")
@click.option("--host", default="127.0.0.1", show_default=True, help=f"Beyond loopback, {TOKEN} must be set.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any that is free.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where files and books are kept [FTBRIDGE_HOME/server]."
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Jobs that train at once.")
@click.option("--held", type=click.IntRange(min=1), default=2, show_default=True, help="Base models held in memory.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_pairs,
    metavar="KEY=VALUE",
    help="A setting of every job's `local` section, as in quantization=none or lora.r=32.",
)
@click.option("--json", "as_json", is_flag=True, help="The address as one JSON document on stdout.")
@talkative
def command(
    models: dict[str, str],
    plain: tuple[str, ...],
    host: str,
    port: int,
    folder: Path | None,
    jobs: int,
    held: int,
    settings: dict[str, str],
    as_json: bool,
) -> None:
    """Serve until Ctrl-C; jobs that run save a checkpoint and go on at the next start."""
    require_server()
    from ftbridge import server
    from ftbridge.providers.local.provider import NEEDS, require_libraries

    require_libraries(NEEDS)
    named = {name: name for name in plain} | models or {DEFAULT_MODEL: DEFAULT_MODEL}
    place = (folder or files.home() / "server").resolve()
    service = server.served(named, place, home=files.home(), settings=_section(settings), at_once=jobs, held=held)
    told = [f"{name} is {local}" for name, local in named.items()]
    start(service, host, port, place, as_json, told)


def _section(settings: dict[str, str]) -> dict[str, object]:
    """`lora.r=32` as {"lora": {"r": 32}}; values are JSON (so that 1e-3 is a number), or else YAML."""
    import json

    import yaml

    section: dict[str, object] = {}
    for key, value in settings.items():
        *path, last = key.removeprefix("local.").split(".")
        holder = section
        for part in path:
            holder = holder.setdefault(part, {})  # type: ignore[assignment]
        try:
            holder[last] = json.loads(value)
        except ValueError:
            holder[last] = yaml.safe_load(value)
    return section


def require_server() -> None:
    """Raise `MissingDependency`, with the command that installs them, when the server's libraries are not here."""
    import importlib.util

    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(f"the server needs {', '.join(missing)}.", hint="pip install 'ftbridge[serve]'")


def start(service: Service, host: str, port: int, place: Path, as_json: bool, told: list[str]) -> None:
    """Listen, tell where, and serve until a signal. One server to a folder."""
    from filelock import FileLock, Timeout

    from ftbridge.server import network
    from ftbridge.server.app import application

    loopback = network.is_loopback(host)
    token = os.environ.get(TOKEN) or None
    if not loopback and token is None:
        raise UsageError(
            f"{host} can be reached from other machines, and {TOKEN} is not set.",
            hint=f"Set {TOKEN} to a long random text, which clients send as their API key; or stay on 127.0.0.1.",
        )
    lock = FileLock(place / "server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another server is at work in {place}.", hint="Stop it, or choose another --folder."
        ) from None
    listening = network.bind(host, port)
    address = network.address_of(listening)
    network.log_to_stderr(30 if verbosity() < 0 else 20)
    if as_json:
        print_json({"base_url": f"{address}/v1", "folder": str(place), "pid": os.getpid()})
    if verbosity() >= 0:
        key = "any text" if token is None else f"the value of {TOKEN}"
        click.echo(f"serving {address}/v1 (the API key is {key}); Ctrl-C stops", err=True)
        for line in told:
            click.echo(f"  {line}", err=True)
    try:
        network.serve(application(service, token=token, hosts=network.LOOPBACK_NAMES if loopback else None), listening)
    finally:
        listening.close()
        lock.release()
