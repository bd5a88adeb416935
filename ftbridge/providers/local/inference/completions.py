"""The evaluator's process: prompts in, completions out as they end; or completions in, and how well the model foresaw them.

The model stands on the same quantised weights that training saw. In a process of its own, it can neither disturb
training (see the repacking trap in `load`) nor keep memory once it is closed.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Literal

import torch

from ftbridge.data.examples import parse_example
from ftbridge.data.notation import answer_text
from ftbridge.providers.base import Prompt
from ftbridge.providers.local.inference.engine import Generation, Request
from ftbridge.providers.local.inference.loaded import Loaded
from ftbridge.providers.local.process.child import serve
from ftbridge.providers.local.request import SampleRequest

_SCORED_TOKENS = 2048
"""Tokens of one pass that scores completions: its logits are made whole."""


class Generator:
    """One model, ready to complete prompts."""

    def __init__(self, request: SampleRequest) -> None:
        self._loaded = Loaded(request)
        self.model, self.engine = self._loaded.model, self._loaded.engine
        self.renderer, self.tokenizer, self.device = self._loaded.renderer, self._loaded.tokenizer, self._loaded.device

    def complete(self, prompts: Sequence[Prompt], max_tokens: int, batch_size: int, tell: Callable[..., None]) -> None:
        """Complete all prompts, at most `batch_size` at once, longest first; fewer at once when memory runs out.

        A completion is the likeliest token by token, unless its prompt has a temperature; then it is drawn by its key and seed.
        """
        encoded = [(prompt, self.renderer.prompt(prompt.messages, prompt.tools)) for prompt in prompts]
        encoded.sort(key=lambda item: (-len(item[1]), item[0].key))
        self.engine.max_rows = batch_size
        waiting = {self.engine.add(self._request(prompt, ids, max_tokens)): prompt for prompt, ids in encoded}
        with closing(self.engine.run()) as steps:
            for step in steps:
                if step.ended is None and step.error is None:
                    continue
                prompt, completion = waiting.pop(step.completion), step.completion
                if step.error is not None:
                    raise step.error
                seconds = round(time.monotonic() - completion.joined, 3)
                tell("result", **self._completion(prompt, completion.request, completion.generation), seconds=seconds)

    def _request(self, prompt: Prompt, ids: list[int], max_tokens: int) -> Request:
        return Request(
            ids,
            max_tokens,
            prompt.temperature or 0.0,
            seed=zlib.crc32(repr((prompt.key, prompt.seed)).encode()),
            adapter=self._loaded.adapter,
            stop=self.renderer.completions.stop_strings,
            end_tokens=self.renderer.completions.ends_after(ids),
        )

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], batch_size: int, tell: Callable[..., None]
    ) -> None:
        """Nats of each answer's tokens, its end of turn included: the tokens, and the mask, that training would see."""
        rendered = []
        for prompt, completion in zip(prompts, completions, strict=True):
            turns = [message.model_dump(exclude_none=True) for message in prompt.messages]
            turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
            document: dict[str, Any] = {"messages": [*turns, {"role": "assistant", "content": completion}]}
            if prompt.tools:
                document["tools"] = list(prompt.tools)
            rendered.append((prompt.key, self.renderer.example(parse_example(document))))
        rendered.sort(key=lambda one: -one[1].n_tokens)
        start = 0
        while start < len(rendered):
            size = max(1, min(batch_size, _SCORED_TOKENS // rendered[start][1].n_tokens))
            part = rendered[start : start + size]
            longest = part[0][1].n_tokens
            pad = self.renderer.pad_id
            ids = torch.tensor([[*one.input_ids, *[pad] * (longest - one.n_tokens)] for _, one in part])
            present = torch.tensor([[1] * one.n_tokens + [0] * (longest - one.n_tokens) for _, one in part])
            wanted = torch.tensor([[*one.loss_mask, *[False] * (longest - one.n_tokens)] for _, one in part])[:, 1:]
            self.engine.adapters.use([self._loaded.adapter] * len(part))
            logits = self.model(
                input_ids=ids.to(self.device.torch), attention_mask=present.to(self.device.torch), use_cache=False
            ).logits[:, :-1]
            for (key, _), row, target, mask in zip(part, logits, ids[:, 1:], wanted, strict=True):
                chosen = torch.nn.functional.cross_entropy(
                    row[mask.to(row.device)].float(), target[mask].to(row.device), reduction="sum"
                )
                tell("result", key=key, nats=float(chosen), tokens=int(mask.sum()))
            start += len(part)

    def _completion(self, prompt: Prompt, request: Request, generation: Generation) -> dict[str, Any]:
        ids, new = request.prompt_ids, generation.token_ids
        reply = self.renderer.completions.read(ids, new, prompt.tools)
        return {
            "key": prompt.key,
            "text": answer_text(reply.content, reply.calls),
            "reasoning_content": reply.reasoning_content,
            "tool_calls": list(reply.tool_calls) or None,
            "finish_reason": generation.finish_reason,
            "prompt_tokens": len(ids),
            "completion_tokens": len(new),
        }


def processes(device: str, workers: Literal["auto"] | int) -> int:
    """How many processes complete at once: as many as `workers`, but on GPUs no more than there are; for auto all of these."""
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if workers == "auto":
        return max(1, gpus)
    return min(workers, gpus) if gpus else workers


_generators: dict[str, Generator] = {}


def respond(request: dict[str, Any], tell: Callable[..., None]) -> None:
    """Say how many such processes this machine has room for; or load the model on the first request, and complete prompts."""
    if "count" in request:
        tell("result", processes=processes(**request["count"]))
        return
    wanted = SampleRequest.model_validate(request["model"])
    name = wanted.model_dump_json()
    if name not in _generators:
        tell("progress", text="loading model")
        _generators[name] = Generator(wanted)
    prompts = [Prompt.model_validate(prompt) for prompt in request["prompts"]]
    if "answers" in request:
        _generators[name].score(prompts, request["answers"], request["batch_size"], tell)
        return
    _generators[name].complete(prompts, request["max_tokens"], request["batch_size"], tell)


if __name__ == "__main__":
    serve(respond)
