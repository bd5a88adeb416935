"""Gates between the answers of the base model and the first thing that costs: is training needed, and can it be afforded?

A baseline meets `evaluation.target` when its mean reaches it on every grader. The mean, not its interval's low end: the target
asks whether training is worth trying, and few items would never allow a no. The interval is reported beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ftbridge import files, providers
from ftbridge.errors import FtbridgeError, GateNotMet
from ftbridge.evaluation.document import Evaluation, Score
from ftbridge.evaluation.spending import budget_of, spent
from ftbridge.planning.plan import plan_of_run, read_plan
from ftbridge.runs.run import Run
from ftbridge.spec import JobSpec


def save_plan(run: Run, note: Callable[[str], None]) -> None:
    """Write plan.json once, before anything is spent. A run that cannot be planned goes on, and is told of."""
    if run.plan_path.exists():
        return
    try:
        files.write_text(run.plan_path, plan_of_run(run).model_dump_json(indent=2) + "\n")
    except FtbridgeError as error:
        note(f"no plan: {error.message}")


def enforce_budget(run: Run) -> None:
    """Raise `GateNotMet` when a managed job would cost more, with what was spent so far, than the budget allows.

    On this machine hours are held while they pass. The least that the plan reckons is taken: a run is not refused for an
    estimate's upper end. A price that is not known is the provider's to refuse, in its preflight.
    """
    limit, plan = budget_of(run).max_usd, read_plan(run)
    provider, spec = providers.find(run.state().provider), run.spec()
    if provider is None or provider.capabilities(spec).plan != "openai":
        return
    if limit is None or plan is None or plan.openai is None:
        return
    total = plan.openai.money.total
    before = spent(run).usd
    if total is None or max(total[0], before.total + (plan.openai.money.training or 0.0)) <= limit:
        return
    run.append("paused")
    raise GateNotMet(
        f"this run would cost about ${total[0]:.2f} to ${total[1]:.2f}, completions and judges included, of which "
        f"${before.total:.2f} is already spent; budget.max_usd is {limit:g}. Nothing was uploaded.",
        hint=f"With a larger budget: ftbridge resume {run.id} --set budget.max_usd={total[1]:.2f}",
    )


EXACTLY_ONCE = "exactly_once"
"""The gate that `--yes` waives: a job may be made at a service that does not let a lost one be found."""


def hold_once(run: Run, why: str | None, note: Callable[[str], None]) -> None:
    """Raise `GateNotMet`, before anything is uploaded, where "exactly once" cannot be promised and nobody accepted that."""
    if why is None:
        return
    if EXACTLY_ONCE in run.state().waived:
        note(f"the job might be created twice here: {why}")
        return
    run.append("paused")
    raise GateNotMet(
        f"the job might be created twice: {why}. If the response to the creation is lost, there is no way to tell "
        "whether a job was created. Nothing was uploaded.",
        hint=f"To create it anyway: ftbridge resume {run.id} --yes",
    )


def stop_if_baseline_meets_target(
    run: Run, spec: JobSpec, before: Evaluation | None, note: Callable[[str], None]
) -> None:
    """Tell what the base model and its baselines achieve; raise `GateNotMet` when one meets `evaluation.target`.

    `ftbridge run --ignore-target`, or `resume --ignore-target`, waives the gate, and is journalled.
    """
    if before is None:
        return
    scores = before.candidates
    note(f"before training: {target_sentence(scores)}")
    target = spec.evaluation.target
    good = meets(scores, target) if target is not None else []
    if not good or "target" in run.state().waived:
        return
    run.append("paused")
    raise GateNotMet(
        f"{good[0]} is good enough without training: {target_sentence(scores, good[:1])}; evaluation.target is {target:g}. "
        "Nothing was spent on training.",
        hint=f"To train anyway: ftbridge resume {run.id} --ignore-target",
    )


def meets(scores: Mapping[str, Mapping[str, Score]], target: float) -> list[str]:
    """The candidates that reach the target on every grader, in the order given."""
    return [name for name, by in scores.items() if by and all(score.mean >= target for score in by.values())]


def target_sentence(scores: Mapping[str, Mapping[str, Score]], names: Sequence[str] | None = None) -> str:
    """Scores with their intervals, in a line: "base exact 0.0 % [0.0, 4.1], few_shot exact 31.1 % [22.5, 41.3]"."""
    return ", ".join(
        f"{name} {grader} {100 * score.mean:.1f} % [{100 * score.ci95[0]:.1f}, {100 * score.ci95[1]:.1f}]"
        for name, by in scores.items()
        if names is None or name in names
        for grader, score in by.items()
    )
