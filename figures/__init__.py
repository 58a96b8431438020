"""One script per figure: ``compute(settings) → tidy table``, ``plot(table) → Figure``; `python -m figures --help`."""
