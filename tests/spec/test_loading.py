"""The job spec: strict, bounded, the same from every format, and refused in words that help."""

import json

import pytest
import yaml

from ftbridge.errors import FormerName, SpecError, UsageError
from ftbridge.spec import JobSpec, SpecFile, load
from ftbridge.spec.sections import RENAMED

GRADER = {"type": "string_check", "name": "one", "operation": "eq", "input": "a", "reference": "b"}
SEVENTEEN = [f"key {number}" for number in range(17)]
SMALL = {"name": "t", "data": {"train": "t.jsonl"}, "model": {"local": "m"}}

DESIGN = """\
name: support-triage
method: supervised
data:
  train: train.jsonl
  validation: 0.1
  test: test.jsonl
model:
  openai: gpt-4.1-mini-2025-04-14
  local: HuggingFaceTB/SmolLM2-135M-Instruct
hyperparameters:
  n_epochs: 3
  batch_size: auto
  learning_rate_multiplier: auto
seed: 7
suffix: triage
metadata: {team: support}
openai: {target: openai}
local:
  tuning: lora
  quantization: nf4
  lora: {r: 16, alpha: 32, dropout: 0.05, target_modules: all-linear}
  max_length: 2048
  packing: true
  early_stopping: {patience: 2}
evaluation:
  graders:
    - {type: string_check, name: exact, operation: eq, input: "{{sample.output_text}}", reference: "{{item.reference}}"}
  baselines: [zero_shot, few_shot]
  margin: 0.02
budget: {max_usd: 20, max_hours: 6}
fallback: local
"""

DESIGN_TOML = """\
name = "support-triage"
method = "supervised"
seed = 7
suffix = "triage"
fallback = "local"
metadata = {team = "support"}
openai = {target = "openai"}
budget = {max_usd = 20, max_hours = 6}
[data]
train = "train.jsonl"
validation = 0.1
test = "test.jsonl"
[model]
openai = "gpt-4.1-mini-2025-04-14"
local = "HuggingFaceTB/SmolLM2-135M-Instruct"
[hyperparameters]
n_epochs = 3
batch_size = "auto"
learning_rate_multiplier = "auto"
[local]
tuning = "lora"
quantization = "nf4"
max_length = 2048
packing = true
lora = {r = 16, alpha = 32, dropout = 0.05, target_modules = "all-linear"}
early_stopping = {patience = 2}
[evaluation]
baselines = ["zero_shot", "few_shot"]
margin = 0.02
[[evaluation.graders]]
type = "string_check"
name = "exact"
operation = "eq"
input = "{{sample.output_text}}"
reference = "{{item.reference}}"
"""


def _with(path, value):
    """The small spec with one field set by its dotted path."""
    document = json.loads(json.dumps(SMALL))
    *sections, name = path.split(".")
    node = document
    for section in sections:
        node = node.setdefault(section, {})
    node[name] = value
    return document


def _refusal(document):
    with pytest.raises(SpecError) as caught:
        JobSpec.from_dict(document)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_yaml_toml_and_json_give_the_same_spec(tmp_path):
    specs = []
    for suffix in (".yaml", ".yml", ".toml", ".json"):
        path = tmp_path / f"job{suffix}"
        text = {".toml": DESIGN_TOML, ".json": json.dumps(yaml.safe_load(DESIGN))}.get(suffix, DESIGN)
        path.write_text(text)
        spec, value = load(path)
        assert value == text
        specs.append(spec)
    assert specs[0].evaluation.baselines == ["zero_shot", "few_shot"]
    assert (specs[0].budget.max_usd, specs[0].evaluation.margin, specs[0].fallback) == (20, 0.02, "local")
    assert all(spec == specs[0] for spec in specs)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    (tmp_path / "job.yaml").write_bytes(b"\xef\xbb\xbf" + DESIGN.encode())
    assert load(tmp_path / "job.yaml")[0].name == "support-triage"


