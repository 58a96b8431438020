"""Markov decision processes, their exact evaluation, and policy mirror descent iterated on them."""

from . import inexact, mirror_maps
from .evaluation import Evaluation, advantage_gap, evaluate, occupancy
from .examples import chain, deep_sea, garnet, gridworld
from .gymnasium_tables import from_gymnasium
from .iteration import Iteration, iterate, lookahead_values
from .mirror_maps import Euclidean, Tsallis
from .model import MDP
from .optimum import optimal

__all__ = [
    "MDP",
    "Euclidean",
    "Evaluation",
    "Iteration",
    "Tsallis",
    "advantage_gap",
    "chain",
    "deep_sea",
    "evaluate",
    "from_gymnasium",
    "garnet",
    "gridworld",
    "inexact",
    "iterate",
    "lookahead_values",
    "mirror_maps",
    "occupancy",
    "optimal",
]
