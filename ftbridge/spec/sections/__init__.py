"""The sections of a job spec: strict, frozen, closed, every field described.

Descriptions reach the JSON Schema and docs/spec.md.

base.py     what all sections share, former names      local.py        local
data.py     data                                       clusters.py     slurm, ray
model.py    model, hyperparameters                     evaluation.py   evaluation
openai.py   openai                                     limits.py       budget, plan
"""

from ftbridge.spec.sections.base import RENAMED, Auto, Method, SpecModel, former_names_in, with_new_names
from ftbridge.spec.sections.clusters import RaySpec, SlurmSpec
from ftbridge.spec.sections.data import DataSpec, ReplaySpec
from ftbridge.spec.sections.evaluation import EvaluationSpec, RetentionSpec
from ftbridge.spec.sections.limits import BudgetSpec, PlanSpec
from ftbridge.spec.sections.local import DpoSpec, EarlyStopping, LocalSpec, LoraSpec, Quantization, ReinforcementSpec
from ftbridge.spec.sections.model import Hyperparameters, ModelSpec
from ftbridge.spec.sections.openai import OpenAISpec, WandbIntegration

__all__ = [
    "RENAMED",
    "Auto",
    "BudgetSpec",
    "DataSpec",
    "DpoSpec",
    "EarlyStopping",
    "EvaluationSpec",
    "Hyperparameters",
    "LocalSpec",
    "LoraSpec",
    "Method",
    "ModelSpec",
    "OpenAISpec",
    "PlanSpec",
    "Quantization",
    "RaySpec",
    "ReinforcementSpec",
    "ReplaySpec",
    "RetentionSpec",
    "SlurmSpec",
    "SpecModel",
    "WandbIntegration",
    "former_names_in",
    "with_new_names",
]
