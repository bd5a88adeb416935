"""Every lint rule, by code. Hundreds group them: what they look at and what they are about.

FTB001–019  the file, and its lines as JSON      FTB090–099  reinforcement data and graders
FTB020–049  examples and messages                FTB1xx      texts: what cannot be said or read
FTB050–069  tools, functions and calls           FTB2xx      tokens and counts
FTB070–079  images                               FTB3xx      quality: duplicates, leakage, labels
FTB080–089  preference data                      FTB4xx      safety: secrets and personal data

So `--select FTB0` is structure only. FTB021 is a message without content, as everywhere in ftbridge.
"""

from ftbridge.data.lint.rule import RULES, Context, Line, Problem, Repair, Rule
from ftbridge.data.lint.rules import arguments as _arguments
from ftbridge.data.lint.rules import calls as _calls
from ftbridge.data.lint.rules import counts as _counts
from ftbridge.data.lint.rules import file as _file
from ftbridge.data.lint.rules import graders as _graders
from ftbridge.data.lint.rules import images as _images
from ftbridge.data.lint.rules import json_lines as _json_lines
from ftbridge.data.lint.rules import lines as _lines
from ftbridge.data.lint.rules import messages as _messages
from ftbridge.data.lint.rules import order as _order
from ftbridge.data.lint.rules import personal as _personal
from ftbridge.data.lint.rules import preference as _preference
from ftbridge.data.lint.rules import quality as _quality
from ftbridge.data.lint.rules import reinforcement as _reinforcement
from ftbridge.data.lint.rules import safety as _safety
from ftbridge.data.lint.rules import splits as _splits
from ftbridge.data.lint.rules import text as _text
from ftbridge.data.lint.rules import tokens as _tokens
from ftbridge.data.lint.rules import tools as _tools

__all__ = ["RULES", "Context", "Line", "Problem", "Repair", "Rule"]

_MODULES = (
    _file,
    _json_lines,
    _personal,
    _safety,
    _text,
    _graders,
    _quality,
    _splits,
    _tokens,
    _arguments,
    _calls,
    _counts,
    _images,
    _lines,
    _messages,
    _order,
    _preference,
    _reinforcement,
    _tools,
)
