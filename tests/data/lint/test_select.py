"""--select and --ignore: codes, their beginnings, names; the longer one wins."""

import pytest

from ftbridge.data.lint.rule import chosen_codes, find_rule
from ftbridge.data.lint.rules import RULES
from ftbridge.errors import UsageError

TABLE = [
    ((), (), sorted(RULES)),
    (("all",), ("FTB",), [*sorted(RULES)][:0]),
    (("FTB300", "FTB01"), (), [code for code in sorted(RULES) if code.startswith("FTB01") or code == "FTB300"]),
    (("FTB01",), ("FTB010",), [code for code in sorted(RULES) if code.startswith("FTB01") and code != "FTB010"]),
    (("FTB010",), ("FTB0",), ["FTB010"]),
    (("ftb010", " FTB011 "), (), ["FTB010", "FTB011"]),
    (("key-twice",), (), ["FTB014"]),
    (("FTB010",), ("FTB010",), []),
]


@pytest.mark.parametrize(("select", "ignore", "codes"), TABLE, ids=range(len(TABLE)))
def test_rules_are_chosen_by_the_longer_word(select, ignore, codes):
    assert list(chosen_codes(RULES, select, ignore)) == codes


def test_a_word_that_is_no_rule_names_the_nearest():
    with pytest.raises(UsageError, match="FTB999") as raised:
        chosen_codes(RULES, ("FTB999",), ())
    assert raised.value.hint
    with pytest.raises(UsageError) as raised:
        chosen_codes(RULES, (), ("key-twise",))
    assert "key-twice" in raised.value.hint


def test_one_rule_is_asked_for_by_code_or_name():
    assert find_rule(RULES, "key-twice").code == find_rule(RULES, "FTB014").code == "FTB014"
    with pytest.raises(UsageError, match="more than one"):
        find_rule(RULES, "FTB01")
