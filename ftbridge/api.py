"""The Python SDK: what the command line does, as functions and one object.

run = ftbridge.run("job.yaml", provider="local")     # to its end
run = ftbridge.run(spec, provider="local", wait=False)
run.wait()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from ftbridge import files
from ftbridge.data.convert.convert import Converted
from ftbridge.data.convert.convert import convert as convert_file
from ftbridge.data.convert.recipe import Recipe
from ftbridge.data.convert.shapes import Shape
from ftbridge.data.lint import METHOD_ALIASES
from ftbridge.data.lint.engine import Options, Role
from ftbridge.data.lint.engine import lint as lint_files
from ftbridge.data.lint.findings import LintReport
from ftbridge.data.lint.rule import METHODS, Method
from ftbridge.data.targets import TargetName
from ftbridge.errors import UsageError
from ftbridge.evaluation import compare as comparisons
from ftbridge.evaluation import standalone
from ftbridge.evaluation.compare import Comparison
from ftbridge.evaluation.document import Evaluation
from ftbridge.planning import plan as planning
from ftbridge.planning.plan import Plan
from ftbridge.prices import load_prices
from ftbridge.runner import control, drive, summary
from ftbridge.runner.fallback import last_of
from ftbridge.runner.observer import Observer
from ftbridge.runner.start import create_run
from ftbridge.runs import run as folder
from ftbridge.runs import store
from ftbridge.spec import JobSpec, SpecFile


class Run:
    """One run, wherever it stands. Everything is read from its folder: other processes may be driving it."""

    def __init__(self, opened: folder.Run) -> None:
        self._run = opened

    def __repr__(self) -> str:
        return f"<ftbridge.Run {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._run.path

    @property
    def state(self) -> str:
        """prepared, validating, queued, running, pausing, paused, succeeded, failed, cancelled, or a service's own word."""
        return self._run.state().state

    @property
    def metrics(self) -> dict[str, Any]:
        """The latest training figures, in the names of `ftbridge.providers.base.Metrics`."""
        metrics = self._run.state().metrics
        return metrics.by_name() if metrics is not None else {}

    @property
    def model(self) -> str | None:
        """The tuned model: a folder, or a service's model name. None until there is one."""
        tuned = self._run.state().tuned
        return tuned.id if tuned else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The result of the evaluation, or None before that and without a test split."""
        return summary.read_evaluation(self._run)

    def summary(self) -> dict[str, Any]:
        """The document that `ftbridge run --json` prints."""
        return summary.summary(self._run)

    def wait(self, watcher: Observer | None = None) -> Run:
        """Follow the run to its end. Raises its error if it ends badly."""
        control.watch(self._run, watcher)
        self._run = last_of(self._run)
        return self

    def resume(self, watcher: Observer | None = None) -> Run:
        """Go on with a run that stopped, to its end."""
        control.resume(self._run, watcher)
        self._run = last_of(self._run)
        return self

    def report(self, *others: Run, out: str | Path | None = None) -> Path:
        """Write one self-contained HTML page about this run, and others beside it; returns its path."""
        from ftbridge.report.html import write_report

        return write_report([self._run, *(other._run for other in others)], Path(out) if out else None)

    def cancel(self) -> None:
        """Ask for the run and its job to end."""
        control.cancel(self._run)

    def pause(self) -> None:
        """Ask for a checkpoint and a stop."""
        control.pause(self._run)


def run(
    spec: JobSpec | Mapping[str, Any] | str | Path,
    *,
    provider: str,
    allow: Sequence[str] = (),
    lint: bool = True,
    wait: bool = True,
    watcher: Observer | None = None,
) -> Run:
    """The run that fine-tunes a model and evaluates it; what `ftbridge run` does.

    Args:
        spec: A file, a mapping, or a `JobSpec`.
        provider: openai, local, slurm, ray, or another that is installed.
        allow: Fields of the spec that the provider may leave out.
        lint: False starts even if the data has lint errors.
        wait: True returns when the run is done. False returns at once; the run works in a separate process.
        watcher: Receives notes, job events and progress.

    Runs are kept in `$FTBRIDGE_HOME`, or `.ftbridge` in the working directory.

    Raises:
        DataError: The data cannot be used.
        LoweringRefused: The provider refuses a field of the spec.
        GateNotMet: The budget does not suffice, or a baseline already meets the target.
        TrainingFailed: The job failed.

    Example:
        run = ftbridge.run("job.yaml", provider="local")
        for sentence in run.evaluation.summary:
            print(sentence)
    """
    started = create_run(SpecFile.of(spec), provider, allow=allow, lint=lint)
    if wait:
        drive.drive(started, watcher)
        started = last_of(started)
    else:
        control.detach(started)
    return Run(started)


def lint(
    paths: str | Path | Sequence[str | Path],
    *,
    target: TargetName = "openai",
    method: Method | Literal["sft", "rft"] | None = None,
    model: str | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    roles: Sequence[Role] = (),
    jobs: int = 0,
) -> LintReport:
    """The problems of fine-tuning files, line by line. `report.ok` is true if there is no error.

    Args:
        paths: One file or several.
        target: The service whose rules apply, or local.
        method: supervised (or sft), dpo, or reinforcement (or rft); detected by default.
        model: Counts tokens for this model. A local model uses its own tokenizer and template.
        select: Codes or names of the only rules to check.
        ignore: Codes or names of rules to skip.
        roles: For each file, train, validation or test (train by default), to find leakage between them.
        jobs: Processes; 0 is one per core.

    Raises:
        UsageError: A file cannot be read, no file is named, or an argument is none of its choices.

    Example:
        report = ftbridge.lint("train.jsonl", target="local")
        for finding in report.files[0].findings:
            print(finding.line, finding.message)
    """
    listed = [str(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not listed:
        raise UsageError("paths is empty; there is nothing to lint.", hint='ftbridge.lint("train.jsonl")')
    named_roles = list(roles)
    for role in named_roles:
        _check_choice("roles", role, get_args(Role))
    if len(named_roles) > len(listed):
        counts = f"roles has {len(named_roles)} elements, and paths has {len(listed)}"
        raise UsageError(f"{counts}.", hint="Give one role for each file.")
    _check_choice("target", target, get_args(TargetName))
    if method is not None:
        _check_choice("method", method, (*METHODS, *METHOD_ALIASES))
    options = Options(
        target=target,
        method=METHOD_ALIASES.get(method, method) if method is not None else None,  # type: ignore[arg-type]
        model=model,
        select=tuple(select),
        ignore=tuple(ignore),
        jobs=jobs,
    )
    with with_counter(options) as counted:
        return lint_files(listed, counted, roles=named_roles)


def _check_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Raise `UsageError` for a value that is none of an argument's choices."""
    if value not in choices:
        raise UsageError(f"{argument} {value!r} is not known.", hint=f"Use one of {', '.join(choices)}.")


