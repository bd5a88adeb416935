"""Rules about personal data: addresses and numbers by which a person is found. Their checksums keep false alarms few.

The data itself is never shown: messages hold a masked form, and `Problem.secret` tells reports to hide its span.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator

from ftbridge.data.lint.rule import Context, Problem, rule
from ftbridge.data.lint.screens import any_of, digit_runs, drawn, pattern


def _line(question: str, completion: str = "Thank you.") -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": completion}]
    return json.dumps({"messages": messages})


_WHY = "A model can repeat personal data from its training data, and using such data needs a legal basis."
_GDPR = "GDPR article 4(1); Carlini et al., Extracting Training Data from Large Language Models (2021)"
_MOST = 20
"""Findings of one rule in one text."""

Place = tuple[int, int, str]
"""Where something begins and ends, and how it is shown."""

# E-mail

_DOMAIN = re.compile(r"@((?:[A-Za-z0-9-]{1,63}\.){1,5})([A-Za-z]{2,24})(?![A-Za-z0-9_-]|\.[A-Za-z0-9]|[(\[=])")
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_ENDINGS = frozenset(
    re.findall(
        r"\w+",
        """com org net edu gov mil int info biz name pro xyz online site tech cloud shop store club live email agency
        digital group solutions company works world life today academy health care design studio dev app page blog wiki
        news media museum coop jobs travel mobi asia""",
    )
)
"""Endings of domains that are longer than a country's two letters and are seen in addresses; others are mostly code."""
_NOT_COUNTRIES = frozenset({"py", "js", "ts", "md", "rb", "go", "cs", "hs", "db", "fn", "vm", "ip", "os"})
"""Endings of two letters that are files or code."""
_NOBODY = frozenset({"git", "noreply", "no-reply", "donotreply", "do-not-reply", "mailer-daemon"})
_NOWHERE = frozenset({"domain.com", "yourdomain.com", "yourcompany.com", "your-domain.com", "users.noreply.github.com"})


@rule(
    "FTB410",
    "email-address",
    kind="text",
    severity="info",
    reason=_WHY,
    source=f"{_GDPR}; RFC 5322 section 3.4.1; RFC 2606 for the domains nobody has",
    bad=_line("Write to ann.miller@posteo.de please."),
    good=_line("Write to ann@example.com please."),
    screen=pattern(rb"@[A-Za-z0-9-]{1,63}\.[A-Za-z]"),
)
def email_address(text: str, context: Context) -> Iterator[Problem]:
    """A text holds an e-mail address."""
    yield from _problems(_emails(text), "an e-mail address")


def _emails(text: str) -> Iterator[Place]:
    for match in _DOMAIN.finditer(text):
        begin = max(0, match.start() - 64)
        local = _LOCAL.search(text[begin : match.start()])
        labels, ending = match[1].lower(), match[2].lower()
        domain = labels + ending
        if local is None or local[0].lower() in _NOBODY or domain in _NOWHERE:
            continue
        start = begin + local.start()
        reserved = re.search(r"(?:^|\.)(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|local)$", domain)
        is_known = ending in _ENDINGS or (len(ending) == 2 and ending not in _NOT_COUNTRIES)
        in_url = re.search(r"://[^\s/@]*\Z|[@/]\Z", text[max(0, start - 100) : start])
        if is_known and not reserved and not in_url:
            yield start, match.end(), f"{local[0][0]}•••@{labels[0]}•••.{ending}"


# Telephone

_INTERNATIONAL = re.compile(
    r"(?<![\w.+:-])\+[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\)[ .-]?\d{1,10}|[ .-]\d{1,12})(?:[ .-]\d{1,8}){0,6}"
    r"(?![\w%+]|[.,:]\d|-\d)",
    re.ASCII,
)
_UNBROKEN = re.compile(r"(?<![\w.+:-])\+[1-9]\d{9,14}(?![\w%]|[.,:-]\d)", re.ASCII)
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+/-])(?:\([2-9]\d\d\) ?|(?:1[ .-])?[2-9]\d\d([.-]))[2-9]\d\d([.-])\d{4}(?![\w%]|[.,:/-]\d)",
    re.ASCII,
)


