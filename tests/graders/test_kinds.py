"""The table of grader types."""

from __future__ import annotations

from typing import get_args

from ftbridge.graders.kinds import KINDS
from ftbridge.spec.graders import Grader


def test_every_type_of_the_spec_has_an_entry():
    types = set()
    for member in get_args(get_args(Grader)[0]):
        types |= set(get_args(member)) or {member}
    assert set(KINDS) == types
