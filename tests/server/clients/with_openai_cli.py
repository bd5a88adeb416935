"""The command line of OpenAI's Python SDK (`openai api …`), which its releases have up to 2.34."""

import contextlib
import io
import sys
import time

from features import HELLO, JOB_MODEL, MODEL, feature, report, training_file
from openai.cli._cli import main


def openai(*arguments):
    sys.argv = ["openai", "api", *arguments]
    printed, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
        status = main()
    assert not status, complained.getvalue()[-400:]
    return printed.getvalue()


def ids(printed, prefix):
    return [word.strip('",') for word in printed.split() if word.startswith(f'"{prefix}')]


def uploaded():
    return ids(openai("files.create", "-f", str(training_file()), "-p", "fine-tune"), "file-")[0]


def created():
    return ids(openai("fine_tuning.jobs.create", "-m", JOB_MODEL, "-F", uploaded(), "-s", "triage"), "ftjob-")[0]


@feature
def chat():
    assert HELLO in openai("chat.completions.create", "-m", MODEL, "-g", "user", HELLO, "-t", "0", "-M", "20")


@feature
def stream():
    assert HELLO in openai("chat.completions.create", "-m", MODEL, "-g", "user", HELLO, "--stream")


@feature
def completions():
    assert HELLO in openai("completions.create", "-m", MODEL, "-p", HELLO)


@feature
def completions_streamed():
    assert HELLO in openai("completions.create", "-m", MODEL, "-p", HELLO, "--stream")


@feature
def models():
    assert JOB_MODEL in openai("models.list")
    assert JOB_MODEL in openai("models.retrieve", "-i", JOB_MODEL)


@feature
def files():
    file = uploaded()
    assert file in openai("files.list")


@feature
def files_by_id():
    file = uploaded()
    assert "train.jsonl" in openai("files.retrieve", "-i", file)
    openai("files.delete", "-i", file)


@feature
def jobs():
    job = created()
    give_up = time.monotonic() + 60
    while '"succeeded"' not in (printed := openai("fine_tuning.jobs.retrieve", "-i", job)):
        assert time.monotonic() < give_up, printed
    assert job in openai("fine_tuning.jobs.list")


@feature
def jobs_cancelled():
    assert '"cancelled"' in openai("fine_tuning.jobs.cancel", "-i", created())


@feature
def events():
    assert "Created fine-tuning job" in openai("fine_tuning.jobs.list_events", "-i", created())


report(
    "openai", known={"files_by_id": "its own fault: files.retrieve and files.delete want the arguments of files.create"}
)