@rule(
    "FTB411",
    "phone-number",
    kind="text",
    severity="info",
    reason=_WHY,
    source=f"{_GDPR}; ITU-T E.164 (at most 15 digits); the North American Numbering Plan (555-01xx is fiction)",
    bad=_line("Call me at +49 30 901820 tomorrow."),
    good=_line("Order 2024-118-4471 came at 10:30."),
    screen=any_of(
        pattern(rb"\+[1-9][0-9 .()-]{6}"),
        drawn(b"0) 000-0000", b"0)000-0000", b"000-000-0000", b"000.000.0000"),
    ),
)
def phone_number(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a telephone number."""
    yield from _problems(_phones(text), "a telephone number")


def _phones(text: str) -> Iterator[Place]:
    spans: list[tuple[int, int]] = []
    for form in (_UNBROKEN, _INTERNATIONAL) if "+" in text else ():
        for match in form.finditer(text):
            groups = re.findall(r"\d+", match[0])
            short = len(groups) == 2 or all(len(group) == 3 for group in groups[1:])
            is_number = short and set(re.findall(r"[^\d+]", match[0])) == {"."}  # +1.234.567.890, +1.12345679
            single = sum(len(group) == 1 for group in groups[1:])
            if 8 <= sum(map(len, groups)) <= 15 and single <= 1 and not is_number:
                spans.append(match.span())
                yield *match.span(), f"{match[0][:3]}•••{match[0][-2:]}"
    for match in _NORTH_AMERICAN.finditer(text):
        digits = re.sub(r"\D", "", match[0])[-10:]
        same = (match[1] or "-") == match[2]
        fiction = digits[3:6] == "555" and digits[6:8] == "01"
        if same and not fiction and not any(start <= match.start() < end for start, end in spans[:_MOST]):
            yield *match.span(), f"{digits[0]}•••{digits[-2:]}"


# Payment cards

_CARD = re.compile(
    r"(?<![\w.-])(?:\d{15,16}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})(?!\w|[.-]\d| \d{4}\b)",
    re.ASCII,
)


@rule(
    "FTB412",
    "card-number",
    kind="text",
    severity="info",
    reason=_WHY,
    source="ISO/IEC 7812-1 (check digit by Luhn); the issuers' published number ranges; PCI DSS requirement 3",
    bad=_line("My card is 4539 1488 0343 6467."),
    good=_line("My order is 4539 1488 0343 6468."),
    screen=any_of(
        digit_runs(15, 16), drawn(b"0000 0000 0000 0", b"0000-0000-0000-0", b"0000 000000 0000", b"0000-000000-0000")
    ),
)
def card_number(text: str, context: Context) -> Iterator[Problem]:
    """A text holds the number of a payment card."""
    yield from _problems(_cards(text), "a card number")


def _cards(text: str) -> Iterator[Place]:
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        issuer = issuer_of(digits)
        if issuer and luhn(digits):
            yield match.start(), match.end(), f"{issuer} …{digits[-4:]}"


def issuer_of(digits: str) -> str:
    """Whose card begins with these digits and is as long; empty for nobody's."""
    size, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if two in (34, 37):
        return "American Express" if size == 15 else ""
    if three in range(300, 306) or three == 309 or two in (36, 38, 39):
        return "Diners Club" if size in (14, 16) else ""
    if size not in (16, 19):
        return ""
    if digits[0] == "4":
        return "Visa"
    if two in range(51, 56) or four in range(2221, 2721):
        return "Mastercard" if size == 16 else ""
    if four == 6011 or three in range(644, 650) or two == 65:
        return "Discover"
    return "JCB" if four in range(3528, 3590) else "UnionPay" if two == 62 else ""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [int(digit) * 2 for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


# Bank accounts

_IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2})\d{2}(?= ?[A-Z0-9]{4})", re.ASCII)
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FO FI GL NL SD", 19: "MK SI", 20: "AT BA EE KZ XK LT LU MN",
        21: "HR LV LI CH", 22: "BH BG CR GE DE IE ME RS GB VA", 23: "GI IL AE OM SO TL IQ",
        24: "AD CZ MD PK RO SA SK ES SE TN VG DZ", 25: "LY PT ST", 26: "IS TR", 27: "FR GR IT MR MC SM BI DJ",
        28: "AL AZ BY CY DO SV GT HU LB NI PL", 29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
"""Characters of an IBAN by country. Source: SWIFT, IBAN Registry."""


@rule(
    "FTB413",
    "iban",
    kind="text",
    severity="info",
    reason=_WHY,
    source="ISO 13616 (check digits by ISO 7064 mod 97-10); SWIFT's IBAN registry for lengths",
    bad=_line("Pay to DE89 3704 0044 0532 0130 00."),
    good=_line("Pay to DE88 3704 0044 0532 0130 00."),
    screen=drawn(b"AA00"),
)
def iban(text: str, context: Context) -> Iterator[Problem]:
    """A text holds the number of a bank account."""
    yield from _problems(_ibans(text), "an IBAN")


def _ibans(text: str) -> Iterator[Place]:
    for match in _IBAN_START.finditer(text):
        length = IBAN_LENGTHS.get(match[1])
        iban = _iban_of(length).match(text, match.start()) if length else None
        if iban:
            letters = iban[0].replace(" ", "")
            if int((letters[4:] + letters[:4]).translate(_AS_DIGITS)) % 97 == 1:
                yield *iban.span(), f"{letters[:2]}…{letters[-4:]}"


_AS_DIGITS = {ord(letter): str(int(letter, 36)) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@functools.lru_cache
def _iban_of(length: int) -> re.Pattern[str]:
    """So many letters and digits, with or without a space after every four."""
    last = length - 4 * ((length - 1) // 4)
    return re.compile(rf"(?:[A-Z0-9]{{4}} ?){{{(length - 1) // 4}}}[A-Z0-9]{{{last}}}(?![A-Za-z0-9])")


# Social security

_SSN = re.compile(r"(?<![\w.+/-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w/]|[.-]\d)", re.ASCII)


@rule(
    "FTB414",
    "social-security-number",
    kind="text",
    severity="info",
    reason=_WHY,
    source="US Social Security Administration: no number begins with 000, 666 or 900 to 999",
    bad=_line("My number is 219-64-8107."),
    good=_line("My number is 000-12-3456."),
    screen=drawn(b"000-00-0000"),
)
def social_security_number(text: str, context: Context) -> Iterator[Problem]:
    """A text holds a US social security number."""
    yield from _problems(
        ((*match.span(), f"•••-••-{match[0][-4:]}") for match in _SSN.finditer(text)), "a US social security number"
    )


def _problems(places: Iterable[Place], what: str) -> Iterator[Problem]:
    """A problem for each distinct piece, at most _MOST."""
    seen: set[str] = set()
    for start, end, masked in places:
        if len(seen) == _MOST:
            return
        if masked not in seen:
            seen.add(masked)
            description = f"holds {what} ({masked}). Remove or replace it, unless it is fictitious."
            yield Problem("", description, span=(start, end), secret=True)
