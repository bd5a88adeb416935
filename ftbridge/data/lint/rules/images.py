"""Rules about images: who shows them, where they come from, what they are. Headers are read; no image is decoded."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ftbridge.data.lint.meaning import stray
from ftbridge.data.lint.rule import Line, Problem, kind_of, rule
from ftbridge.data.lint.rules.specimens import GOOD_IMAGE, assistant, chat, image, text, user
from ftbridge.data.lint.structure import LLMCOMP, SUPERVISED_SCHEMA, ContentPart, dropped, parts, put, shown
from ftbridge.data.targets import MB

VISION = "OpenAI vision fine-tuning guide"
LARGEST_IMAGE = 10 * MB
"""Bytes of one image."""

_HERE: dict[str, None] = {"local": None}
"""On this machine no image is trained on, which FTB079 tells."""


@rule(
    "FTB070",
    "image-not-from-user",
    kind="line",
    severity="error",
    severities=_HERE,
    reason="Only user messages can contain images; a model does not learn to produce them.",
    source=f"{VISION}; {SUPERVISED_SCHEMA}: image parts in user messages only; {LLMCOMP}",
    bad=chat(user(), assistant([image()])),
    good=GOOD_IMAGE,
)
def image_not_from_user(line: Line) -> Iterator[Problem]:
    """An image stands in a message that is not the user's."""
    for part in _images(line):
        if part.spot.role and part.spot.role != "user":
            yield Problem(part.at, f"is an image in a {part.spot.role} message. Move it to a user message.")


@rule(
    "FTB071",
    "image-shape",
    kind="line",
    severity="error",
    severities=_HERE,
    reason="An image part needs image_url, an object with the url.",
    source=f"{SUPERVISED_SCHEMA}, ChatCompletionRequestMessageContentPartImage",
    bad=chat(user([{"type": "image_url", "image_url": "https://example.com/cat.png"}]), assistant()),
    good=GOOD_IMAGE,
    fixable=True,
)
def image_shape(line: Line) -> Iterator[Problem]:
    """An image part lacks its image_url object, or the url in it."""
    for part in _images(line):
        at = f"{part.at}.image_url"
        image = part.value.get("image_url")
        if isinstance(image, str):
            repair = put(part.value, "image_url", {"url": image}, "put the address under url")
            yield Problem(at, "is text. Write an object with url.", repair)
        elif not isinstance(image, dict):
            what = f"is {kind_of(image)}" if "image_url" in part.value else "is missing"
            yield Problem(at, f"{what}. Write an object with url.")
        else:
            url = image.get("url")
            if not isinstance(url, str) or not url.strip():
                what = (
                    "is missing" if "url" not in image else "is empty" if isinstance(url, str) else f"is {kind_of(url)}"
                )
                yield Problem(f"{at}.url", f"{what}. Write an https address, or the image as a data: URL.")
            for key in [key for key in image if key not in ("url", "detail")]:
                advice = stray(image, key)
                yield Problem(
                    f"{at}.{key}", f"is not a key of images. {advice.hint}", advice.repair, severity="warning"
                )


@rule(
    "FTB072",
    "image-unreachable",
    kind="line",
    severity="warning",
    severities=_HERE,
    reason="The service fetches images itself, and silently skips those that it cannot reach.",
    source=f"{VISION}: images at addresses that cannot be fetched are skipped",
    bad=chat(user([text(), image("file:///home/ann/cat.png")]), assistant()),
    good=GOOD_IMAGE,
)
def image_unreachable(line: Line) -> Iterator[Problem]:
    """An image's address is none the service can fetch."""
    for at, url in _urls(line):
        if url[:5].lower() == "data:":
            continue
        try:
            parsed = urlsplit(url)
            host = parsed.hostname or ""
        except ValueError:
            yield Problem(at, "is not an address. Write an https address, or the image as a data: URL.")
            continue
        if parsed.scheme not in ("http", "https"):
            description = "is a path or address on one machine, which no service can fetch; the image is skipped."
            yield Problem(at, f"{description} Write the image as a data: URL.")
        elif _private(host):
            yield Problem(at, f"is at {host or 'no host'}, which no service can reach; the image is skipped.")
        elif parsed.path.lower().endswith((".gif", ".bmp", ".svg", ".tif", ".tiff", ".heic", ".avif", ".ico", ".pdf")):
            ending = parsed.path.rsplit(".", 1)[-1].upper()
            yield Problem(at, f"looks like {ending}; images other than JPEG, PNG and WEBP are skipped. Convert it.")


