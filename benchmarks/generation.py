"""The engine against transformers' batched `generate`, the one-by-one loop that people write, and llama.cpp.

    python benchmarks/generation.py [short long example rollouts server precision] [--repeat 3] [--threads 2]

The built-in model (SmolLM2-135M-Instruct), the same 16-bit weights and token ids on all sides, sides alternating; medians.

    short      32 completions of 32 tokens, prompts with a shared system message
    long       8 completions of 128 tokens
    example    the 90 test items of support-triage, up to their end of turn
    rollouts   4 prompts, 8 samples of each at temperature 1, 48 tokens
    server     one client, then 32, against the engine's own time per token
    precision  how many completions in bf16 differ alone from those in a batch, and in fp32; --adapter takes a tuned model

llama.cpp runs where `xllamacpp` is installed (pip install xllamacpp gguf), as its server does: a slot for each completion,
prompts cached, in a process of its own; the other sides share this one. Processor seconds, which other programs disturb less,
are counted too. The one-by-one loop is measured on the first four items.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ftbridge.providers.local.inference.engine import Engine, Request
from ftbridge.providers.local.models.device import Device
from ftbridge.providers.local.models.find import find_model

EXAMPLE = Path(__file__).parent.parent / "examples" / "support-triage"
MODEL = "smollm2-135m-instruct"
WORK = ["short", "long", "example", "rollouts"]
KINDS = [*WORK, "server", "precision"]


@dataclass(frozen=True)
class Work:
    """What all sides do: prompts, tokens of a completion at most, whether they end by themselves, and the temperature."""

    prompts: list[list[int]]
    tokens: int
    ends: bool = False
    temperature: float = 0.0


class Sides:
    """The model and what runs it. Each side returns how many tokens it generated; one in another process, its seconds too."""

    def __init__(self, dtype: torch.dtype, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.path = find_model(MODEL).path
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.model = AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype).eval().requires_grad_(False)
        self.engine = Engine(self.model, self.tokenizer, device=Device(torch.device("cpu"), dtype))
        self.end = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        self._folder = folder
        self._llama: Any = None

    def requests(self, work: Work) -> list[Request]:
        """The work as the engine takes it."""
        ends = frozenset({self.end} if work.ends else ())
        return [
            Request(ids, work.tokens, work.temperature, seed=number, end_tokens=ends)
            for number, ids in enumerate(work.prompts)
        ]

    def ours(self, work: Work) -> int:
        """The engine, with nothing stored from before."""
        if self.engine.batch.prefixes is not None:
            self.engine.batch.prefixes.clear()
        return sum(len(one.token_ids) for one in self.engine.generate(self.requests(work)))

    @torch.inference_mode()
    def batched(self, work: Work) -> int:
        """Transformers' `generate`, 32 prompts at a time, padded on the left."""
        tokens = 0
        for first in range(0, len(work.prompts), 32):
            prompts = work.prompts[first : first + 32]
            longest = max(map(len, prompts))
            ids = torch.tensor([[self.end] * (longest - len(one)) + one for one in prompts])
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
            drawn = {"do_sample": True, "temperature": work.temperature, "top_k": 0} if work.temperature else {}
            out = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=work.tokens, pad_token_id=self.end,
                **{"do_sample": False, **drawn}, **self._ending(work),
            )  # fmt: skip
            for row in out[:, longest:].tolist():
                tokens += row.index(self.end) + 1 if work.ends and self.end in row else len(row)
        return tokens

    @torch.inference_mode()
    def one_by_one(self, work: Work) -> int:
        """`generate` for each of the first four."""
        tokens = 0
        for ids in work.prompts[:4]:
            out = self.model.generate(
                input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=work.tokens, do_sample=False, pad_token_id=self.end, **self._ending(work),
            )  # fmt: skip
            tokens += out.shape[1] - len(ids)
        return tokens

    def _ending(self, work: Work) -> dict[str, Any]:
        return {"eos_token_id": self.end} if work.ends else {"eos_token_id": None}

    def llama_cpp(self, work: Work) -> tuple[int, float]:
        """llama.cpp's server, all prompts at once: tokens, and seconds of processors."""
        if self._llama is None:
            write_gguf(self.path, self._folder / "model.gguf")
            command = [sys.executable, __file__, "--llama-cpp", str(self._folder / "model.gguf")]
            self._llama = subprocess.Popen(
                [*command, "--threads", str(torch.get_num_threads())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        assert self._llama.stdin is not None
        assert self._llama.stdout is not None
        self._llama.stdin.write(json.dumps(asdict(work)) + "\n")
        self._llama.stdin.flush()
        lines = iter(self._llama.stdout.readline, "")
        tokens, seconds = json.loads(
            next(line for line in lines if line.startswith("["))
        )  # it prints words of its own too
        return tokens, seconds

    def close(self) -> None:
        """End llama.cpp's process."""
        if self._llama is not None:
            self._llama.communicate("")


def serve_llama_cpp(path: Path, threads: int) -> None:
    """llama.cpp's server in this process: works come in as lines of JSON, tokens and processor seconds go out.

    A process of its own, so that its threads and those of torch do not share an OpenMP runtime and its settings.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel, params.n_ctx, params.kv_unified, params.warmup = 32, 32 * 512, True, True
    params.n_batch = params.n_ubatch = 2048
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.port, params.verbosity = 0, 0
    server = xllamacpp.Server(params)

    def complete(work: Work, ids: list[int]) -> int:
        wanted = {
            "prompt": ids, "n_predict": work.tokens, "temperature": work.temperature, "cache_prompt": True,
            "ignore_eos": not work.ends, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
        }  # fmt: skip
        answer = server.handle_completions(wanted)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        return int(answer["tokens_predicted"] if "tokens_predicted" in answer else answer["usage"]["completion_tokens"])

    for line in sys.stdin:
        work, used = Work(**json.loads(line)), time.process_time()
        with ThreadPoolExecutor(32) as pool:
            tokens = sum(pool.map(partial(complete, work), work.prompts))
        print(json.dumps([tokens, time.process_time() - used]), flush=True)


def write_gguf(source: Path, target: Path) -> Path:
    """The model as GGUF with its weights in fp16, norms in fp32, as llama.cpp's own converter writes a Llama.

    In bf16 it is slower by far: the wheel multiplies it without AVX512.
    """
    import gguf
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())["model"]
    added = {one["content"] for one in json.loads((source / "tokenizer.json").read_text())["added_tokens"]}
    heads, groups, blocks = config["num_attention_heads"], config["num_key_value_heads"], config["num_hidden_layers"]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    texts = [text for text, _ in sorted(tokenizer["vocab"].items(), key=lambda one: one[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(texts)
    writer.add_token_types([gguf.TokenType.CONTROL if one in added else gguf.TokenType.NORMAL for one in texts])
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in tokenizer["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp turns neighbours, transformers halves
            count = heads if "q_proj" in name else groups
            weight = weight.view(count, 2, weight.shape[0] // count // 2, -1).transpose(1, 2).reshape(weight.shape)
        target_name = names.get_name(name, try_suffixes=(".weight",))
        if weight.dim() == 1:
            writer.add_tensor(target_name, weight.float().numpy())
        else:
            writer.add_tensor(target_name, weight.half().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_chats() -> list[list[dict[str, str]]]:
    """The messages of the example's test items, the reference last."""
    lines = (EXAMPLE / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def works(tokenizer: Any) -> dict[str, Work]:
    """What is generated, by name."""
    ids = [tokenizer.apply_chat_template(one[:-1], add_generation_prompt=True)["input_ids"] for one in test_chats()]
    return {
        "short": Work(ids[:32], 32),
        "long": Work(ids[:8], 128),
        "example": Work(ids, 40, ends=True),
        "rollouts": Work([one for one in ids[:4] for _ in range(8)], 48, temperature=1.0),
    }


def compare(sides: Sides, name: str, work: Work, repeat: int, left_out: list[str]) -> None:
    """Measure one kind of work on all sides, and print its table."""
    runs: dict[str, Callable[[Work], int | tuple[int, float]]] = {
        "engine": sides.ours, "transformers, batched": sides.batched, "transformers, one by one": sides.one_by_one,
    }  # fmt: skip
    try:
        import xllamacpp  # noqa: F401
    except ImportError:
        print("xllamacpp is not installed: llama.cpp is left out", file=sys.stderr)
    else:
        runs["llama.cpp"] = sides.llama_cpp
    runs = {side: run for side, run in runs.items() if side not in left_out}
    small = Work(work.prompts[:2], 2)
    for run in runs.values():
        run(small)
    speeds: dict[str, list[float]] = {side: [] for side in runs}
    costs: dict[str, list[float]] = {side: [] for side in runs}
    for number in range(repeat):
        # Another first token each time: nothing is left in a cache from the run before, on any side.
        fresh = replace(work, prompts=[[1_000 + number, *ids] for ids in work.prompts])
        for side, run in runs.items():
            began, used = time.monotonic(), time.process_time()
            result = run(fresh)
            seconds, here = time.monotonic() - began, time.process_time() - used
            tokens, elsewhere = result if isinstance(result, tuple) else (result, 0.0)
            speeds[side].append(tokens / seconds)
            costs[side].append(tokens / (here + elsewhere))
            line = f"{speeds[side][-1]:.0f} tokens/s, {costs[side][-1]:.0f} a processor second"
            print(f"{name} {side}: {line}", file=sys.stderr, flush=True)
    print(f"\n{name}, load {os.getloadavg()[0]:.1f}\n")
    print("| side | tokens/s | a processor second | engine against it | by processor seconds |\n|---|---|---|---|---|")
    for side in runs:
        ratios = [_ratio(one["engine"], one[side]) for one in (speeds, costs)]
        medians = [statistics.median(one[side]) for one in (speeds, costs)]
        print(f"| {side} | {medians[0]:.0f} | {medians[1]:.0f} | {ratios[0]:.1f}x | {ratios[1]:.1f}x |", flush=True)


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of neighbouring runs."""
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))


def precision(folder: Path, work: Work, adapter: Path | None) -> None:
    """How many completions differ alone from those in a batch, and how many of each are right; with an adapter, its own."""
    references = [chat[-1]["content"] for chat in test_chats()]
    for dtype in (torch.bfloat16, torch.float32):
        sides = Sides(dtype, folder)
        name = str(adapter) if adapter else None
        requests = [replace(one, adapter=name) for one in sides.requests(Work(work.prompts, 40, ends=True))]
        together = sides.engine.generate(requests)
        alone = [sides.engine.generate([one])[0] for one in requests]
        same = sum(one.token_ids == other.token_ids for one, other in zip(together, alone, strict=True))
        right = [
            [one.text.strip() == reference for one, reference in zip(several, references, strict=True)]
            for several in (together, alone)
        ]
        turned = sum(one != other for one, other in zip(*right, strict=True))
        print(
            f"{dtype}: {same} of {len(requests)} completions the same alone as in a batch; right {sum(right[0])} in a batch, "
            f"{sum(right[1])} alone, {turned} items right in one of the two only",
            flush=True,
        )


async def _client(address: str, text: str, tokens: int) -> list[float]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=address, api_key="any", max_retries=0, timeout=600) as client:
        times = []
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": text}], stream=True, max_tokens=tokens, temperature=0
        )
        async for piece in stream:
            if piece.choices and piece.choices[0].delta.content:
                times.append(time.monotonic())
        return times


async def _clients(address: str, count: int, tokens: int) -> float:
    """Tokens a second of so many clients."""
    began = time.monotonic()
    asks = [_client(address, f"Write a long story about the number {number}.", tokens) for number in range(count)]
    return sum(map(len, await asyncio.gather(*asks))) / (time.monotonic() - began)


def server(sides: Sides, repeat: int) -> None:
    """One client and 32 against the engine's own speed."""
    tokens = 64
    prompt = sides.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Write a long story about the number 0."}], add_generation_prompt=True
    )["input_ids"]
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [sys.executable, "-m", "ftbridge", "serve", "--port", "0", "--json", "-q", "--map", f"{MODEL}={MODEL}",
             "--set", "quantization=none"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "FTBRIDGE_HOME": home},
        )  # fmt: skip
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                text += process.stdout.readline()
            address: str = json.loads(text)["base_url"]
            asyncio.run(_clients(address, 1, 4))
            speeds: dict[str, list[float]] = {"engine, one row": [], "server, one client": [], "server, 32 clients": []}
            for _ in range(repeat):
                began = time.monotonic()
                count = sides.ours(Work([prompt], tokens))
                speeds["engine, one row"].append(count / (time.monotonic() - began))
                speeds["server, one client"].append(asyncio.run(_clients(address, 1, tokens)))
                speeds["server, 32 clients"].append(asyncio.run(_clients(address, 32, tokens)))
        finally:
            process.terminate()
            process.wait(60)
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    print("\nserver\n\n| | tokens/s | against one client |\n|---|---|---|")
    for side, speed in medians.items():
        print(f"| {side} | {speed:.0f} | {speed / medians['server, one client']:.2f}x |", flush=True)


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("work", nargs="*", help=f"Any of {', '.join(KINDS)} [{' '.join(WORK)}].")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--without", nargs="*", default=[], help="Leave out sides by name.")
    parser.add_argument(
        "--adapter", type=Path, help="An adapter of support-triage, whose completions `precision` compares."
    )
    parser.add_argument("--llama-cpp", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.llama_cpp:
        serve_llama_cpp(options.llama_cpp, options.threads)
        return
    if unknown := set(options.work) - set(KINDS):
        parser.error(f"there is no work {', '.join(sorted(unknown))}; choose from {', '.join(KINDS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(torch.bfloat16, Path(folder))
        all_work = works(sides.tokenizer)
        print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores, torch {torch.__version__}")
        for name in options.work or WORK:
            if name in all_work:
                compare(sides, name, all_work[name], options.repeat, options.without)
            elif name == "server":
                server(sides, options.repeat)
            else:
                precision(Path(folder), all_work["example"], options.adapter)
        sides.close()


if __name__ == "__main__":
    main()
