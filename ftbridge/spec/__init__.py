"""The job spec: what a user writes, how it is read, and how each field is mapped to a provider.

job.py · sections/     the spec's fields                     graders.py     OpenAI's grader objects, and ours
loading.py             files, overrides, relative paths      problems.py    pydantic's errors in words
resolve.py             "auto" as numbers, with reasons       lowering.py    the field mapping of a provider
from_openai.py         a fine-tuning job of OpenAI as a spec job_object.py  what such a job says, field by field
schemas.py             JSON Schemas of every document
"""

from ftbridge.spec.job import JobSpec
from ftbridge.spec.loading import SpecFile, load, override_section, parse

__all__ = ["JobSpec", "SpecFile", "load", "override_section", "parse"]