def test_a_small_spec_has_documented_defaults():
    spec = JobSpec.from_dict(SMALL)
    assert (spec.method, spec.seed, spec.fallback, spec.data.validation) == ("supervised", 42, None, None)
    assert spec.hyperparameters.model_dump(exclude_none=True) == {
        "n_epochs": "auto",
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
    }
    assert (spec.local.lora.r, spec.local.lora.alpha, spec.local.early_stopping) == (16, 32, None)
    assert [grader.name for grader in spec.evaluation.graders] == ["exact"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("metod", "did you mean method?"),
        ("data.trian", "did you mean train?"),
        ("model.opena", "did you mean openai?"),
        ("hyperparameters.epochs", "did you mean n_epochs?"),
        ("hyperparameters.learning_rate", "did you mean learning_rate_multiplier?"),
        ("local.quantisation", "did you mean quantization?"),
        ("local.lora.dropuot", "did you mean dropout?"),
        ("local.early_stopping.patence", "did you mean patience?"),
        ("evaluation.basline", "did you mean baselines?"),
        ("budget.euros", "known keys: max_usd, max_hours"),
        ("openai.api_key", "known keys: target"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(path, nearest):
    text = _refusal(_with(path, 1))
    assert f"{path}: unknown key; {nearest}" in text


def test_an_unknown_key_in_a_grader_is_named_by_its_place():
    text = _refusal(_with("evaluation.graders", [{**GRADER, "refrence": "z"}]))
    assert "evaluation.graders[0].refrence: unknown key; did you mean reference?" in text


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("hyperparameters.n_epochs", [1, 50, "auto"], [0, 51, 1.5, "3", True, None]),
        ("hyperparameters.batch_size", [1, 256, "auto"], [0, 257, 2.0, "auto "]),
        ("hyperparameters.learning_rate_multiplier", [1e-9, 1, 100.0, "auto"], [0, -1, "1", True]),
        ("seed", [0, 2147483647], [-1, 2147483648, "7", 1.0, True]),
        ("suffix", ["a", "x" * 64, None], ["", "x" * 65, 3]),
        ("name", ["a", "A.b_c-9", "x" * 64], ["", "-a", "a b", "a/b", "x" * 65, 3]),
        ("data.validation", [0.0001, 0.9999, "v.jsonl", None], [0.0, 1.0, 0, 1, -0.1, True, ["v.jsonl"]]),
        ("data.train", ["t", ["a", "b"]], [None, 3, [1]]),
        ("data.format", ["auto", "jsonl", "json"], ["csv", None]),
        (
            "metadata",
            [{}, {"k" * 64: "v" * 512}],
            [{"k" * 65: ""}, {"k": "v" * 513}, {"k": 1}, dict.fromkeys(SEVENTEEN, "")],
        ),
        ("method", ["supervised", "dpo", "reinforcement"], ["sft", "", None]),
        ("fallback", ["openai", "local", "slurm", None], [3, ["local"]]),
        ("openai.target", ["openai", "nebius"], ["together", "azure", "custom"]),
        ("budget.max_usd", [0.01, 1, None], [0, -1, "20"]),
        ("budget.max_hours", [0.01, None], [0]),
        ("local.lora.r", [1, 1024], [0, 1025, "16"]),
        ("local.lora.alpha", [0.5, 32], [0]),
        ("local.lora.dropout", [0, 0.99], [1, -0.1]),
        ("local.lora.target_modules", ["all-linear", ["q_proj"]], [None, 1]),
        ("local.max_length", [8, 10**6], [7, 2048.0]),
        ("local.overlength", ["refuse", "truncate", "drop"], ["skip"]),
        ("local.packing", [True, False], ["yes", 1]),
        ("local.max_tokens_per_microbatch", [8, "auto"], [7]),
        ("local.base_learning_rate", [1e-6, "auto"], [0]),
        ("local.warmup_ratio", [0, 0.99], [1]),
        ("local.weight_decay", [0], [-0.1]),
        ("local.max_grad_norm", [0.1], [0]),
        ("local.gradient_checkpointing", [True, False, "auto"], ["on"]),
        ("local.evals_per_epoch", [1, 100], [0, 101]),
        ("local.keep_checkpoints", [1], [0]),
        ("local.quantization", ["nf4", "int8", "none", "auto"], ["int4", None]),
        ("evaluation.margin", [0, 1, None], [-0.1, 1.1]),
        ("evaluation.few_shot_examples", [1, 64], [0, 65]),
        ("evaluation.baselines", [[], ["zero_shot"]], [["one_shot"], "few_shot"]),
        ("evaluation.graders", [], [[], [{"type": "python"}]]),
        ("evaluation.max_completion_tokens", [1], [0]),
    ],
)
def test_each_field_takes_its_bounds_and_nothing_beyond(path, good, bad):
    for value in good:
        JobSpec.from_dict(_with(path, value))
    for value in bad:
        text = _refusal(_with(path, value))
        assert path in text, f"{path} = {value!r}: {text}"


