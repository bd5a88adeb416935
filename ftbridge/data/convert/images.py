"""Images that stand beside the messages, with a mark `<image>` (or an empty image part) where each belongs.

Sources: LLaMA-Factory's data/README.md (`images` and `<image>`), TRL's documentation on vision datasets ({type: image} parts).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ftbridge.data.convert.fields import Document, Messages, ShapeError, WouldBeLost

MARK = "<image>"


def with_images(record: Document, lists: list[Messages]) -> None:
    """Take `images` out of a record, and put each where its mark is in the messages, as a part.

    Raises `ShapeError` where marks and images differ in number, and for images that are files or bytes: an example holds their
    address or a data: URL.
    """
    name = next((name for name in ("images", "image") if name in record), None)
    if name is None:
        return
    value = record.pop(name)
    images = value if isinstance(value, list) else [value] * (value not in (None, ""))
    marks = sum(_marks(message) for messages in lists for message in messages)
    if not images:
        return
    if not marks:
        raise WouldBeLost([name], f"no {MARK} in the messages shows where they belong")
    if marks != len(images):
        raise ShapeError(f"{name} has {len(images)}, and the messages have {marks} marks {MARK}")
    urls = iter([_url(image, f"{name}[{index}]") for index, image in enumerate(images)])
    for messages in lists:
        for message in messages:
            if _marks(message):
                message["content"] = list(_parts(message["content"], urls))


def _marks(message: Document) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return content.count(MARK)
    if not isinstance(content, list):
        return 0
    return sum(
        1 if _is_empty(part) else str(part.get("text") or "").count(MARK) for part in content if isinstance(part, dict)
    )


def _is_empty(part: Document) -> bool:
    return part.get("type") == "image" and len(part) == 1


def _parts(content: Any, urls: Iterator[str]) -> Iterator[Document]:
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if _is_empty(part):
            yield {"type": "image_url", "image_url": {"url": next(urls)}}
        elif part.get("type") != "text" or MARK not in str(part.get("text")):
            yield part
        else:
            for number, piece in enumerate(part["text"].split(MARK)):
                if number:
                    yield {"type": "image_url", "image_url": {"url": next(urls)}}
                if piece:
                    yield {"type": "text", "text": piece}


def _url(image: Any, at: str) -> str:
    if isinstance(image, dict):
        image = image.get("url", image.get("image_url", image.get("path")))
    if isinstance(image, dict):
        image = image.get("url")
    if isinstance(image, str) and image.startswith(("https://", "http://", "data:image/")):
        return image
    shown = f"the file {image}" if isinstance(image, str) else "no address"
    raise ShapeError(
        f"{at} is {shown}",
        hint="An example contains images by their https address, or as data:image/…;base64,….",
    )
