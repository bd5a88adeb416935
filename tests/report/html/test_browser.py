"""The page in a real browser: filters, themes, phone, paper, without scripts, and with what hostile answers hold."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from ftbridge.planning.plan import plan
from ftbridge.report.html import write_report
from ftbridge.spec import SpecFile
from support.completions_page import EXACT, NAMED, answers_page
from support.finished_run import finished_run, judged_more

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
AXE = os.environ.get("AXE_CORE")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
HOSTILE = "</script></style></p><img src='https://evil.example/x.png' onerror='document.title=1'><script>document.title=2</script>"
RTL = "\u202eמשלוח אל הבית\u202c"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """60 items: 30 alike, 20 that became better, 10 worse."""
    requests = [(f"Where is parcel {n}?", f"delivery {n}") for n in range(60)]
    base = [f"delivery {n}" if n < 40 else "no idea" for n in range(60)]
    tuned = ["refund" if 30 <= n < 40 else f"delivery {n}" for n in range(60)]
    return answers_page(tmp_path_factory.mktemp("plain"), requests, {"base": base, "tuned": tuned})


@pytest.fixture(scope="module")
def full_page(tmp_path_factory):
    """A run's page with every section that there is."""
    folder = tmp_path_factory.mktemp("whole")
    with finished_run(folder, r"\d*[0-8]") as run:
        judged_more(run)
        estimate = plan(SpecFile.of(run.spec().model_dump(exclude_unset=True)))
        (run.path / "plan.json").write_text(estimate.model_dump_json())
        return write_report([run], folder / "page.html")


