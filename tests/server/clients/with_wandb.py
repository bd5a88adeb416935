"""Weights & Biases' sync of OpenAI's fine-tuning jobs, offline, through the client of OpenAI's SDK."""

import os
import tempfile
import time
from pathlib import Path

folder = Path(tempfile.mkdtemp(prefix="ftbridge-wandb-"))
os.environ.update(WANDB_MODE="offline", WANDB_DIR=str(folder), WANDB_SILENT="true", WANDB_BASE_URL="http://127.0.0.1:9")

from features import JOB_MODEL, feature, report, training_file  # noqa: E402
from openai import OpenAI  # noqa: E402
from wandb.integration.openai.fine_tuning import WandbLogger  # noqa: E402

client = OpenAI(max_retries=0)
WandbLogger._logged_in = True  # nobody logs in to write a run offline, but the logger insists


def synced(**more):
    """The bytes of the run that the logger wrote, and the job's id."""
    file = client.files.create(file=training_file(), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, validation_file=file.id, model=JOB_MODEL)
    give_up = time.monotonic() + 60
    while client.fine_tuning.jobs.retrieve(job.id).status != "succeeded":
        assert time.monotonic() < give_up
        time.sleep(0.1)
    WandbLogger.sync(fine_tune_job_id=job.id, openai_client=client, project="ftbridge", overwrite=True, **more)
    (run,) = folder.glob(f"wandb/offline-run-*{job.id}/*.wandb")
    return run.read_bytes(), job.id


@feature
def jobs():
    content, job = synced(log_datasets=False)
    assert b"train_loss" in content
    assert b"valid_loss" in content
    assert job.encode() in content


@feature
def files():
    synced(log_datasets=True)


report("wandb", known={"files": "W&B uses artifacts, in which it keeps the data, only while it is online"})
