"""A model of two layers with random weights and a real tokenizer: loads in a second, answers nonsense, obeys grammars."""

from __future__ import annotations

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
