"""Personal data: addresses and numbers are found by their form and checksum, and never shown."""

import pytest

from ftbridge.data.lint.rules.personal import IBAN_LENGTHS, issuer_of, luhn
from support.rule_findings import codes_of_kind, in_text

PERSONAL = codes_of_kind("text", "FTB41")

FOUND = [
    ("FTB410", "ann.miller+shop@posteo.de", "a•••@p•••.de"),
    ("FTB410", "Email:ann@uni-example.co.uk.", "a•••@u•••.uk"),
    ("FTB410", "<a.b@c-d.org>", "a•••@c•••.org"),
    ("FTB411", "+49 30 901820", "+49•••20"),
    ("FTB411", "+4915112345678", "+49•••78"),
    ("FTB411", "+1 (415) 555-2671", "+1 •••71"),
    ("FTB411", "+44 (0)20 7946 0958", "+44•••58"),
    ("FTB411", "+33 1 23 45 67 89", "+33•••89"),
    ("FTB411", "(415) 867-5309", "4•••09"),
    ("FTB411", "415-867-5309", "4•••09"),
    ("FTB411", "1-415-867-5309", "4•••09"),
    ("FTB411", "415.867.5309", "4•••09"),
    ("FTB412", "4111 1111 1111 1111", "Visa …1111"),
    ("FTB412", "4539148803436467", "Visa …6467"),
    ("FTB412", "5555-5555-5555-4444", "Mastercard …4444"),
    ("FTB412", "2223003122003222", "Mastercard …3222"),
    ("FTB412", "3782 822463 10005", "American Express …0005"),
    ("FTB412", "378282246310005", "American Express …0005"),
    ("FTB412", "6011111111111117", "Discover …1117"),
    ("FTB412", "3530111333300000", "JCB …0000"),
    ("FTB413", "DE89 3704 0044 0532 0130 00", "DE…3000"),
    ("FTB413", "GB82WEST12345698765432", "GB…5432"),
    ("FTB413", "NO93 8601 1117 947", "NO…7947"),
    ("FTB413", "FR14 2004 1010 0505 0001 3M02 606 THE END", "FR…2606"),
    ("FTB413", "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "MT…001S"),
    ("FTB414", "219-64-8107", "•••-••-8107"),
]


@pytest.mark.parametrize(("code", "text", "shown"), FOUND, ids=range(len(FOUND)))
@pytest.mark.parametrize("around", ["{}", "Tel:\n{}\n", "({})", "Mine is {}, thanks.", "私は{}です"])
def test_personal_data_is_told_by_a_masked_form(code, text, shown, around):
    [result] = in_text(around.format(text), *PERSONAL)
    assert (result.code, result.severity, result.secret) == (code, "info", True)
    assert f"({shown})" in result.message
    assert around.format(text)[slice(*result.span)] in text


LOOK_ALIKES = [
    "ann@example.com, bob@mail.example.org, c@shop.test, d@x.invalid, me@localhost",
    "noreply@github.com, git@github.com:org/repo.git",
    "@app.route('/x')\n@pytest.mark.slow\n@property",
    "x @ W.T + b, a@b.weight, img@2x.png, lodash@4.17.21, pkg@1.0.beta",
    "https://medium.com/@ann.miller.co/story",
    "ssh://deploy@build.host.io/repo",
    "@user@mastodon.social",
    "order 2024-118-4471, 123-456-7890, 100-200-3000",
    "192.168.1.254, 10.0.0.1:8080, 255.255.255.255",
    "2024-01-31 10:30:00+01:00, 20240131T103000Z, 31.12.2024",
    "version 415.867.5309.1, 3.141592653589793",
    "ISBN 978-3-16-148410-0, ISSN 2049-3630",
    "(555) 555-0142, 212-555-0199",
    "+1.234.567.890 and +12 345",
    "x = 1 +2 3 4 5 6 7 8 9",
    "+5% or +100 points, a+1234567890b",
    "3.5e+12345678901",
    "4111 1111 1111 1112, 1234567812345678, 0000000000000000",
    "1700000000000, 1700000000000000, 9007199254740993",
    "4539148803436467000123, id-4539148803436467, 4539148803436467.5",
    "4539 1488 0343 6467 1234 5678",
    "DE88 3704 0044 0532 0130 00, XX12 3456 7890 1234",
    "GB82 WEST 1234 5698 7654 3, AB12CD34EF56",
    "MD5 AB12 of COVID19 in H2O2, EN10 0253",
    "000-12-3456, 666-12-3456, 900-12-3456, 219-00-8107, 219-64-0000",
    "219-64-81070, 1219-64-8107, 2019-64-8107, 219-64-8107-3",
    "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "0x4539148803436467, 4539148803436467L",
    "lat 52.520008, lon 13.404954",
    "1,234,567,890 and 1 234 567 890",
]


@pytest.mark.parametrize("text", LOOK_ALIKES, ids=range(len(LOOK_ALIKES)))
def test_what_only_looks_like_personal_data_is_left_alone(text):
    assert in_text(text, *PERSONAL) == []


def test_the_check_digit_is_the_one_of_iso_7812():
    assert luhn("79927398713")  # the standard's own example
    assert [digit for digit in range(10) if luhn(f"7992739871{digit}")] == [3]


def test_an_issuer_is_known_by_range_and_length():
    assert issuer_of("4" + "0" * 15) == "Visa"
    assert issuer_of("4" + "0" * 14) == ""
    assert issuer_of("2720" + "0" * 12) == "Mastercard"
    assert issuer_of("2721" + "0" * 12) == ""


def test_iban_lengths_cover_the_single_euro_payments_area():
    sepa = (
        "AT BE BG CH CY CZ DE DK EE ES FI FR GB GI GR HR HU IE IS IT LI LT LU LV MC MT NL NO PL PT RO SE SI SK SM VA AD"
    )
    assert set(sepa.split()) <= IBAN_LENGTHS.keys()


def test_a_page_of_addresses_is_told_up_to_a_bound():
    text = " ".join(f"{chr(97 + n % 26)}{n}@{chr(97 + n // 26)}post.de" for n in range(200))
    assert len(in_text(text, "FTB410")) == 20