@pytest.fixture
def opened(browser):
    """Opens a page, and keeps what the console and the network said."""
    contexts = []

    def opening(path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.messages, page.addresses = [], []
        page.on("console", lambda message: page.messages.append(message.text))
        page.on("pageerror", lambda error: page.messages.append(str(error)))
        page.on("request", lambda request: page.addresses.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opening
    for context in contexts:
        context.close()


def _shown(page):
    return page.locator(".item:not([hidden])").count()


def _too_wide(page):
    """Elements that make the page scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_it_loads_without_a_console_message_or_a_request_beyond_itself(opened, plain):
    page = opened(plain)
    assert page.messages == []
    assert page.addresses == [plain.as_uri()]
    assert page.title() == "answers: ftbridge report"


def test_the_filter_leaves_regressions_and_the_search_leaves_what_holds_the_text(opened, plain):
    page = opened(plain)
    assert _shown(page) == 60
    page.get_by_role("button", name="Worse (10)").click()
    assert _shown(page) == 10
    assert page.get_by_role("status").inner_text() == "10 of 60 items"
    page.get_by_role("searchbox").fill("parcel 33?")
    assert _shown(page) == 1
    page.get_by_role("searchbox").fill("nowhere to be found")
    assert _shown(page) == 0
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="All (60)").click()
    assert _shown(page) == 60


@pytest.fixture(scope="module")
def rivals(tmp_path_factory):
    """40 items of two kinds, two graders, three candidates: few_shot beats tuned, tuned beats base."""
    kinds = [("delivery", "refund")[n % 2] for n in range(40)]
    requests = [(f"Where is {n}?", f"{kind} {n}", {"kind": kind}) for n, kind in enumerate(kinds)]
    right = [expected for _, expected, _ in requests]
    base = ["no idea"] * 40
    tuned = [reply if n < 20 else kinds[n] if n < 24 else "no idea" for n, reply in enumerate(right)]
    candidates = {"base": base, "few_shot": right, "tuned": tuned}
    pairs = [("few_shot", "base"), ("tuned", "base"), ("tuned", "few_shot")]
    return answers_page(tmp_path_factory.mktemp("rivals"), requests, candidates, (EXACT, NAMED), pairs)


def test_a_rival_that_wins_stands_first_and_every_grader_and_rival_has_a_row(opened, rivals):
    page = opened(rivals)
    assert page.locator("#summary .verdict").inner_text() == "few_shot is better than tuned on exact and named."
    rows = page.locator("#summary tbody tr")
    assert rows.count() == 6
    assert [rows.nth(where).locator("th").inner_text() for where in (0, 1)] == ["tuned against few_shot"] * 2
    assert [rows.nth(where).locator(".pill").inner_text()[2:] for where in (0, 5)] == ["worse", "better"]
    assert page.locator("#scores tbody tr").count() == 3
    assert page.locator("#scores svg").count() == 6


def test_filters_by_grader_and_by_slice_work_together(opened, rivals):
    page = opened(rivals)
    page.get_by_role("combobox", name="Slice").select_option("kind=refund")
    assert _shown(page) == 20
    page.get_by_role("button", name="Better").click()
    assert _shown(page) == 20
    page.get_by_role("combobox", name="Grader").select_option(label="named")
    page.get_by_role("button", name="Unchanged").click()
    assert _shown(page) == 0
    page.get_by_role("combobox", name="Slice").select_option("")
    page.get_by_role("button", name="All").click()
    assert _shown(page) == 40


def test_contents_and_items_have_addresses_of_their_own(opened, rivals, full_page):
    for path in (rivals, full_page):
        page = opened(path)
        targets = page.locator("nav a, .permalink").evaluate_all(
            "all => all.map(one => one.getAttribute('href').slice(1))"
        )
        assert len(targets) > 40
        assert page.evaluate("names => names.every(name => document.getElementById(name) !== null)", targets)
    page.locator("#line-7 .permalink").click()
    assert page.url.endswith("#line-7")


def test_what_was_lost_is_red_on_the_tuned_side(opened, full_page):
    page = opened(full_page)
    page.locator("#retention summary").first.click()
    colours = [
        page.locator(f"#retention .{name}").first.evaluate("one => getComputedStyle(one).backgroundColor")
        for name in ("kept", "lost")
    ]
    red, green = (_channels(colour) for colour in reversed(colours))
    assert red[0] > red[1]
    assert green[1] > green[0]
    assert page.locator("#retention .lost").first.inner_text() == "delivery"


def _channels(colour):
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def test_a_keyboard_reaches_every_filter_and_every_control_has_a_name(opened, plain):
    page = opened(plain)
    page.get_by_role("button", name="All (60)").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Worse (10)").get_attribute("aria-pressed") == "true"
    assert _shown(page) == 10
    names = page.locator("button").evaluate_all("all => all.map(one => one.textContent.trim())")
    assert all(names)
    assert page.get_by_role("searchbox", name="Find text in items").count() == 1
    drawings = page.locator("svg[role=img]").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
    assert drawings
    assert all(drawings)


def test_dark_and_light_differ_and_text_stands_out_in_both(opened, plain):
    grounds = []
    for scheme in ("light", "dark"):
        page = opened(plain, color_scheme=scheme)
        style = "getComputedStyle(document.body)"
        ground, ink = (_brightness(page.evaluate(f"{style}.{name}")) for name in ("backgroundColor", "color"))
        assert abs(ground - ink) > 0.6
        grounds.append(ground)
    assert grounds[0] > 0.9
    assert grounds[1] < 0.2


def _brightness(colour):
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) / 3 / 255


@pytest.mark.skipif(AXE is None, reason="needs axe-core: npm pack axe-core, and AXE_CORE=package/axe.min.js")
@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}])
def test_axe_finds_nothing_serious(opened, rivals, full_page, look):
    for path in (rivals, full_page):
        page = opened(path, bypass_csp=True, **look)
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        result = page.evaluate("axe.run(document)")["violations"]
        assert [one["id"] for one in result if one["impact"] in ("serious", "critical")] == []


def test_on_a_phone_nothing_hangs_over_the_side(opened, plain, full_page):
    for path in (plain, full_page):
        assert _too_wide(opened(path, viewport={"width": 390, "height": 844})) == 0


def test_a_page_with_every_section_loads_without_a_message(opened, full_page):
    page = opened(full_page)
    assert page.messages == []
    headings = page.locator("h2").all_inner_texts()
    for heading in ("Scores", "Loss", "Labels", "Retention", "Perplexity", "Planned vs actual", "Completions", "Data"):
        assert heading in headings
    assert page.locator("td.heat5.right").count() == 2
    assert page.locator("td.heat5.right").first.evaluate(
        "one => getComputedStyle(one).backgroundColor"
    ) != page.locator("td.heat1.wrong").evaluate("one => getComputedStyle(one).backgroundColor")


def test_paper_holds_every_item_even_those_that_a_filter_hid(opened, plain):
    page = opened(plain)
    page.get_by_role("button", name="Worse (10)").click()
    assert page.pdf().startswith(b"%PDF")
    page.emulate_media(media="print")
    seen = page.locator(".item").evaluate_all("all => all.filter(one => one.offsetHeight > 0).length")
    assert seen == 60
    assert not page.locator(".filters").is_visible()


def test_without_scripts_every_item_is_there(opened, plain):
    page = opened(plain, java_script_enabled=False)
    assert page.locator(".item").count() == 60
    assert page.get_by_text("Where is parcel 33?").is_visible()


def test_hostile_answers_do_no_harm_and_two_thousand_items_open_in_three_seconds(opened, tmp_path):
    odd = [HOSTILE, RTL, "Donaudampfschiff" * 300, "word " * 4000, "", "a\u2028b\x0bc"]
    requests = [(f"{n}: {odd[n % 6]}", f"right {n}") for n in range(2000)]
    base = [f"right {n}" if n % 3 else odd[n % 6] for n in range(2000)]
    tuned = [odd[n % 6] if n < 12 else f"right {n}" for n in range(2000)]
    requests[12:] = [(f"Question {n}", expected) for n, (_, expected) in enumerate(requests[12:], 12)]
    base[12:] = [f"right {n}" if n % 3 else "wrong" for n in range(12, 2000)]
    path = answers_page(tmp_path, requests, {"base": base, "tuned": tuned})
    began = time.monotonic()
    page = opened(path, viewport={"width": 390, "height": 844})
    assert time.monotonic() - began < 3
    assert page.title() == "answers: ftbridge report"
    assert page.messages == []
    assert page.addresses == [path.as_uri()]
    assert _shown(page) == 2000
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    page.get_by_role("searchbox").fill("משלוח")
    assert _shown(page) == 2
    page.get_by_role("searchbox").fill("")
    assert _too_wide(page) == 0
