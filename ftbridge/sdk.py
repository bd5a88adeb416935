"""The former name of `ftbridge.api`, accepted until version 0.3."""

from ftbridge.api import *  # noqa: F403