def _private(host: str) -> bool:
    """Whether a host is known on one machine or in one network only."""
    if host in ("", "localhost") or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return False


_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
_HEADERS = {"JPEG": (b"\xff\xd8\xff",), "PNG": (b"\x89PNG\r\n\x1a\n",), "GIF": (b"GIF87a", b"GIF89a"), "BMP": (b"BM",)}
_TAKEN = {"image/jpeg": "JPEG", "image/jpg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


@rule(
    "FTB073",
    "image-data",
    kind="line",
    severity="warning",
    severities=_HERE,
    reason="Images that are not JPEG, PNG or WEBP, cannot be read, or have more than 10 MB are skipped without an error.",
    source=f"{VISION}: formats and size; RFC 2397 for data: URLs",
    bad=chat(user([text(), image("data:image/gif;base64,R0lGODlhAQABAAAAACw=")]), assistant()),
    good=chat(user([text(), image("data:image/png;base64,iVBORw0KGgo=")]), assistant()),
)
def image_data(line: Line) -> Iterator[Problem]:
    """An image in a data: URL is broken, too large, or of a format that is skipped."""
    for at, url in _urls(line):
        if url[:5].lower() != "data:":
            continue
        if problem := _data_problem(url):
            yield Problem(at, problem)


def _data_problem(url: str) -> str | None:
    header = _DATA_URL.match(url, 0, 200)
    if not header or ";base64" not in header[2].lower():
        return "is a data: URL without base64; the image is skipped. Write data:image/png;base64, and the bytes."
    kind = header[1].lower()
    if kind not in _TAKEN:
        return f"has the media type {shown(kind)}; images other than JPEG, PNG and WEBP are skipped. Convert it."
    body = url[header.end() :].rstrip()
    size = len(body) * 3 // 4 - body[-2:].count("=")
    if size > LARGEST_IMAGE:
        return f"has {size / MB:,.1f} MB; images of more than 10 MB are skipped. Make it smaller."
    try:
        if not body.isascii() or len(body) % 4 or not body:
            raise ValueError
        begins = base64.b64decode(body[:64], validate=True) if len(body) > 64 else base64.b64decode(body, validate=True)
        ends = base64.b64decode(body[-64:], validate=True)
    except (ValueError, binascii.Error):
        return "is not valid base64; the image is skipped. Encode it again."
    if not ends or "=" in body[:-2] or re.search(r"[^A-Za-z0-9+/=]", body):
        return "is not valid base64; the image is skipped. Encode it again."
    image_format = _format(begins)
    if image_format is None:
        return "does not begin as a JPEG, PNG or WEBP image does; it is skipped. Encode the image again."
    if image_format not in _TAKEN.values():
        return f"is {image_format}, whatever its media type says; it is skipped. Convert it to JPEG, PNG or WEBP."
    return (
        f"is {image_format}, but its media type says {kind}. Write image/{image_format.lower()}."
        if image_format != _TAKEN[kind]
        else None
    )


def _format(begins: bytes) -> str | None:
    if begins[:4] == b"RIFF" and begins[8:12] == b"WEBP":
        return "WEBP"
    return next((name for name, marks in _HEADERS.items() if begins.startswith(marks)), None)


@rule(
    "FTB074",
    "image-detail",
    kind="line",
    severity="error",
    severities=_HERE,
    reason="detail must be auto, low or high.",
    source=f"{SUPERVISED_SCHEMA}: detail, enum auto, low, high",
    bad=chat(user([text(), image(detail="High")]), assistant()),
    good=chat(user([text(), image(detail="low")]), assistant()),
    fixable=True,
)
def image_detail(line: Line) -> Iterator[Problem]:
    """An image's detail is not a known word."""
    for part in _images(line):
        image = part.value.get("image_url")
        if not isinstance(image, dict) or "detail" not in image:
            continue
        detail, at = image["detail"], f"{part.at}.image_url.detail"
        if detail in ("auto", "low", "high"):
            continue
        if detail is None:
            yield Problem(at, "is null. Leave the key out.", dropped(image, "detail"), severity="warning")
            continue
        plain = detail.strip().lower() if isinstance(detail, str) else ""
        repair = put(image, "detail", plain, f"wrote {plain}") if plain in ("auto", "low", "high") else None
        yield Problem(at, f"is {shown(detail)}. Write auto, low or high.", repair)


@rule(
    "FTB075",
    "too-many-images",
    kind="line",
    severity="error",
    severities=_HERE,
    reason="An example has at most 10 images (64 on Azure).",
    source=f"{VISION}: 10 images an example; Microsoft's vision fine-tuning guide: 64",
    bad=chat(user([image()] * 11), assistant()),
    good=GOOD_IMAGE,
)
def too_many_images(line: Line) -> Iterator[Problem]:
    """An example has more images than the service takes."""
    most, count = line.context.target.images_per_example, sum(1 for _ in _images(line))
    if most is not None and count > most:
        at = line.conversations[0].at if line.conversations else "messages"
        yield Problem(at, f"has {count} images; {line.context.target.title} takes {most} an example. Split it.")


@rule(
    "FTB078",
    "model-without-images",
    kind="line",
    severity="warning",
    severities={"nebius": None, "local": None},
    reason="Only vision models can be fine-tuned with images.",
    source=f"{VISION}: gpt-4o-2024-08-06; Microsoft: also gpt-4.1",
    bad=GOOD_IMAGE,
    good=chat(user([text()]), assistant()),
)
def model_without_images(line: Line) -> Iterator[Problem]:
    """An example has an image, but the model that is named is not fine-tuned with images."""
    model = (line.context.model or "").removeprefix("ft:")
    seeing = ("gpt-4o", "gpt-4.1") if line.context.target.name == "azure" else ("gpt-4o",)
    blind = model.startswith("gpt-4o-mini") or not model.startswith(seeing)
    if model and blind and (part := next(_images(line), None)):
        yield Problem(part.at, f"is an image, but {model} is not fine-tuned with images. Choose gpt-4o-2024-08-06.")


@rule(
    "FTB079",
    "image-on-this-machine",
    kind="line",
    severity="error",
    severities={"openai": None, "azure": None, "nebius": None},
    reason="Local training reads text only.",
    source="ftbridge: the local provider refuses parts that are not text",
    bad=GOOD_IMAGE,
    good=chat(user([text()]), assistant()),
)
def image_on_this_machine(line: Line) -> Iterator[Problem]:
    """An example has an image, and is for this machine."""
    for part in _images(line):
        yield Problem(
            part.at, "is an image: training on this machine reads text only. Remove it, or use target openai."
        )


def _images(line: Line) -> Iterator[ContentPart]:
    return (part for part in parts(line) if part.type == "image_url" and isinstance(part.value, dict))


def _urls(line: Line) -> Iterator[tuple[str, str]]:
    """Every image's address, with its path."""
    for part in _images(line):
        image = part.value.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if isinstance(url, str) and url.strip():
            yield f"{part.at}.image_url" + (".url" if isinstance(image, dict) else ""), url