@contextlib.contextmanager
def with_counter(options: Options, *, progress: Callable[[str], None] = lambda _: None) -> Iterator[Options]:
    """The options, counting with the local model they name: one for the local target, or a folder or file for any."""
    if options.model is None or (options.target != "local" and not Path(options.model).exists()):
        yield options
        return
    from ftbridge.providers.local.data.lint_counter import local_counter

    with local_counter(options.model, log=files.home() / "lint.log", progress=progress) as counter:
        yield replace(options, counter=counter)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    shape: Shape | None = None,
    to: Shape | None = None,
    columns: Mapping[str, str] | None = None,
    system: str | None = None,
    drop: Sequence[str] = (),
    keep: bool = False,
    skip_bad: bool = False,
    parse: Sequence[str] = (),
    force: bool = False,
) -> Converted:
    """The result of converting a file to canonical JSON Lines, or back; what `ftbridge convert` does.

    Args:
        source: The file to convert.
        out: The file to write.
        shape: The format of the records of `source`; detected by default.
        to: The format of the records of `out`; canonical by default.
        columns: Maps field names to the columns that contain them.
        system: A system message for conversations without one.
        drop: Fields to drop that `out` cannot hold.
        keep: Keep the other fields, at the top level of the example.
        skip_bad: Leave out records that cannot be read.
        parse: Columns whose cells are JSON.
        force: Replace `out` if it exists.

    Raises:
        DataError: A record cannot be read, or a field would be lost.
        UsageError: `out` exists, or has no known extension.

    Example:
        ftbridge.convert("faq.csv", "train.jsonl", columns={"prompt": "question", "completion": "answer"})
    """
    recipe = Recipe(
        source=shape,
        target=to,
        columns=tuple((columns or {}).items()),
        system=system,
        drop=tuple(drop),
        keep=keep,
        skip_bad=skip_bad,
        parsed=tuple(parse),
    )
    return convert_file(str(source), str(out), recipe, force=force)


