r"""The updates compiled by Numba: the equations of `solver`, solved by passes over the actions, each one loop.

For rows of p and r with targets D, E_p[D] = 0, and λ = k v + a, the root v of Ψ(v) = v, Ψ = E_p[e^s − 1 − s], is found
by Halley's method: for k = 1 on log Ψ − log v in log v, but where a < 0, that is 0 < λ < v, on 1/E_p[e^s] in λ; for
k = 0 on log E_p[e^s] in v. Here E_p[e^s] = 1 + (Ψ − v)/(1 + λ).

Each pass has all actions take one Householder step to their s at the present v. The first passes run in 32 bits, twice
as many numbers to an instruction: one from a fit of Wright's ω, which is taken again after large moves, the others from
the last solutions. A pass in 64 bits, mostly one, then finds s, q and v to rounding, and the last change of v moves s
and q by their derivatives, without another exponential. The KL update needs no root: its passes find the action where
p e^{r/τ} is largest, measure exponents from that, and divide by their sum.

A pass is a loop over actions; `between.follow` does what follows it from the sums alone, and says which pass is next.
A long row is passed over in parts, whose sums are added in one order, so threads may share them.

The bits of a row are the same in every process and for any number of threads. They may depend on the processor and on
the versions of Numba and LLVM, which choose the instructions; those of a short row on the rows at its side too, since
all go through as many passes as the slowest.

All loops over actions are free of branches and run over blocks that fit the first cache, so that the compiler turns
them into vector instructions; the elementary functions are written out for the same reason. Short rows are laid side by
side, the first action of each before the second of any, so that what is done once a row is a vector instruction too.

Rows at the limits of floating-point numbers, rows with λ < 0 and rows that do not converge at once are not decided
here: they are not `done`, and NumPy's path solves or refuses them.
"""

import numpy as np

from .layout import BASELINE, KL, MIXED, PMD_MEAN
from .threads import over_threads


def kl(p, r, tau, checked=True):
    """The KL update of rows.

    Parameters
    ----------
    p, r : ndarray, shape (N, K)
    tau : ndarray, shape (N,)
    checked : bool
        False for arguments of which only the shapes are known.

    Returns
    -------
    q, s : ndarray, shape (N, K)
    weight, baseline : ndarray, shape (N,)
    done : ndarray of bool, shape (N,)
        Where the others mean something; None if they do nowhere, as the arguments are not beyond doubt.
    """
    q, s, (_, weight, baseline), done = over_threads(KL, checked, p, r, tau, tau)
    return q, s, weight, baseline, done


def pmd_mean(p, r, tau, checked=True):
    """The PMD-mean update, as `kl`."""
    q, s, (_, weight, mean), done = over_threads(PMD_MEAN, checked, p, r, tau, np.zeros(len(p)))
    return q, s, weight, mean, done


def with_baseline(p, r, tau, b, checked=True):
    """The update with baseline `b`, shape (N,); those above τ log Z are not done."""
    q, s, (_, weight, _), done = over_threads(BASELINE, checked, p, r, tau, b)
    return q, s, weight, b.copy(), done


def mixed(p, r, tau, a, checked=True):
    """The update with χ² weight λ = `a`, shape (N,)."""
    q, s, (v, _, mean), done = over_threads(MIXED, checked, p, r, tau, a)
    return q, s, a.copy(), mean + tau * (v - a), done
