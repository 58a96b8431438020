"""Hypothesis draws the same examples everywhere and every time; ``--hypothesis-profile fuzz`` draws new ones."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")
