"""The formula language: values, its grammar's bindings, and what it says of formulas that are wrong."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftbridge.graders.formula import ArithmeticFailed, FormulaError, parse

VALUES = {"a": 0.5, "b": 2.0, "zero": 0.0, "exact_2": 1.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 0.5),
        ("0.25", 0.25),
        (".5 + 1. + 1e-1 + 2E+1", 21.6),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("8 - 4 - 2", 2),
        ("8 / 4 / 2", 1),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("2 ^ -1", 0.5),
        ("--a + +a", 1),
        ("2 * -a", -1),
        ("0.4 * a + 0.6 * exact_2", 0.8),
        ("min(a, b, 1)", 0.5),
        ("max(a, min(b, 9))", 2),
        ("max(a)", 0.5),
        ("abs(-b)", 2),
        ("floor(1.7) + ceil(1.2)", 3),
        ("exp(log(b))", 2),
        ("sqrt(b * 8)", 4),
        (" \n a\t* b ", 1),
        ("((((a))))", 0.5),
    ],
)
def test_a_formula_has_the_value_that_mathematics_gives_it(text, value):
    assert parse(text).compute(VALUES) == pytest.approx(value)


@given(st.recursive(
    st.sampled_from(["a", "b", "1", "2.5", "0.1"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        inner.map(lambda part: f"-{part}"),
        inner.map(lambda part: f"abs({part})"),
        st.tuples(inner, inner).map(lambda parts: f"max({parts[0]}, {parts[1]})"),
    ),
    max_leaves=12,
))  # fmt: skip
def test_random_formulas_agree_with_python(text):
    try:
        expected = eval(text, {"abs": abs, "max": max}, VALUES)  # the formula is this test's own
    except ZeroDivisionError:
        with pytest.raises(ArithmeticFailed):
            parse(text).compute(VALUES)
        return
    assert parse(text).compute(VALUES) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the formula is empty"),
        ("  ", "the formula is empty"),
        ("1 +", "ends where a value is expected"),
        ("(a + b", "the parenthesis at character 1 is never closed"),
        ("min(a, b", "the parenthesis at character 4 is never closed"),
        ("a + b)", "')' at character 6 has no opening"),
        ("a b", "'b' at character 3 is not expected"),
        ("2a", "'a' at character 2 is not expected"),
        ("a ** b", "'*' at character 4 is not expected"),
        ("a, b", "',' at character 2 is not expected"),
        ("a > b", "'>' at character 3 is not expected"),
        ("a.b", "'.' at character 2 is not expected"),
        ("a; b", "';' at character 2 is not expected"),
        ("é", "'é' at character 1 is not expected"),
        ("__import__('os')", "there is no function __import__"),
        ("round(a)", "there is no function round (character 1); functions: abs, ceil, exp"),
        ("min + 1", "min at character 1 is a function; write min(...)"),
        ("min()", "')' at character 5 is not expected"),
        ("log(a, b)", "log at character 1 takes one argument, not 2"),
        ("1_000", "'_000' at character 2 is not expected"),
        ("a + lambda", "'lambda' at character 5 is a keyword"),
        ("None", "'None' at character 1 is a keyword"),
        ("+".join(["a"] * 202), "at most 200 signs"),
        ("1e999", "the number at character 1 is too large"),
        ("(" * 65 + "a" + ")" * 65, "nested deeper than 64"),
        ("-" * 70 + "a", "nested deeper than 64"),
        ("2^" * 70 + "a", "nested deeper than 64"),
        ("(" * 100_000, "at most 10,000 characters"),
    ],
)
def test_a_formula_that_cannot_be_read_says_where(text, says):
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / zero", "division by zero at character 3"),
        ("a / (b - 2)", "division by zero"),
        ("zero ^ -1", "^ at character 6 has no result for 0, -1"),
        ("(-a) ^ 0.5", "has no result for -0.5, 0.5"),
        ("log(zero)", "log at character 1 has no result for 0"),
        ("sqrt(-a)", "sqrt at character 1 has no result for -0.5"),
        ("exp(1000)", "the result of exp at character 1 is too large"),
        ("9 ^ 9 ^ 9", "is too large"),
        ("1e308 * 10", "is not finite"),
    ],
)
def test_values_without_a_result_are_told(text, says):
    with pytest.raises(ArithmeticFailed) as caught:
        parse(text).compute(VALUES)
    assert says in str(caught.value)


def test_deep_nesting_within_the_bound_and_long_sums_work():
    assert parse("(" * 60 + "a" + ")" * 60).compute(VALUES) == 0.5
    assert parse("+".join(["a"] * 201)).compute(VALUES) == 100.5


def test_the_names_of_a_formula_are_its_variables_without_functions():
    assert parse("min(a, b) * exact_2 + a + sqrt(4)").names == {"a", "b", "exact_2"}
    assert math.isclose(parse("1").compute({}), 1)
