"""Chat templates written for the sweep. Each has one property, or a few, that published ones have; none is a published one.

`special` are tokens to add, `eos` the end of sequence, `can` what conversations it renders beside plain ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Case:
    """A template, its tokens, and what it can render: tools, a system message, one in the middle, two users in a row."""

    template: str
    eos: str = "<|fin|>"
    special: tuple[str, ...] = (
        "<|bos|>",
        "<|h|>",
        "<|bot|>",
        "<|sys|>",
        "<|tool|>",
        "<|fin|>",
        "<|eos|>",
        "<|call|>",
        "<|stop|>",
    )
    plain: tuple[str, ...] = ("<think>", "</think>")
    can: frozenset[str] = field(default=frozenset({"system", "late system"}))


_TOOLS = "{% for t in tools or [] %}<|tool|>{{ t | tojson }}{% endfor %}"
_ROLES = (
    "{% if m.role == 'user' %}<|h|>{{ m.content }}<|fin|>\n{% elif m.role in ['system', 'developer'] %}<|sys|>{{ m.content }}<|fin|>\n"
    "{% elif m.role == 'tool' %}<|tool|>{{ m.content }}<|fin|>\n{% else %}"
)
_LAST_USER = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}"
)


def _turns(reply: str, asks: str = "<|bot|>", head: str = _TOOLS, tail: str = "", before: str = "") -> str:
    """Turns with the answer's form, and what the template asks with."""
    loop = "{% for m in messages %}" + _ROLES + reply + "{% endif %}{% endfor %}"
    return before + head + loop + tail + "{% if add_generation_prompt %}" + asks + "{% endif %}"


def _calls(each: str, before: str = "", after: str = "", between: str = "") -> str:
    gap = "{% if not loop.last %}" + between + "{% endif %}" if between else ""
    return (
        "{% if m.tool_calls %}"
        + before
        + "{% for c in m.tool_calls %}"
        + each
        + gap
        + "{% endfor %}"
        + after
        + "{% endif %}"
    )


_JSON = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
_HERMES = _calls("<tool_call>\n" + _JSON + "\n</tool_call>", between="\n")
_TEXT = "<|bot|>{{ m.content or '' }}"
_BOTH = frozenset({"system", "late system", "tools"})
_ARGUMENTS = "{% for k, v in c.function.arguments | items %}"
_VALUE = "{{ v if v is string else v | tojson }}"