def plan(
    spec: JobSpec | Mapping[str, Any] | str | Path,
    *,
    prices: str | Path | None = None,
    config: str | Path | None = None,
    gpu_usd_per_hour: float | None = None,
) -> Plan:
    """Tokens, money, memory, time, dates and advice for a job, before anything is spent; what `ftbridge plan --json` prints.

    Args:
        spec: A file, a mapping, or a `JobSpec`.
        prices: A price list that extends the built-in one.
        config: The local model's config.json, if the model is not on this machine.
        gpu_usd_per_hour: Price of a GPU hour in US dollars.

    `.ok` is false if a limit of the spec cannot be met: its budget, or the days that the model has to remain available.

    Raises:
        DataError: The data cannot be used.

    Example:
        estimate = ftbridge.plan("job.yaml")
        print(estimate.splits["train"].tokens, estimate.ok)
    """
    return planning.plan(
        SpecFile.of(spec),
        prices=load_prices(prices),
        config=Path(config) if config is not None else None,
        gpu_usd_per_hour=gpu_usd_per_hour,
    )


def compare(
    first: Run | str | Path,
    second: Run | str | Path,
    *,
    margin: float | None = None,
    candidates: tuple[str, str] = ("tuned", "tuned"),
    common: bool = False,
) -> Comparison:
    """A paired verdict for each grader: the second run against the first; what `ftbridge compare --json` prints.

    Args:
        first: A run, its id, or its folder.
        second: The run that is compared with the first.
        margin: 0 to 1; `.ok` is false if the second may be worse by more than this.
        candidates: The candidate of the first run and that of the second.
        common: Compare only the test items that both runs have.

    Raises:
        UsageError: A run has no completions, or the runs have different test items and `common` is false.

    Example:
        result = ftbridge.compare("run-a", "run-b", margin=0.02)
        print(result.verdicts["exact"].verdict)
    """
    folders = [(run if isinstance(run, Run) else load_run(run))._run for run in (first, second)]
    return comparisons.compare(folders[0], folders[1], margin=margin, candidates=candidates, common=common)


def evaluate(
    spec: JobSpec | Mapping[str, Any] | str | Path,
    candidates: Sequence[str],
    *,
    provider: str | None = None,
    system: str | None = None,
    documents: str | Path | None = None,
    margin: float | None = None,
    fresh: bool = False,
    human: str | Path | None = None,
) -> Evaluation:
    """The evaluation of candidates on a spec's test items, each compared with the first; what `ftbridge eval --json` prints.

    Args:
        spec: A file, a mapping, or a `JobSpec`.
        candidates: base, zero_shot, few_shot, retrieval, run:ID, checkpoint:ID@STEP, openai:MODEL, local:MODEL or
            https://HOST/v1#MODEL.
        provider: The provider whose base model base, zero_shot, few_shot and retrieval use.
        system: The system message of zero_shot.
        documents: A folder with the passages of retrieval.
        margin: 0 to 1; the largest drop that still counts as not worse.
        fresh: Generate all completions again instead of using cached ones.
        human: A file of completions with human scores, which graders are compared with.

    Raises:
        UsageError: A candidate is not known, before any request is made.
        DataError: A line of `human` cannot be used.

    Example:
        result = ftbridge.evaluate("job.yaml", ["base", "run:latest"])
        for sentence in result.summary:
            print(sentence)
    """
    options = standalone.EvaluationOptions(
        provider=provider,
        system=system,
        documents=Path(documents) if documents is not None else None,
        margin=margin,
        fresh=fresh,
        human=Path(human) if human is not None else None,
    )
    return standalone.evaluate(SpecFile.of(spec), candidates, options)


def load_run(name: str | Path) -> Run:
    """A run by id, unique prefix, folder, or "latest".

    Raises:
        RunNotFound: There is no such run, or the prefix is not unique.

    Example:
        run = ftbridge.load_run("latest")
        print(run.state)
    """
    return Run(store.find(files.home(), str(name)))


def list_runs() -> list[Run]:
    """All runs, newest first.

    Example:
        for run in ftbridge.list_runs():
            print(run.id, run.state)
    """
    return [Run(run) for run in store.runs(files.home())]