@pytest.mark.parametrize(
    ("field", "method", "good", "bad"),
    [
        ("beta", "dpo", [0.1, 2, "auto"], [0, 2.1]),
        ("compute_multiplier", "reinforcement", [0.0001, 10, "auto"], [0.00001, 10.1]),
        ("eval_interval", "reinforcement", [1, "auto"], [0]),
        ("eval_samples", "reinforcement", [1, "auto"], [0]),
        ("reasoning_effort", "reinforcement", ["low", "high"], ["max"]),
    ],
)
def test_fields_of_one_method_are_bounded_there_and_refused_elsewhere(field, method, good, bad):
    for value in good:
        JobSpec.from_dict({**_with(f"hyperparameters.{field}", value), "method": method})
        assert f"hyperparameters.{field} belongs to method {method}" in _refusal(
            _with(f"hyperparameters.{field}", value)
        )
    for value in bad:
        assert f"hyperparameters.{field}" in _refusal({**_with(f"hyperparameters.{field}", value), "method": method})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {}}, "name at least one of model.openai and model.local"),
        ({"local": {"early_stopping": {"patience": 1}}}, "local.early_stopping needs data.validation"),
        ({"local": {"tuning": "full", "quantization": "nf4"}}, "local.tuning full cannot train nf4 weights"),
        ({"evaluation": {"graders": [GRADER, {**GRADER, "operation": "ne"}]}}, "used twice: one"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(changes, says):
    assert says in _refusal({**SMALL, **changes})


@pytest.mark.parametrize("missing", ["name", "data", "model"])
def test_what_every_job_needs_is_named_when_it_is_missing(missing):
    document = {key: value for key, value in SMALL.items() if key != missing}
    assert f"{missing}: is missing." in _refusal(document)


def test_every_problem_is_told_at_once_one_a_line():
    document = {**_with("hyperparameters.n_epochs", 0), "sead": 1, "suffix": 3, "data": {}}
    lines = _refusal(document).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["data.train", "hyperparameters.n_epochs", "suffix", "sead"]


def test_a_spec_cannot_be_changed_in_place():
    spec = JobSpec.from_dict(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        spec.seed = 3


def test_overrides_set_fields_at_any_depth_and_are_checked_like_the_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(DESIGN)
    spec, text = load(
        path,
        [
            "hyperparameters.n_epochs=2",
            "local.lora.r=8",
            "metadata.owner=me",
            "data.validation=0.2",
            "fallback=null",
            "local.device=cpu",
        ],
    )
    assert text == DESIGN
    assert (spec.hyperparameters.n_epochs, spec.local.lora.r, spec.data.validation) == (2, 8, 0.2)
    assert (spec.metadata, spec.fallback, spec.local.device) == ({"team": "support", "owner": "me"}, None, "cpu")
    with pytest.raises(SpecError, match=r"hyperparameters\.n_epochs"):
        load(path, ["hyperparameters.n_epochs=0"])
    with pytest.raises(SpecError, match=r"unknown key; did you mean n_epochs\?"):
        load(path, ["hyperparameters.n_epoch=1"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("n_epochs", "write it as key.path=value"),
        ("=3", "write it as key.path=value"),
        ("name.x=1", "name is not a mapping"),
    ],
)
def test_an_override_that_cannot_be_applied_says_how_to_write_it(tmp_path, override, says):
    path = tmp_path / "job.yaml"
    path.write_text(DESIGN)
    with pytest.raises(UsageError, match=says):
        load(path, [override])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("job.yaml", "name: t\ndata:\n  train: [a\nmodel: {local: m}\n", r"job\.yaml:4: not valid YAML"),
        ("job.yaml", "name: t\n\tdata: 1\n", r"job\.yaml:2: not valid YAML"),
        ("job.toml", 'name = "t"\nseed = \n', r"job\.toml: not valid TOML: .*line 2"),
        ("job.json", '{"name": "t",\n "seed": }', r"job\.json: not valid JSON: .*line 2"),
        ("job.yaml", "", "this file holds nothing"),
        ("job.yaml", "- a\n- b\n", "this file holds a list"),
        ("job.json", '"text"', "this file holds text"),
    ],
)
def test_a_file_that_does_not_parse_is_named_with_its_line(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SpecError, match=says):
        load(path)


