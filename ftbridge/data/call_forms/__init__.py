"""Forms of tool calls as text, one of each kind that chat templates write, each with its reader.

    marked JSON       <tool_call>{"name": …, "arguments": {…}}</tool_call>    [TOOL_CALLS][{…}]
    name, then JSON   [TOOL_CALLS]look_up[ARGS]{…}    <function=look_up>{…}</function>
    tags              <function=look_up><parameter=city>Lima</parameter></function>
    Python            [look_up(city="Lima")]    call:look_up{city:<|"|>Lima<|"|>}

A form reads all calls of a completion or raises `NotACall`: half a call is text.
"""

from ftbridge.data.call_forms.calls import Call, CallForm, NotACall, Tools, as_json, json_or_text, whole_characters
from ftbridge.data.call_forms.table import FORMS, HARMONY, HERMES
from ftbridge.data.call_forms.tag_forms import invokes

__all__ = [
    "FORMS",
    "HARMONY",
    "HERMES",
    "Call",
    "CallForm",
    "NotACall",
    "Tools",
    "as_json",
    "invokes",
    "json_or_text",
    "whole_characters",
]
