"""lm-eval's local-chat-completions (texts) and local-completions (log probabilities) over tasks of its own."""

import json
import os
import tempfile
from pathlib import Path

import lm_eval
from features import BASE_URL, MODEL, feature, report
from lm_eval.tasks import TaskManager

folder = Path(tempfile.mkdtemp(prefix="ftbridge-lm-eval-"))
(folder / "data.jsonl").write_text(
    "".join(json.dumps({"q": f"number {n}", "a": f"number {n}"}) + "\n" for n in range(3))
)
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{q}}}}"
doc_to_target: {target}
output_type: {kind}
{more}
"""
KINDS = {
    "generated": ("generate_until", '"{{a}}"', "metric_list: [{metric: exact_match}]\ngeneration_kwargs: {until: ['\\n'], max_gen_toks: 16}"),
    "chosen": ("multiple_choice", "0", 'doc_to_choice: ["yes", "no indeed"]\nmetric_list: [{metric: acc}]'),
    "rolling": ("loglikelihood_rolling", '"{{a}}"', "metric_list: [{metric: word_perplexity}]"),
}  # fmt: skip
for name, (kind, target, more) in KINDS.items():
    text = TASK.format(name=name, data=folder / "data.jsonl", target=target, kind=kind, more=more)
    (folder / f"{name}.yaml").write_text(text)
tasks = TaskManager(include_path=str(folder), include_defaults=False)
COMMON = f"model={MODEL},num_concurrent=1,max_retries=1"
PLAIN = "tokenizer_backend=None,tokenized_requests=False"
TOKENS = f"tokenizer={os.environ['FTBRIDGE_TOKENIZER']}"
"""Log probabilities are counted in tokens, so the client has to know the model's tokenizer, and sends ids."""


def results(kind, path, task, tokens=PLAIN, **more):
    arguments = f"{COMMON},{tokens},base_url={BASE_URL}/{path}"
    result = lm_eval.simple_evaluate(kind, arguments, tasks=[task], task_manager=tasks, bootstrap_iters=0, **more)
    return result["results"][task]


@feature
def chat():
    result = results("local-chat-completions", "chat/completions", "generated", apply_chat_template=True)
    assert result["exact_match,none"] == 1


@feature
def completions():
    assert results("local-completions", "completions", "generated")["exact_match,none"] == 1


@feature
def completions_logprobs():
    assert 0 <= results("local-completions", "completions", "chosen", TOKENS)["acc,none"] <= 1


@feature
def completions_rolling():
    assert results("local-completions", "completions", "rolling", TOKENS)["word_perplexity,none"] >= 1


os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
report("lm-eval")
