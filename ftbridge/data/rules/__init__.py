"""Every lint rule, by code. Hundreds group them: what they look at and what they are about.

FTB001–019  the file, and its lines as JSON      FTB090–099  reinforcement data and graders
FTB020–049  examples and messages                FTB1xx      texts: what cannot be said or read
FTB050–069  tools, functions and calls           FTB2xx      tokens and counts
FTB070–079  images                               FTB3xx      quality: duplicates, leakage, labels
FTB080–089  preference data                      FTB4xx      safety: secrets and personal data

So `--select FTB0` is structure only. FTB021 is a message without content, as everywhere in ftbridge.
"""

from ftbridge.data.rules import file as _file
from ftbridge.data.rules import json_lines as _json_lines
from ftbridge.data.rules.base import RULES, Context, Line, Problem, Repair, Rule

__all__ = ["RULES", "Context", "Line", "Problem", "Repair", "Rule"]

_MODULES = (_file, _json_lines)
