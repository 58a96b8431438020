"""The instrument: hand it a loss, and it says what the loss optimises.

`bench` holds two prompts whose policies are known exactly, `response` measures what a loss does to one rollout,
`flow` follows its gradient to the end, `atlas` compares that with every law of the family, `report` says it.
"""

from .report import Identification, identify

__all__ = ["Identification", "identify"]
