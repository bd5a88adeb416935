"""Chat templates written for these tests, in the manner of the major families. Tokens they use are added as special."""

CHATML = """{%- if messages[0].role != 'system' %}<|im_start|>system
You are helpful.<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

HEADERS = """{{ bos_token }}{% for m in messages %}<|start_header|>{{ m.role }}<|end_header|>

{{ m.content | trim }}<|eot|>{% endfor %}{% if add_generation_prompt %}<|start_header|>assistant<|end_header|>

{% endif %}"""

INST = """{{ bos_token }}{% set offset = 0 %}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}\
{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"""

TURNS = """{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}
{{ m.content | trim }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

# Tools as JSON, calls with arguments as an object, reasoning kept in the last turn alone.
THINKING = """{% if tools %}<|im_start|>system
{{ tools | map('tojson') | join('\\n') }}<|im_end|>
{% endif %}{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}\
{% endfor %}{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip('\\n') %}\
{% if loop.index0 > ns.last %}{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') if '</think>' in m.content \
else '' %}<think>
{{ thought }}
</think>

{% endif %}{{ said }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% elif m.role == 'tool' %}<tool_response>
{{ m.content }}
</tool_response>{% else %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

STRING_CALLS = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls or [] %}[call {{ c.function.name }} {{ c.function.arguments }}]{% endfor %}<|im_end|>
{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

MARKED = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}
{% else %}{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

DATED = """<|im_start|>system
Today is {{ strftime_now('%d %B %Y') }}.<|im_end|>
""" + MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")

LINES = """{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""

# Asks with reasoning opened, and drops all reasoning from what it writes.
REASONS = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""

NO_PROMPT = """{% for m in messages %}### {{ m.role }}:
{{ m.content }}<|im_end|>
{% endfor %}"""

NO_END = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PLAIN_END = """{% for m in messages %}<start>{{ m.role }}
{{ m.content }}<END>
{% endfor %}{% if add_generation_prompt %}<start>assistant
{% endif %}"""

LATE_SYSTEM_LOST = """{% for m in messages %}{% if m.role != 'system' or loop.first %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

NINE = THINKING.replace(
    "<tool_call>\n",
    "{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}<tool_call>\n",
)

FAMILIES = {
    # template, end of turn, tokens to add
    "chatml": (CHATML, "<|im_end|>", []),
    "headers": (HEADERS, "<|eot|>", ["<|start_header|>", "<|end_header|>", "<|eot|>"]),
    "inst": (INST, "</s>", ["</s>"]),
    "turns": (TURNS, "<end_of_turn>", ["<start_of_turn>", "<end_of_turn>"]),
    "thinking": (THINKING, "<|im_end|>", []),
    "string calls": (STRING_CALLS, "<|im_end|>", []),
    "marked": (MARKED, "<|im_end|>", []),
    "dated": (DATED, "<|im_end|>", []),
    "reasons": (REASONS, "<|im_end|>", []),
    "no prompt": (NO_PROMPT, "<|im_end|>", []),
    "plain end": (PLAIN_END, "<END>", []),
}