def test_a_spec_that_is_not_there_or_not_text_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such job spec"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "job.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "job.yaml")


FORMER = {
    "local.too_long": ("overlength", "drop"),
    "local.tokens_per_pass": ("max_tokens_per_microbatch", 64),
    "local.keep_dequantized": ("cache_dequantized_weights", True),
    "evaluation.few_shot_by": ("few_shot_selection", "nearest"),
}


@pytest.mark.parametrize(("path", "present", "value"), [(path, *rest) for path, rest in FORMER.items()])
def test_a_former_name_is_accepted_with_a_note(tmp_path, path, present, value):
    section, _, former = path.partition(".")
    document = {"name": "n", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, section: {former: value}}
    (tmp_path / "job.json").write_text(json.dumps(document))
    with pytest.warns(FormerName, match=rf"{path} is now {section}\.{present}"):
        spec, _ = load(tmp_path / "job.json")
    assert getattr(getattr(spec, section), present) == value
    with pytest.warns(FormerName):
        assert SpecFile.of(document).spec == spec


def test_both_names_of_a_field_are_refused_and_an_override_replaces_either(tmp_path):
    document = {"name": "n", "data": {"train": "t.jsonl"}, "model": {"local": "m"}, "local": {"too_long": "drop"}}
    (tmp_path / "job.json").write_text(json.dumps(document))
    for name in ("too_long", "overlength"):
        spec, _ = load(tmp_path / "job.json", [f"local.{name}=truncate"])
        assert spec.local.overlength == "truncate"
    document["local"]["overlength"] = "drop"
    with pytest.raises(SpecError, match="too_long is the former name of overlength"):
        JobSpec.from_dict(document)


def test_every_former_name_leads_to_a_field():
    for path, present in RENAMED.items():
        section = getattr(
            JobSpec.from_dict({"name": "n", "data": {"train": "t"}, "model": {"local": "m"}}), path.split(".")[0]
        )
        assert present in type(section).model_fields


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (60, "should be less than or equal to 50, not 60."),
        (True, "should be 'auto', not true. Or: should be a valid integer, not true."),
    ],
)
def test_a_number_out_of_range_is_not_said_to_be_of_the_wrong_type(value, says):
    with pytest.raises(SpecError) as caught:
        JobSpec.from_dict(_with("hyperparameters.n_epochs", value))
    assert str(caught.value).endswith(f"hyperparameters.n_epochs: {says}")
