"""A model of two layers with random weights and a real tokenizer: loads in a second, answers nonsense, obeys grammars."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

TOOLS_TEMPLATE = (
    "{%- if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'Call with <tool_call>\n{"name": N, "arguments": {}}\n</tool_call><|im_end|>\n{% endif %}'
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    '{%- for call in message.tool_calls or [] %}\n<tool_call>\n{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}'
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
"""A template in Hermes' notation, whose answers may begin within reasoning."""


def write_small_model(folder: Path, base: Path, *, template: str | None = None, **shape: Any) -> Path:
    """A random model in `folder`, with the tokenizer of `base`. `shape` changes its configuration."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if template is not None:
        tokenizer.chat_template = template
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "max_position_embeddings": 4096, "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **{**small, **shape}))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


THINKING_TEMPLATE = (
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{{ message.content.split('</think>')[-1].lstrip('\\n') }}"
    "{% else %}{{ message.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}{% endif %}"
)
"""A template in the manner of Qwen3: reasoning unless it is switched off, when the prompt holds an empty block of it."""


def write_chain_model(folder: Path, base: Path, completions: list[tuple[str, str]], *, template: str) -> Path:
    """A model that writes these texts: after the last token of each first text, the tokens of the second.

    Its layers add nothing, and each token's embedding is the row of the output matrix of the token that follows. So no token
    may be followed by two.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    write_small_model(folder, base, template=template, num_hidden_layers=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>", "</think>"])
    model = LlamaForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    follows: dict[int, int] = {}
    for before, after in completions:
        ids = [
            tokenizer.encode(before, add_special_tokens=False)[-1],
            *tokenizer.encode(after, add_special_tokens=False),
        ]
        for token, following in pairwise(ids):
            assert follows.setdefault(token, following) == following, tokenizer.decode([token])
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = torch.nn.functional.normalize(torch.randn(len(tokenizer), model.config.hidden_size), dim=1)
        model.get_input_embeddings().weight.copy_(embeddings)
        output = torch.zeros_like(embeddings)
        for token, following in follows.items():
            output[following] += 50 * embeddings[token]
        model.get_output_embeddings().weight.copy_(output)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SMALL = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}
