"""What the rules of images say, where targets differ, and what their repairs write."""

import json
import time
from pathlib import Path

import pytest

from ftbridge.data.lint import Options, lint
from ftbridge.data.lint.rules import Context
from ftbridge.data.lint.rules.specimens import GOOD_IMAGE, assistant, chat, image, text, user
from ftbridge.data.targets import TARGETS
from support.rule_cases import GIF, JPEG, PNG, WEBP, data_url
from support.rule_verdicts import problems_in, repaired, severities


def _shown(url: str, **more: str) -> str:
    return chat(user([text(), image(url, **more)]), assistant())


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        (GOOD_IMAGE, "FTB079", {"openai": None, "azure": None, "nebius": None, "local": "error"}),
        (chat(user([image()] * 11), assistant()), "FTB075", {"openai": "error", "azure": None, "nebius": "error", "local": None}),
        (chat(user([image()] * 65), assistant()), "FTB075", {"openai": "error", "azure": "error", "nebius": "error", "local": None}),
        (_shown("file:///cat.png"), "FTB072", {"openai": "warning", "azure": "warning", "nebius": "warning", "local": None}),
    ],
)  # fmt: skip
def test_how_bad_it_is_depends_on_where_the_file_goes(line: str, code: str, expected: dict[str, str | None]) -> None:
    assert severities(line, code) == expected


@pytest.mark.parametrize(
    "url",
    [
        data_url("image/png", PNG),
        data_url("IMAGE/JPEG", JPEG),
        data_url("image/webp", WEBP, 59),
        data_url("image/png;charset=utf-8", PNG, 58),
        "https://example.com/a%20b.png#part",
        "http://1.1.1.1/cat.jpeg",
        "https://10.example.com/cat",
        "HTTPS://EXAMPLE.COM/CAT.JPG",
        "https://example.com/gif",
    ],
)
def test_an_image_that_can_be_read_is_no_problem(url: str) -> None:
    assert problems_in(_shown(url), Context()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("cat.png", "on one machine"),
        ("/home/ann/cat.png", "on one machine"),
        ("ftp://example.com/cat.png", "on one machine"),
        ("http://[::1]/cat.png", "no service can reach"),
        ("http://192.168.1.7/cat.png", "no service can reach"),
        ("http://host.docker.internal/cat.png", "no service can reach"),
        ("https://files.local/cat.png", "no service can reach"),
        ("https://", "no service can reach"),
        ("http://[cat", "is not an address"),
        ("https://example.com/cat.svg", "looks like SVG"),
        (data_url("image/svg+xml", b"<svg>"), "media type"),
        (data_url("image/png", GIF), "is GIF"),
        (data_url("image/png", JPEG), "Write image/jpeg."),
        (data_url("image/png", b"hello"), "does not begin as"),
        ("data:image/png;base64,", "not valid base64"),
        ("data:image/png;base64,iVBORw0K_g==", "not valid base64"),
        ("data:image/png;base64,iVBO=w0KGgoA", "not valid base64"),
        ("data:;base64,iVBORw0KGgo=", "media type"),
    ],
)
def test_an_image_that_would_be_skipped_is_told_with_the_reason(url: str, message: str) -> None:
    ((_, problem),) = problems_in(_shown(url), Context())

    assert problem.field == "messages[0].content[1].image_url.url"
    assert message in problem.message


@pytest.mark.parametrize(
    ("broken", "complete"),
    [
        ({"type": "image_url", "image_url": "https://example.com/a.png"}, image("https://example.com/a.png")),
        (image(detail="Low "), image(detail="low")),
        (image(detail=None), image()),
        (image(id="png"), image()),
    ],
)
def test_a_repair_writes_what_was_meant(broken: dict[str, object], complete: dict[str, object]) -> None:
    assert repaired(chat(user([text(), broken]), assistant())) == json.loads(
        chat(user([text(), complete]), assistant())
    )


@pytest.mark.parametrize(
    ("model", "target", "warned"),
    [
        (None, "openai", False),
        ("gpt-4o-2024-08-06", "openai", False),
        ("ft:gpt-4o-2024-08-06:acme::1", "openai", False),
        ("gpt-4o-mini-2024-07-18", "openai", True),
        ("gpt-4.1-2025-04-14", "openai", True),
        ("gpt-4.1-2025-04-14", "azure", False),
    ],
)
def test_a_model_that_is_not_trained_with_images_is_named(model: str | None, target: str, warned: bool) -> None:
    codes = {code for code, _ in problems_in(GOOD_IMAGE, Context(target=TARGETS[target], model=model))}

    assert ("FTB078" in codes) is warned


def test_ten_megabytes_of_an_image_are_judged_in_no_time_and_told_when_they_are_more() -> None:
    began = time.perf_counter()
    large, small = data_url("image/png", PNG, 10_000_001), data_url("image/png", PNG, 10_000_000)

    assert "10.0 MB" in problems_in(_shown(large), Context())[0][1].message
    assert problems_in(_shown(small), Context()) == []
    assert time.perf_counter() - began < 10


def test_a_file_has_no_more_examples_with_images_than_the_service_takes(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f"{GOOD_IMAGE}\n" * 50_001)
    options = Options(select=("FTB214",), jobs=1)

    assert [finding.code for finding in lint(path, options).files[0].findings] == ["FTB214"]
