"""New random problems for as long as one likes: ``python -m tests.fuzz --minutes 10``, or ``make fuzz MINUTES=10``.

Every module here without a leading underscore is a target, called by its file name. Its docstring says against what
it checks, and its function ``check(rng)`` draws one hard problem from a `numpy.random.Generator` and raises
AssertionError, with the problem in the message, if a property fails. Any other exception and any RuntimeWarning is a
failure as well; a target that expects a ValueError catches it.

Failures are appended to ``found.jsonl``, one JSON line each: target, seed, message. ``tests/test_fuzz.py`` replays
them, so a line may be committed once its fault is mended, and then stays a test.
"""
