"""Rules about texts: marks that services refuse, characters nobody meant, and what was left behind by a program.

They read every string a model reads or writes. Their screens say where to look; see `screens`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from ftbridge.data.lint.rule import Context, Problem, rule
from ftbridge.data.lint.screens import any_of, characters, drawn, lone_surrogates, pattern


def _line(question: str, completion: str = "Paris") -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": completion}]
    return json.dumps({"messages": messages})


_GOOD = _line("Capital of France?")

# Tokens spelled out

_SPECIAL = re.compile(r"<\|(?:endoftext|endofprompt|fim_prefix|fim_suffix|fim_middle)\|>")
_TEMPLATE = re.compile(
    r"<\|(?:endoftext|im_start|im_end|im_sep|begin_of_text|end_of_text|start_header_id|end_header_id|eot_id|eom_id|"
    r"python_tag|finetune_right_pad_id|start_of_role|end_of_role|system|user|assistant|end|start|channel|message|return|"
    r"call|tool_call|tool_response|endofprompt|fim_prefix|fim_suffix|fim_middle|box_start|box_end|vision_start|"
    r"vision_end|image_pad)\|>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|"
    r"TOOL_RESULTS|SYSTEM_PROMPT)\]|<\uff5c(?:begin|end)\u2581of\u2581sentence\uff5c>|<\uff5c(?:User|Assistant)\uff5c>|"
    r"\A\s*<s>(?![^<]*</s>)|</s>\s*\Z|<s>(?=\s*\[)|</s>(?=\s*<s>)"
)


@rule(
    "FTB100",
    "special-token",
    kind="text",
    severity="error",
    severities={"nebius": None, "local": None},
    reason="OpenAI refuses the file: a message contains an invalid token.",
    source="OpenAI's server, as reported in johny-b/llmcomp#59 (2026-02-12); llmcomp 1.6.0 checks text parts too",
    bad=_line("What does <|endoftext|> mean?"),
    good=_line("What does endoftext mean?"),
    screen=any_of(pattern(rb"<\|endo"), pattern(rb"<\|fim_")),
)
def special_token(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a token that OpenAI keeps for itself."""
    for match in _distinct(_SPECIAL.finditer(text)):
        description = f"holds the special token {match[0]}, which {context.target.title} refuses. Spell it another way."
        yield Problem("", description, span=match.span())


