"""A long run beside its mathematics: what it leaves on disk, the signals that end it, and who else is told."""