CASES: dict[str, Case] = {
    "marks": Case(_turns("<|bot|>{{ m.content }}<|fin|>\n", head="")),
    "trims": Case(_turns("<|bot|>{{ m.content | trim }}<|fin|>\n", head="")),
    "header names the role": Case(
        "{{ '<|bos|>' }}{% for m in messages %}<|h|>{{ m.role }}<|sys|>\n\n{{ m.content }}<|fin|>{% endfor %}"
        "{% if add_generation_prompt %}<|h|>assistant<|sys|>\n\n{% endif %}"
    ),
    "a default system message": Case(
        "{% if messages[0].role != 'system' %}<|sys|>Be kind.<|fin|>\n{% endif %}"
        + _turns("<|bot|>{{ m.content }}<|fin|>\n", head="")
    ),
    "no system role, roles alternate": Case(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
        "<|h|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|fin|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|h|>model\n{% endif %}",
        can=frozenset({"system"}),
    ),
    "no generation prompt": Case("{% for m in messages %}<|h|>{{ m.role }}\n{{ m.content }}<|fin|>\n{% endfor %}"),
    "no end after the last answer": Case(
        "{% for m in messages %}<|h|>{{ m.role }}\n{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|h|>assistant\n{% endif %}"
    ),
    "the end is plain text": Case(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "an end of sequence after all": Case(
        _turns(
            "<|bot|>{{ m.content }}<|stop|>\n", head="", tail="{% if not add_generation_prompt %}<|eos|>{% endif %}"
        ),
        eos="<|eos|>",
    ),
    "the last answer ends otherwise": Case(
        _turns("<|bot|>{{ m.content }}{{ '<|stop|>' if loop.last else '<|fin|>' }}", head=""), eos="<|stop|>"
    ),
    "an empty block before the last answer": Case(
        _turns("<|bot|>{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|fin|>\n", head="")
    ),
    "an empty block before every answer": Case(_turns("<|bot|><think></think>\n{{ m.content }}<|fin|>\n", head="")),
    "a switch, a block in the last turn, calls": Case(
        _LAST_USER
        + _turns(
            "<|bot|>{% if loop.index0 > ns.last %}<think>\n{{ (m.reasoning_content or '') | trim }}\n</think>\n\n{% endif %}"
            "{{ m.content or '' }}" + _HERMES + "<|fin|>\n",
            asks="<|bot|>{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}",
        ),
        can=_BOTH,
    ),
    "asks with an opened block, writes a whole one": Case(
        _turns(
            "<|bot|><think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}<|fin|>\n",
            asks="<|bot|><think>\n",
            head="",
        )
    ),
    "asks with an opened block, writes a closed mark": Case(
        _turns("<|bot|></think>{{ m.content }}<|fin|>\n", asks="<|bot|><think>", head="")
    ),
    "asks with an opened block, writes none": Case(
        _turns("<|bot|>\n{{ m.content.split('</think>')[-1] }}<|fin|>\n", asks="<|bot|>\n<think>\n", head="")
    ),
    "asks with an empty block, writes reasoning": Case(
        _turns(
            "<|bot|><think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}<|fin|>\n",
            asks="<|bot|><think>\n\n</think>\n\n",
            head="",
        )
    ),
    "reasoning in the middle is dropped": Case(
        _LAST_USER
        + _turns(
            "<|bot|>{% if m.reasoning_content and loop.index0 > ns.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
            "{{ m.content }}<|fin|>\n",
            head="",
        )
    ),
    "channels": Case(
        _turns(
            "<|start|>assistant{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant{% endif %}"
            "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}",
            asks="<|start|>assistant",
            head="",
        ),
        eos="<|return|>",
        special=(
            "<|h|>",
            "<|sys|>",
            "<|tool|>",
            "<|fin|>",
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|end|>",
            "<|return|>",
        ),
    ),
    "a response within marks": Case(
        _turns("<|bot|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|><|fin|>\n", head=""),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ),
    "calls as JSON within tags": Case(_turns(_TEXT + _HERMES + "<|fin|>\n"), can=_BOTH),
    "calls as JSON text within tags": Case(
        _turns(
            _TEXT
            + _calls(
                '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}</tool_call>'
            )
            + "<|fin|>\n"
        ),
        can=_BOTH,
    ),
    "calls as tags": Case(
        _turns(
            _TEXT
            + _calls(
                "\n<tool_call>\n<function={{ c.function.name }}>\n"
                + _ARGUMENTS
                + "<parameter={{ k }}>\n"
                + _VALUE
                + "\n</parameter>\n{% endfor %}</function>\n</tool_call>"
            )
            + "<|fin|>\n"
        ),
        can=_BOTH,
    ),
    "calls as keys and values, without an end": Case(
        _turns(
            _TEXT
            + _calls(
                "\n<tool_call>{{ c.function.name }}\n"
                + _ARGUMENTS
                + "<arg_key>{{ k }}</arg_key>\n<arg_value>"
                + _VALUE
                + "</arg_value>\n{% endfor %}</tool_call>"
            )
        ),
        can=_BOTH,
    ),
    "ids of nine letters, a list of calls": Case(
        _turns(
            _TEXT
            + _calls(
                "{% if c.id | length != 9 %}{{ raise_exception('nine') }}{% endif %}"
                '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}',
                "[TOOL_CALLS][",
                "]",
                ", ",
            )
            + "<|fin|>"
        ),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "[TOOL_CALLS]"),
        can=_BOTH,
    ),
    "a name and its arguments": Case(
        _turns(
            _TEXT + _calls("[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}") + "<|fin|>"
        ),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "[TOOL_CALLS]", "[ARGS]"),
        can=_BOTH,
    ),
    "a call ends with a token of its own": Case(
        _turns(_TEXT + _HERMES + "{{ '<|stop|>' if m.tool_calls else '<|fin|>' }}"), can=_BOTH
    ),
    "a call without text stands alone": Case(
        _turns(
            "{% if m.content or not m.tool_calls %}<|bot|>{{ m.content }}<|fin|>{% endif %}{% if m.tool_calls %}<|bot|>"
            + _HERMES
            + "<|fin|>{% endif %}"
        ),
        can=frozenset({*_BOTH, "no text beside calls"}),
    ),
    "arguments in a notation of its own": Case(
        _turns(
            _TEXT
            + _calls(
                "<start_function_call>call:{{ c.function.name }}{{ '{' }}"
                + _ARGUMENTS
                + "{{ k }}:{% if v is string %}<escape>{{ v }}<escape>{% else %}{{ v | tojson }}{% endif %}"
                "{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<end_function_call>"
            )
            + "<|fin|>\n"
        ),
        special=(
            "<|h|>",
            "<|bot|>",
            "<|sys|>",
            "<|tool|>",
            "<|fin|>",
            "<start_function_call>",
            "<end_function_call>",
            "<escape>",
        ),
        can=frozenset({*_BOTH, "flat"}),
    ),
    "sections with numbered calls": Case(
        _turns(
            _TEXT
            + _calls(
                "<|tool_call_begin|>functions.{{ c.function.name }}:{{ loop.index0 }}<|tool_call_argument_begin|>"
                "{{ c.function.arguments | tojson }}<|tool_call_end|>",
                "<|tool_calls_section_begin|>",
                "<|tool_calls_section_end|>",
            )
            + "<|fin|>"
        ),
        special=(
            "<|h|>",
            "<|bot|>",
            "<|sys|>",
            "<|tool|>",
            "<|fin|>",
            "<|tool_calls_section_begin|>",
            "<|tool_calls_section_end|>",
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
        can=_BOTH,
    ),
    "a tag before JSON": Case(
        _turns(
            _TEXT
            + _calls(
                '<|python_tag|>{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}',
                between="; ",
            )
            + "{{ '<|stop|>' if m.tool_calls else '<|fin|>' }}"
        ),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "<|stop|>", "<|python_tag|>"),
        can=frozenset({*_BOTH, "one call"}),
    ),
    "results with names": Case(
        _turns(_TEXT + _HERMES + "<|fin|>\n").replace(
            "<|tool|>{{ m.content }}",
            "{% if not m.name %}{{ raise_exception('name') }}{% endif %}<|tool|>{{ m.name }}: {{ m.content }}",
        ),
        can=_BOTH,
    ),
    "a break after a result when more follows": Case(
        _turns(_TEXT + _HERMES + "<|fin|>\n").replace(
            "<|tool|>{{ m.content }}<|fin|>\n", "<|tool|>{{ m.content }}{{ '' if loop.last else '\n' }}<|fin|>\n"
        ),
        can=_BOTH,
    ),
    "the system message with the last question": Case(
        "{% for m in messages %}{% if m.role == 'user' %}<|h|>{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content }}\n"
        "{% endif %}{{ m.content }}<|fin|>{% elif m.role == 'assistant' %}<|bot|>{{ m.content }}<|fin|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|>{% endif %}",
        can=frozenset({"system"}),
    ),
    "recipients": Case(
        _turns(
            "<|bot|>{% if m.content or not m.tool_calls %}all\n{{ m.content }}{% endif %}"
            + _calls(">>>{{ c.function.name }}\n{{ c.function.arguments | tojson }}")
            + "<|fin|>",
            before="{# recipient #}",
        ),
        can=frozenset({"system", "late system"}),
    ),
    "the system message before the last question, which nothing heads": Case(
        "{{ '<|bos|>' }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and messages[0].role == 'system' %}"
        "{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}<|fin|>"
        "{% endif %}{% endfor %}",
        can=frozenset({"system"}),
    ),
    "a result ends where more follows, and tools are always written": Case(
        "{% for t in tools %}<|tool|>{{ t | tojson }}{% endfor %}{% for m in messages %}"
        "{% if m.role == 'tool' %}<|tool|>{{ m.content }}{{ '' if loop.last else '\n<|fin|>' }}"
        "{% if loop.last and add_generation_prompt %}<|fin|>{% endif %}{% elif m.role == 'assistant' %}<|bot|>{{ m.content or '' }}"
        + _HERMES
        + "<|fin|>\n{% else %}<|h|>{{ m.content }}<|fin|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|>{% endif %}",
        can=frozenset({"tools", "always tools"}),
    ),
    "contents in parts alone": Case(
        "{% for m in messages %}<|h|>{{ m.role }}: {% for part in m.content %}{{ part.text }}{% endfor %}<|fin|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|h|>assistant: {% endif %}"
    ),
    "white space ends a turn": Case(
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "the header stands after everything, and a response within marks": Case(
        _TOOLS + "{% for m in messages %}" + _ROLES + "<|bot|>"
        "{% if m.tool_calls %}<|START_THINKING|>{{ m.tool_plan }}<|END_THINKING|>"
        + _calls(
            '{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ c.function.name }}", "parameters": '
            "{{ c.function.arguments | tojson }}}",
            "<|START_ACTION|>[",
            "]<|END_ACTION|>",
            ", ",
        )
        + "{% else %}<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% endif %}<|fin|>{% endif %}{% endfor %}<|bot|>",
        special=(
            "<|h|>",
            "<|bot|>",
            "<|sys|>",
            "<|tool|>",
            "<|fin|>",
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            "<|START_ACTION|>",
            "<|END_ACTION|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
        ),
        can=frozenset({*_BOTH, "no text beside calls"}),
    ),
    "recipients before messages, calls as tags": Case(
        _turns(
            "{% if m.reasoning_content %}<|start|>assistant to=self<|message|>{{ m.reasoning_content }}<|eom|>{% endif %}"
            "{% for c in m.tool_calls or [] %}<|start|>assistant to={{ c.function.name }}<|message|><calls>"
            '<invoke name="{{ c.function.name }}">'
            + _ARGUMENTS
            + '<parameter name="{{ k }}">'
            + _VALUE
            + "</parameter>{% endfor %}</invoke></calls>{{ '<|eom|>' if not loop.last else '<|fin|>' }}{% endfor %}"
            "{% if not m.tool_calls %}<|start|>assistant to=user<|message|>{{ m.content }}<|fin|>{% endif %}",
            asks="<|start|>assistant",
        ),
        special=("<|h|>", "<|sys|>", "<|tool|>", "<|fin|>", "<|start|>", "<|message|>", "<|eom|>"),
        can=frozenset({*_BOTH, "no text beside calls"}),
    ),
    "text before calls that nothing marks": Case(
        _turns(
            "<|bot|>{% if m.tool_calls and m.content %}<|python_start|>{{ m.content }}<|python_end|>{% else %}{{ m.content or '' }}"
            "{% endif %}"
            + _calls('{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}')
            + "<|fin|>"
        ),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "<|python_start|>", "<|python_end|>"),
        can=_BOTH,
    ),
    "calls as Python within marks": Case(
        _turns(
            _TEXT
            + _calls(
                "{{ c.function.name }}("
                + _ARGUMENTS
                + "{{ k }}={{ '\\'' ~ v ~ '\\'' if v is string else v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %})",
                "<|tool_call_start|>[",
                "]<|tool_call_end|>",
                ", ",
            )
            + "<|fin|>\n"
        ),
        special=("<|h|>", "<|bot|>", "<|sys|>", "<|tool|>", "<|fin|>", "<|tool_call_start|>", "<|tool_call_end|>"),
        can=_BOTH,
    ),
    "text beside a call stands in a channel of its own": Case(
        _turns(
            "{% set last = loop.last %}{% for c in m.tool_calls or [] %}{% if loop.first and m.content %}<|start|>assistant"
            "<|channel|>analysis<|message|>{{ m.content }}<|end|>{% endif %}<|start|>assistant to=functions.{{ c.function.name }}"
            "<|channel|>commentary json<|message|>{{ c.function.arguments | tojson }}<|call|>{% else %}<|start|>assistant"
            "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if last else '<|end|>' }}{% endfor %}",
            asks="<|start|>assistant",
        ),
        eos="<|return|>",
        special=(
            "<|h|>",
            "<|sys|>",
            "<|tool|>",
            "<|fin|>",
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<|end|>",
            "<|return|>",
            "<|call|>",
        ),
        can=frozenset({*_BOTH, "one call", "no text beside calls"}),
    ),
}


def tokenizer_of(case: Case) -> PreTrainedTokenizerFast:
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in case.special])
    tokenizer.add_tokens([AddedToken(one, special=False, normalized=False) for one in case.plain])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=case.eos, pad_token=case.eos)
    fast.chat_template = case.template
    return fast
