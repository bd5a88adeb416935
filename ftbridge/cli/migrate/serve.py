"""`ftbridge migrate serve`."""

from __future__ import annotations

import click

from ftbridge import extras, files
from ftbridge.cli.migrate.options import migration_option, note
from ftbridge.cli.options import pairs, verbosity_options
from ftbridge.cli.serve import Listening, listening, require_server, runs_of, start
from ftbridge.errors import GateNotMet, UsageError


@click.command(
    help="Serve the replacements under the names of the models that they replace, after listing features that clients "
    "used and this server lacks. Clients change their base URL and key, nothing else."
)
@migration_option
@click.option(
    "--map",
    "models",
    multiple=True,
    callback=pairs,
    metavar="NAME=RUN",
    help="Serve this run under this name [default: every model with a proof].",
)
@click.option(
    "--check", is_flag=True, help="Only list features that clients used and this server lacks; exit 4 if there are any."
)
@listening
@click.option("--json", "as_json", is_flag=True, help="Print the address as one JSON document on stdout.")
@verbosity_options
def command(
    name: str, models: dict[str, str], host: str, port: int, check: bool, as_json: bool, listening: Listening
) -> None:
    """Serve a migration's replacements."""
    require_server()
    from ftbridge import server
    from ftbridge.migrate.folder import Migration
    from ftbridge.migrate.serving import chosen, client_requests
    from ftbridge.providers.local.process.provider import NEEDS
    from ftbridge.server.api.compatibility import unsupported

    migration = Migration.open(name)
    served, notes = chosen(migration, models)
    unsupported_requests = unsupported(client_requests(migration, served))
    for text in notes:
        note(f"note: {text}")
    for one in unsupported_requests:
        note(f"clients use a feature that this server lacks, in {one.requests} stored requests: {one.reason}")
    if not unsupported_requests:
        note("This server has every feature that the stored requests use.")
    if check:
        if unsupported_requests:
            raise GateNotMet(f"{len(unsupported_requests)} features that clients use are missing here.")
        return
    extras.require("local", "serving local models", *NEEDS)
    runs, others = runs_of(served)
    if others:
        raise UsageError(f"there is no run {next(iter(others.values()))!r}.", hint="List runs with: ftbridge list")
    directory = (files.home() / "server").resolve()
    service = server.served({}, directory, home=files.home(), runs=runs)
    start(service, host, port, directory, as_json, [f"{name} is {run.run}" for name, run in runs.items()], listening)
