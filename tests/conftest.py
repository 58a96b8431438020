"""The same examples everywhere and every time (``--hypothesis-profile fuzz`` draws new ones), and signals that act.

A shell starts its background jobs with Ctrl-C ignored, nohup with SIGHUP ignored, and children inherit that; the tests
send these signals, so they act here as they do on a command that a user starts.
"""

import signal

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("repeatable")

for _number, _handler in {
    signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL,
}.items():  # fmt: skip
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)