@rule(
    "FTB101",
    "template-token",
    kind="text",
    severity="info",
    severities={"nebius": "warning", "local": "warning"},
    reason="A chat template adds these marks itself; inside a message they end a turn too early, or show that the data "
    "was already rendered by a template.",
    source="the chat templates of Llama 2 and 3, Mistral, Gemma, Qwen, Phi, DeepSeek, gpt-oss and ChatML",
    bad=_line("<|im_start|>user\nCapital of France?<|im_end|>"),
    good=_GOOD,
    screen=any_of(
        pattern(rb"<(?:\|[a-z_]+\||(?:\\?/)?s)>"),
        pattern(rb"_of_turn>"),
        pattern(rb"SYS>>"),
        drawn(b"AAAA]", confirmed=rb"INST|OOLS|ALLS|ULTS|OMPT"),
        characters(rb"<\xef\xbd\x9c", rb"ff5c"),
    ),
)
def template_token(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a chat template's own token."""
    refused = context.target.refuses_special_tokens
    struck_through = "<s>" in text
    tokens = [
        (match, token)
        for match in _distinct(_TEMPLATE.finditer(text))
        if not ((token := match[0].strip()) and refused and _SPECIAL.fullmatch(token))
        and not (token == "</s>" and struck_through)
    ]
    for match, token in tokens[:1]:
        others = f" and {len(tokens) - 1} other such marks" if len(tokens) > 1 else ""
        detail = (
            f"holds {token}{others}, which chat templates write between messages. Remove it; the template adds its own."
        )
        start = match.start() + match[0].index(token)
        yield Problem("", detail, span=(start, start + len(token)))


@rule(
    "FTB111",
    "image-mark",
    kind="text",
    severity="warning",
    reason="Other trainers put an image where the mark stands; here the mark is text, and no image stands in its place.",
    source="The formats of LLaVA, LLaMA-Factory and ms-swift: <image> in a text, beside a list of images",
    bad=_line("<image>What is this?"),
    good=_line("What is an image?"),
    screen=pattern(rb"<image>"),
)
def image_mark(text: str, context: Context) -> Iterator[Problem]:
    """A text holds <image>, the mark that other formats replace with an image."""
    for match in _distinct(re.finditer("<image>", text)):
        detail = (
            "holds <image>, which is read as text. Put the image into the message as an image_url part, or remove it."
        )
        yield Problem("", detail, span=match.span())


# Characters


@rule(
    "FTB102",
    "lone-surrogate",
    kind="text",
    severity="warning",
    reason="Half of a surrogate pair is not a character: it cannot be written as UTF-8, and readers refuse or replace it.",
    source="RFC 8259 section 8.2: the behaviour of software that receives it is unpredictable",
    bad=_line("Smile \ud83d"),
    good=_line("Smile \U0001f642"),
    screen=lone_surrogates,
)
def lone_surrogate(text: str, context: Context) -> Iterator[Problem]:
    """A text holds half of a surrogate pair."""
    yield from _first(
        re.finditer("[\ud800-\udfff]", text),
        lambda match: f"holds \\u{ord(match[0]):04x}, half of a character. Write the whole character, or remove it.",
    )


@rule(
    "FTB103",
    "nul-character",
    kind="text",
    severity="warning",
    reason="Software written in C ends a text at NUL; it is never there on purpose.",
    source="RFC 8259 section 9: a parser may limit what strings contain; PostgreSQL refuses \\u0000 in JSON text",
    bad=_line("Capital\u0000 of France?"),
    good=_GOOD,
    screen=characters(rb"\x00", rb"0000"),
)
def nul_character(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a NUL character."""
    yield from _first(re.finditer("\0", text), lambda _: "holds a NUL character (\\u0000). Remove it.")


_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x01-\x07\x0e-\x1f\x7f-\x84\x86-\x9f]")


@rule(
    "FTB104",
    "control-character",
    kind="text",
    severity="info",
    reason="Control characters come from terminals and old encodings; a model learns to write them.",
    source="Unicode 16, general category Cc; ECMA-48 for terminal escapes",
    bad=_line("Capital of France?", "\x1b[1mParis\x1b[0m"),
    good=_GOOD,
    screen=any_of(pattern(rb"\x7f"), characters(rb"\xc2[\x80-\x9f]", rb"00(?:[0189]|7f)")),
)
def control_character(text: str, context: Context) -> Iterator[Problem]:
    """A text holds control characters other than tabs and line breaks."""

    def describe(match: re.Match[str]) -> str:
        what = "a terminal's escape code" if match[0].startswith("\x1b[") else "a control character"
        return f"holds {what} ({_spelled(match[0])}). Remove it unless the model should read or write it."

    yield from _first(_CONTROL.finditer(text), describe)


@rule(
    "FTB105",
    "replacement-character",
    kind="text",
    severity="info",
    reason="U+FFFD replaces a character that could not be decoded: the original is lost.",
    source="Unicode 16, section 23.8: replacement character",
    bad=_line("Caf\ufffd in Paris?"),
    good=_line("Caf\u00e9 in Paris?"),
    screen=characters(rb"\xef\xbf\xbd", rb"fffd"),
)
def replacement_character(text: str, context: Context) -> Iterator[Problem]:
    """A text holds U+FFFD, the mark of a character that was lost."""
    yield from _first(
        re.finditer("\ufffd+", text),
        lambda _: (
            "holds U+FFFD, which replaces characters that were lost. Read the source again in its original encoding."
        ),
    )


_CP1252 = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0))
_TAIL = f"[{re.escape(_CP1252)}\x80-\xbf]"
_MOJIBAKE = re.compile(
    f"[\xc3\xc5]{_TAIL}|\xc2[\xa0-\xbf]|\xe2[\u20ac\x80][{re.escape(_CP1252)}\x80-\xbf]|\xf0\u0178{_TAIL}{{2}}"
)


@rule(
    "FTB106",
    "mojibake",
    kind="text",
    severity="info",
    reason="UTF-8 that was read as Windows-1252 or Latin-1 has two or three wrong letters for each right one.",
    source="the WHATWG Encoding standard's tables; Wikipedia, Mojibake",
    bad=_line("Caf\u00c3\u00a9 in Paris?"),
    good=_line("Caf\u00e9 in Paris?"),
    screen=any_of(
        characters(rb"\xc3[\x82\x83]", rb"00c[23]"),
        characters(rb"\xc3\xa2[\xe2\xc2\\]", rb"00e2"),
        characters(rb"\xc3\xb0[\xc5\\]", rb"00f0"),
        characters(rb"\xc3\x85[\xc2\xc5\xc6\xcb\xe2\\]", rb"00c5"),
    ),
)
def mojibake(text: str, context: Context) -> Iterator[Problem]:
    """A text was decoded in the wrong encoding."""
    matches = [(match, meant) for match in _MOJIBAKE.finditer(text) if (meant := _meant(match[0]))]
    for match, meant in matches[:1]:
        description = f"reads “{match[0]}” where “{meant}” was meant: UTF-8 read in another encoding."
        yield Problem("", description + _and_more(len(matches) - 1), span=match.span())


def _meant(wrong: str) -> str:
    """The character that was meant; empty when this is no wrongly decoded character, or a rare one."""
    try:
        raw = b"".join(c.encode("latin-1") if ord(c) < 0x100 else c.encode("cp1252") for c in wrong)
        meant = raw.decode()
    except UnicodeError:
        return ""
    # Two letters that may well stand side by side, as in Å¡ or Ã¢: only what they would mean is common.
    return meant if len(meant) == 1 and (wrong[0] != "\xc5" or meant in "šŠžŽőŐűŰřŘłŁňńŃśŚşŞťŤůŮźżŹŻœŒŸ") else ""


_INVISIBLE = re.compile("[\u200b\u2060\ufeff]|(?<!\U0001f3f4)(?<![\U000e0020-\U000e007e])[\U000e0001-\U000e007f]+")
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


@rule(
    "FTB107",
    "invisible-character",
    kind="text",
    severity="info",
    reason="Zero-width and tag characters are invisible, but a model reads and learns them; they can hide text.",
    source="Unicode 16, section 23.2 (layout controls) and 23.9 (tag characters)",
    bad=_line("Capital\u200b of France?"),
    good=_GOOD,
    screen=any_of(
        characters(rb"\xe2\x80\x8b", rb"200b"),
        characters(rb"\xe2\x81\xa0", rb"2060"),
        characters(rb"\xef\xbb\xbf", rb"feff"),
        characters(rb"\xf3\xa0[\x80\x81]", rb"db40"),
    ),
)
def invisible_character(text: str, context: Context) -> Iterator[Problem]:
    """A text holds characters that cannot be seen."""
    yield from _first(
        _INVISIBLE.finditer(text), lambda match: f"holds {_spelled(match[0])}, which is invisible. Remove it."
    )


@rule(
    "FTB108",
    "direction-control",
    kind="text",
    severity="info",
    reason="Bidirectional controls make a text look different from what it contains; in code they hide what is run.",
    source="Boucher and Anderson, Trojan Source (2021), CVE-2021-42574; Unicode Technical Report 36",
    bad=_line("Is \u202etxt.exe safe?"),
    good=_line("Is exe.txt safe?"),
    screen=any_of(characters(rb"\xe2\x80[\xaa-\xae]", rb"202[a-e]"), characters(rb"\xe2\x81[\xa6-\xa9]", rb"206[6-9]")),
)
def direction_control(text: str, context: Context) -> Iterator[Problem]:
    """A text holds characters that turn the direction of writing."""
    yield from _first(
        _DIRECTION.finditer(text),
        lambda match: f"holds {_spelled(match[0])}, which changes the order in which text is shown. Remove it.",
    )


# What programs leave behind

_PLACEHOLDER = re.compile(
    r"(?<!\{)\{\{ *[A-Za-z_][\w.]{0,60} *\}\}(?!\})|\[(?i:your|insert|add your|company|customer) [^\[\]\n]{2,40}\]",
    re.ASCII,
)


@rule(
    "FTB109",
    "placeholder",
    kind="text",
    severity="info",
    reason="A placeholder that was not filled in is learnt literally.",
    source="Mustache, Jinja and Handlebars syntax; letters written by chat models",
    bad=_line("Hello {{customer_name}}, where is my parcel?"),
    good=_line("Hello Ann, where is my parcel?"),
    screen=any_of(pattern(rb"\{\{ *[A-Za-z_]"), pattern(rb"\[(?i:your|insert|add your|company|customer) ")),
)
def placeholder(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a placeholder that was not filled in."""
    if "```" in text or "{%" in text:  # code, or a template that is the subject
        return
    yield from _first(
        _PLACEHOLDER.finditer(text), lambda match: f"holds {match[0]}, which looks like a placeholder. Fill it in."
    )


_ENTITY = re.compile(r"&(?:nbsp|amp|quot|lt|gt|apos|#39|#x27|#34);", re.IGNORECASE | re.ASCII)


@rule(
    "FTB110",
    "html-entity",
    kind="text",
    severity="info",
    reason="Text was taken from a web page without decoding, so a model learns to write &amp;quot; for a quotation mark.",
    source="HTML Living Standard, section 13.5: named character references",
    bad=_line("Rock &amp; roll?"),
    good=_line("Rock & roll?"),
    screen=pattern(rb"&(?i:nbsp|amp|quot|lt|gt|apos|#39|#x27|#34);"),
)
def html_entity(text: str, context: Context) -> Iterator[Problem]:
    """A text outside HTML holds HTML entities."""
    if "</" in text or "/>" in text or "```" in text or "`&" in text:  # HTML itself, or code
        return
    yield from _first(_ENTITY.finditer(text), lambda match: f"holds the HTML entity {match[0]}. Decode the text.")


# Telling


def _distinct(matches: Iterator[re.Match[str]]) -> Iterator[re.Match[str]]:
    """The first of each, at most 20."""
    seen: set[str] = set()
    for match in matches:
        if match[0] not in seen and len(seen) < 20:
            seen.add(match[0])
            yield match


def _first(matches: Iterator[re.Match[str]], describe: Callable[[re.Match[str]], str]) -> Iterator[Problem]:
    """One problem for all matches, at the first."""
    match = next(matches, None)
    if match is not None:
        yield Problem("", describe(match) + _and_more(sum(1 for _ in matches)), span=match.span())


def _and_more(count: int) -> str:
    return f" {count:,} more like it follow." if count > 1 else " One more like it follows." if count else ""


def _spelled(characters: str) -> str:
    """Code points, as U+200B; at most three."""
    shown = " ".join(f"U+{ord(character):04X}" for character in characters[:3])
    return shown + " …" * (len(characters) > 3)
