"""The sampling process: answers in batches, sorted by length, left-padded, stopped at the end of the turn.

Answers are greedy unless prompts have a temperature, which those of one request share; then all tokens may be drawn.

The model stands on the same quantised weights that training saw. In a process of its own, it can neither disturb
training (see the repacking trap in `load`) nor keep memory once it is closed.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ftbridge.data.examples import parse_example
from ftbridge.data.notation import answer_text
from ftbridge.providers.base import Prompt
from ftbridge.providers.local import load
from ftbridge.providers.local.child import serve
from ftbridge.providers.local.device import Device, is_out_of_memory, pick
from ftbridge.providers.local.fused import DropoutPool, fuse
from ftbridge.providers.local.models import find_model
from ftbridge.providers.local.rendering import Renderer
from ftbridge.providers.local.request import SampleRequest

_SCORED_TOKENS = 2048
"""Tokens of one pass that scores answers: its logits are made whole."""


_STOP_WINDOW = 32
"""Tokens among which a text that ends a turn is looked for after each new token."""


class Generator:
    """One model, ready to answer."""

    def __init__(self, asked: SampleRequest) -> None:
        request = asked.request
        self.device: Device = pick(request.device, request.precision)
        base = find_model(request.model, trust_remote_code=request.trust_remote_code)
        self.tokenizer = load.load_tokenizer(base.path, trust_remote_code=request.trust_remote_code)
        self.renderer = Renderer(self.tokenizer, request.thinking)
        weights = Path(asked.tuned) if asked.tuned and request.tuning == "full" else base.path
        model = load.load_base(weights, request.model_copy(update={"tuning": "lora"}), self.device)
        if asked.tuned and request.tuning == "lora":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, asked.tuned)
            frozen = load.FrozenWeights.of(model, request, self.device)
            fuse(model, frozen.weight_of, DropoutPool(0.0, self.device.compute, self.device.torch))
        elif request.quantization == "nf4":
            load.use_dequantized(model, request, self.device)
        self.model = model.eval()

    def answer(self, prompts: Sequence[Prompt], max_tokens: int, batch_size: int, tell: Callable[..., None]) -> None:
        """Answer all prompts, longest first; smaller batches when memory runs out."""
        encoded = [(prompt, self.renderer.prompt(prompt.messages, prompt.tools)) for prompt in prompts]
        encoded.sort(key=lambda item: (-len(item[1]), item[0].key))
        start = 0
        while start < len(encoded):
            batch = encoded[start : start + batch_size]
            began = time.monotonic()
            try:
                answers = self._generate([ids for _, ids in batch], max_tokens, [prompt for prompt, _ in batch])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or batch_size == 1:
                    raise
                self.device.empty_cache()
                batch_size = max(1, batch_size // 2)
                continue
            for (prompt, ids), new in zip(batch, answers, strict=True):
                tell("result", **self._completion(prompt, ids, new), seconds=round(time.monotonic() - began, 3))
            start += len(batch)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], answers: Sequence[str], batch_size: int, tell: Callable[..., None]
    ) -> None:
        """Nats of each answer's tokens, its end of turn included: the tokens, and the mask, that training would see."""
        rendered = []
        for prompt, answer in zip(prompts, answers, strict=True):
            turns = [message.model_dump(exclude_none=True) for message in prompt.messages]
            turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
            told: dict[str, Any] = {"messages": [*turns, {"role": "assistant", "content": answer}]}
            if prompt.tools:
                told["tools"] = list(prompt.tools)
            rendered.append((prompt.key, self.renderer.example(parse_example(told))))
        rendered.sort(key=lambda one: -one[1].n_tokens)
        start = 0
        while start < len(rendered):
            size = max(1, min(batch_size, _SCORED_TOKENS // rendered[start][1].n_tokens))
            part = rendered[start : start + size]
            longest = part[0][1].n_tokens
            pad = self.renderer.pad_id
            ids = torch.tensor([[*one.input_ids, *[pad] * (longest - one.n_tokens)] for _, one in part])
            present = torch.tensor([[1] * one.n_tokens + [0] * (longest - one.n_tokens) for _, one in part])
            wanted = torch.tensor([[*one.trained, *[False] * (longest - one.n_tokens)] for _, one in part])[:, 1:]
            logits = self.model(
                input_ids=ids.to(self.device.torch), attention_mask=present.to(self.device.torch), use_cache=False
            ).logits[:, :-1]
            for (key, _), row, target, mask in zip(part, logits, ids[:, 1:], wanted, strict=True):
                chosen = torch.nn.functional.cross_entropy(
                    row[mask.to(row.device)].float(), target[mask].to(row.device), reduction="sum"
                )
                tell("result", key=key, nats=float(chosen), tokens=int(mask.sum()))
            start += len(part)

    def _completion(self, prompt: Prompt, ids: Sequence[int], new: Sequence[int]) -> dict[str, Any]:
        end = self.renderer.end_of(new, ids)
        stopped = end is not None or self.renderer.stops(new)
        reply = self.renderer.read(ids, new, prompt.tools)
        return {
            "key": prompt.key,
            "text": answer_text(reply.content, reply.calls),
            "reasoning_content": reply.reasoning_content,
            "tool_calls": list(reply.tool_calls) or None,
            "finish_reason": "stop" if stopped else "length",
            "prompt_tokens": len(ids),
            "completion_tokens": len(new) if end is None else end + 1,
        }

    @torch.no_grad()
    def _generate(self, prompts: Sequence[Sequence[int]], max_tokens: int, asked: Sequence[Prompt]) -> list[list[int]]:
        longest = max(len(ids) for ids in prompts)
        pad = self.renderer.pad_id
        ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts])
        present = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        temperature = asked[0].temperature
        greedy: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature:
            # One generator draws for the whole batch, so a draw depends on who is in it too.
            torch.manual_seed(zlib.crc32(repr([(prompt.key, prompt.seed) for prompt in asked]).encode()))
        out = self.model.generate(
            input_ids=ids.to(self.device.torch),
            attention_mask=present.to(self.device.torch),
            max_new_tokens=max_tokens,
            num_beams=1,
            **({"do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else greedy),
            repetition_penalty=1.0,
            eos_token_id=sorted(frozenset.intersection(*(self.renderer.ends_after(row) for row in prompts))),
            pad_token_id=pad,
            use_cache=True,
            stopping_criteria=[self._stops(longest)] if self.renderer.stop_strings else None,
        )
        answers: list[list[int]] = out[:, longest:].tolist()
        return answers

    def _stops(self, longest: int) -> Callable[..., Any]:
        """What ends rows at a text that is no single token. Only the last tokens are looked at: the text has just come."""

        def ended(ids: Any, scores: Any, **_: Any) -> Any:
            rows = ids[:, max(longest, ids.shape[1] - _STOP_WINDOW) :].tolist()
            return torch.tensor([self.renderer.stops(row) for row in rows], device=ids.device)

        return ended


_generators: dict[str, Generator] = {}


def answer(asked: dict[str, Any], tell: Callable[..., None]) -> None:
    """Load the model on the first request; then answer its prompts."""
    wanted = SampleRequest.model_validate(asked["model"])
    name = wanted.model_dump_json()
    if name not in _generators:
        tell("progress", text="loading model")
        _generators[name] = Generator(wanted)
    prompts = [Prompt.model_validate(prompt) for prompt in asked["prompts"]]
    if "answers" in asked:
        _generators[name].score(prompts, asked["answers"], asked["batch_size"], tell)
        return
    _generators[name].answer(prompts, asked["max_tokens"], asked["batch_size"], tell)


if __name__ == "__main__":
    serve(answer)
