"""`ftbridge serve`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ftbridge import extras, files
from ftbridge.cli import COMMANDS
from ftbridge.cli.options import Command, pairs, print_json, verbosity, verbosity_options
from ftbridge.errors import UsageError

if TYPE_CHECKING:
    from ftbridge.server.local.runs import ServedRun
    from ftbridge.server.local.sampled import SampledRun
    from ftbridge.server.service import Service

TOKEN = "FTBRIDGE_SERVER_TOKEN"
DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Listening:
    """How a server listens, beside its address."""

    origins: tuple[str, ...] = ()
    keys: Path | None = None
    judges: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None


def listening(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a server that listens: who may ask, whom it may ask, TLS. They arrive as one `Listening`."""
    file = click.Path(path_type=Path, dir_okay=False)
    page = "Accept requests from web pages of this origin, such as http://localhost:3000; * accepts any."
    judge = "Let clients' graders use the judge at this address, with the key FTBRIDGE_JUDGE_API_KEY. None by default."
    address = f"Listen on this address; beyond loopback, {TOKEN} must be set."
    port = "Listen on this port; 0 takes any free one."
    options = [
        click.option("--host", default="127.0.0.1", show_default=True, help=address),
        click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help=port),
        click.option("--allow-origin", "origins", multiple=True, metavar="ORIGIN", help=page),
        click.option("--keys", type=file, help="Accept any of the keys in this file, one NAME=KEY a line."),
        click.option("--judge", "judges", multiple=True, metavar="URL", help=judge),
        click.option("--tls-cert", type=file, help="Serve HTTPS with this certificate (PEM)."),
        click.option(
            "--tls-key", type=file, help="Read the certificate's private key from this file, if it is separate."
        ),
    ]

    @functools.wraps(command)
    def gathered(
        *args: Any,
        origins: tuple[str, ...],
        keys: Path | None,
        judges: tuple[str, ...],
        tls_cert: Path | None,
        tls_key: Path | None,
        **more: Any,
    ) -> None:
        command(*args, listening=Listening(origins, keys, judges, tls_cert, tls_key), **more)

    for option in reversed(options):
        gathered = option(gathered)
    return gathered


@click.command("serve", cls=Command, help=COMMANDS["serve"])
@click.option(
    "--map",
    "models",
    multiple=True,
    callback=pairs,
    metavar="NAME=MODEL",
    help="Serve a local model under a client's name for it, as in gpt-4.1-mini-2025-04-14=smollm2-135m-instruct; "
    "gpt-*=MODEL for every name that matches, *=MODEL for any. MODEL may be a run's id, or run:ID@STEP for a "
    "checkpoint: ft:gpt-4.1-mini-2025-04-14:acme:triage:abc123=RUN.",
)
@click.option("--model", "plain", multiple=True, help="Serve a local model under its own name. Repeat for several.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Keep files and the job store in this folder [default: FTBRIDGE_HOME/server].",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Train at most this many jobs at once."
)
@click.option(
    "--max-loaded-models",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Keep at most this many base models in memory.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=pairs,
    metavar="KEY=VALUE",
    help="Set a field of every job's `local` section, such as quantization=none or lora.r=32.",
)
@listening
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document on stdout.")
@verbosity_options
def command(
    models: dict[str, str],
    plain: tuple[str, ...],
    host: str,
    port: int,
    folder: Path | None,
    jobs: int,
    max_loaded_models: int,
    settings: dict[str, str],
    as_json: bool,
    listening: Listening,
) -> None:
    """Serve until Ctrl-C; jobs that run save a checkpoint and go on at the next start."""
    require_server()
    from ftbridge import server
    from ftbridge.providers.local.process.provider import NEEDS
    from ftbridge.server.local.spec import check_models

    extras.require("local", "serving local models", *NEEDS)
    runs, others = runs_of(models)
    named = {name: name for name in plain} | others or ({} if runs else {DEFAULT_MODEL: DEFAULT_MODEL})
    check_models(named.values())
    directory = (folder or files.home() / "server").resolve()
    service = server.served(
        named,
        directory,
        home=files.home(),
        settings=_section(settings),
        at_once=jobs,
        held=max_loaded_models,
        runs=runs,
    )
    served = [f"{name} is {run.run}" for name, run in runs.items()]
    served += [f"{name} is {local}" for name, local in named.items()]
    start(service, host, port, directory, as_json, served, listening)


def runs_of(models: dict[str, str]) -> tuple[dict[str, ServedRun | SampledRun], dict[str, str]]:
    """The mappings whose values are runs, and the others. Raises `UsageError` for a run that cannot be served."""
    from ftbridge.server.local.runs import served_run

    served_runs = {name: served_run(files.home(), value) for name, value in models.items()}
    runs = {name: run for name, run in served_runs.items() if run is not None}
    return runs, {name: value for name, value in models.items() if name not in runs}


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
    extras.require("serve", "the server", "starlette", "uvicorn", "python_multipart")


def start(
    service: Service, host: str, port: int, directory: Path, as_json: bool, served: list[str], listening: Listening
) -> None:
    """Listen, tell where, and serve until a signal. One server to a folder."""
    from filelock import FileLock, Timeout

    from ftbridge.server.api import graders
    from ftbridge.server.app import application
    from ftbridge.server.http import network
    from ftbridge.server.http.access import Access, read_keys, read_origins

    loopback = network.is_loopback(host)
    token = os.environ.get(TOKEN) or None
    keys = {**({"token": token} if token else {}), **(read_keys(listening.keys) if listening.keys else {})}
    service.judges = graders.judges(listening.judges)
    tls = network.Tls(listening.tls_cert, listening.tls_key) if listening.tls_cert else None
    if listening.tls_key and tls is None:
        raise UsageError("--tls-key needs --tls-cert.")
    if tls is not None:
        tls.check()
    access = Access(keys, network.LOOPBACK_NAMES if loopback else None, read_origins(listening.origins))
    if not loopback and not keys:
        raise UsageError(
            f"{host} can be reached from other machines, and {TOKEN} is not set.",
            hint=f"Set {TOKEN} to a long random text, which clients send as their API key; or stay on 127.0.0.1.",
        )
    lock = FileLock(directory / "server.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UsageError(
            f"another server is already running in {directory}.", hint="Stop it, or choose another --folder."
        ) from None
    bound = network.bind(host, port)
    address = network.address_of(bound, tls=tls is not None)
    network.log_to_stderr(30 if verbosity() < 0 else 20)
    if as_json:
        print_json({"base_url": f"{address}/v1", "folder": str(directory), "pid": os.getpid()})
    if verbosity() >= 0:
        key = "any text" if not keys else f"the value of {TOKEN}" if token else f"one of {listening.keys}"
        click.echo(f"serving {address}/v1 (the API key is {key}); Ctrl-C stops", err=True)
        for line in served:
            click.echo(f"  {line}", err=True)
    try:
        network.serve(application(service, access=access), bound, tls)
    finally:
        bound.close()
        lock.release()
