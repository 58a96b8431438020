"""Fitted to the PMD-mean loss, a network lands on the Lambert-W law; fitted to the log-partition loss, on the KL law.

A small transformer whose whole policy over 101 actions is known, after one outer step from its base p; s = log(q/p).
(a) Every action of three prompts, graded reward, τ = 0.1: s against what the law of its loss says (filled) and against
the other law (hollow). Area grows with p; actions with p < 0.001 are pale, some beyond the axes. (b) D − s, D = (r −
r̄)/τ, in units of KL(p‖q), against ρ = q/p: nothing is fitted, and the laws are the diagonal and the flat line. (c)
The slope f in (b), median over the prompts, mean and 95% interval over the seeds.
"""

from pmdtheory import plotting

from . import network_against_theory as whole

STUDY = "validate"
TABLES = ("validate", "validate_actions")


def plot(table, actions):
    """Three panels of `network_against_theory`."""
    figure, axes = plotting.panels(1, 3, height=2.3)
    whole.against_laws(axes[0], actions)
    whole.against_ratio(axes[1], actions)
    whole.shares(axes[2], table)
    axes[2].set_ylim(-0.1, 1.1)
    handles = [whole.handle(axes[0], algorithm) for algorithm in whole.LOSSES]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def finding(table, actions):
    """Both losses against both laws."""
    return whole.population(table)
