r"""What the theory says that one outer step leads to, and how a fitted policy is compared with it.

One prompt has a policy p over K actions, rewards r and a temperature τ; a network fitted to a loss of policy mirror
descent has the policy q = p e^s. With the exact mean or log-partition as baseline, or n fresh rollouts per gradient
step, the expected loss is E_p[½ (s − d)²] and its minimiser over all policies is known:

==================  =====================================  ======================================================
estimator           expected target d                      minimiser
==================  =====================================  ======================================================
mean, exact         D = (r − r̄)/τ                          Lambert-W: s + λ e^s = D, λ = KL(p‖q) (Statement 2)
log_partition,      r/τ − log Z                            KL: s = d (Statement 1)
exact
mean                (1 − 1/n) D                            Lambert-W at temperature τ n/(n − 1)
loo_mean            D                                      Lambert-W
loo_log_partition   r/τ − E log Ẑ_{n−1}                    Statement 10 at b = τ E log Ẑ_{n−1}
log_partition       r/τ − E[log Ẑ_n | r among the n]       Statement 11 at the rewards τ d and b = 0: λ ≤ 0
==================  =====================================  ======================================================

Ẑ_m is the mean of e^{r/τ} over m rollouts. The expectations need no sampling: for X = e^{(r − r_max)/τ} and S the sum
of m independent copies, log S = ∫ (e^{−t} − e^{−tS}) dt/t gives

.. math:: E[\log(x + S)] = \int_{-∞}^{∞} \big( e^{−e^u} − e^{−x e^u} φ(e^u)^m \big) du, \qquad φ(t) = E_p[e^{−tX}],

for any x ≥ 0. The integrand is analytic and bounded for |Im u| < π/2, so the trapezoidal rule with step h errs by
about e^{−π²/h}.

Which law a policy obeys is told by a number that needs no solver. On the Lambert-W law D − s is λρ, on the KL law it is
constant, so the regression slope of D − s on the ratio ρ, in units of KL(p‖q), is 1 or 0:

.. math:: f = \frac{\mathrm{Cov}_p(D − s, ρ)}{\mathrm{Var}_p(ρ) \, \mathrm{KL}(p‖q)}.

`pooled_share` estimates it where nothing can be enumerated. The covariance, and variance times KL, are estimated
without bias for each prompt and summed over prompts before they are divided: a ratio of 16 rollouts alone is noise.
`pooled_r2` is R² on such rollouts.

Throughout, `policy`, `reward` and `log_ratio` are arrays (P, K) of p, r and s = log(q/p) at P prompts; `tau` is τ > 0
in reward units.

References
----------
Statements 1, 2, 4, 5, 10, 11, 14 and 18 of ``pmdtheory/theorems/README.md``.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import divergences
from .updates import Update, baseline_update, kl_update, pmd_mean_update

__all__ = ["Share", "compare", "expected_log_partition", "pooled_r2", "pooled_share", "predict", "share"]

STEP = 0.25


def expected_log_partition(
    policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, n: float, among: bool = False
) -> np.ndarray:
    """Expected log-partition of n rollouts, τ E[log Ẑ_n].

    Parameters
    ----------
    n : int
        Rollouts, at least 1.
    among : bool
        Given that one of the rollouts is the action: the expectation depends on the action.

    Returns
    -------
    array (P,) or, with `among`, (P, K)
        In reward units.

    References
    ----------
    Statement 12.

    Examples
    --------
    >>> one_success_or_two = [0.5 * np.log((1 + np.e) / 2), 0.25]
    >>> bool(np.isclose(expected_log_partition([[0.5, 0.5]], [[0, 1]], 1.0, 2)[0], sum(one_success_or_two)))
    True
    """
    p, r = np.asarray(policy, dtype=float), np.asarray(reward, dtype=float)
    top = r.max(axis=-1, keepdims=True)
    x = np.exp((r - top) / tau)
    u = np.arange(-40.0 - np.log(n), 5.0 - np.log(x.min()), STEP)
    t = np.exp(u)[:, None, None]
    decay = np.exp(-t * x)
    others = (p * decay).sum(axis=-1, keepdims=True) ** (n - 1 if among else n)
    log_sum = STEP * (np.exp(-t) - others * (decay if among else 1.0)).sum(axis=0)
    expected = top + tau * (log_sum - np.log(n))
    return expected if among else expected[:, 0]


def predict(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, estimator: str, n: float = np.inf) -> Update:
    """Return the update that the expected loss leads to, over all policies.

    Parameters
    ----------
    estimator : {'mean', 'loo_mean', 'log_partition', 'loo_log_partition'}
        Baseline of the loss.
    n : int or infinity
        Fresh rollouts per gradient step; infinity for the exact mean or log-partition.

    Returns
    -------
    pmdtheory.Update

    Raises
    ------
    ValueError
        For `log_partition`, if n is so small that no principal-branch solution exists.

    References
    ----------
    Statements 1, 2, 10 and 11.

    Examples
    --------
    >>> p, r = [[0.5, 0.5]], [[0.0, 1.0]]
    >>> predict(p, r, 1.0, "loo_log_partition", n=2).policy.round(4)  # b = E[r]: a sample of one has no variance
    array([[0.2862, 0.7138]])
    """
    if estimator == "mean":
        return pmd_mean_update(policy, reward, tau if np.isinf(n) else tau * n / (n - 1))
    if estimator == "loo_mean":
        return pmd_mean_update(policy, reward, tau)
    if np.isinf(n):
        return kl_update(policy, reward, tau)
    if estimator == "loo_log_partition":
        return baseline_update(policy, reward, tau, expected_log_partition(policy, reward, tau, n - 1))
    return baseline_update(policy, reward - expected_log_partition(policy, reward, tau, n, among=True), tau, 0.0)


def share(policy: ArrayLike, reward: ArrayLike, tau: ArrayLike, log_ratio: ArrayLike) -> np.ndarray:
    """Share f of PMD-mean's χ² term in a fitted policy: 1 on the Lambert-W law, 0 on the KL law.

    Returns
    -------
    array (P,)
        NaN where q = p.

    References
    ----------
    Statements 2 and 4.

    Examples
    --------
    >>> p, r = [[0.2, 0.3, 0.5]], [[1.0, 0.5, 0.0]]
    >>> share(p, r, 0.1, pmd_mean_update(p, r, 0.1).log_ratio).round(9)
    array([1.])
    """
    slope = _slope(np.asarray(policy), np.asarray(reward) / tau - log_ratio, np.exp(log_ratio))
    return _ratio(slope, divergences.movement(policy, log_ratio).reverse_kl)


def compare(
    policy: ArrayLike,
    reward: ArrayLike,
    tau: ArrayLike,
    log_ratio: ArrayLike,
    law: Update,
    seen: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compare a fitted policy with the Lambert-W law, the KL law, and the law it should obey.

    Parameters
    ----------
    tau : float
        The effective temperature of the loss.
    law : pmdtheory.Update
        What `predict` or `sampled_update` says.
    seen : bool array (P, K), optional
        Actions on which R² is taken, by default all.

    Returns
    -------
    dict of str to array (P,)
        ``share`` f and ``slope`` f KL(p‖q); ``reverse_kl`` KL(p‖q), ``kl`` KL(q‖p), ``chi2`` χ²(q‖p); ``weight``, the
        χ² weight of the law; for each of ``law``, ``lambert``, ``kl_law`` the weighted and plain coefficients of
        determination ``r2_`` and ``plain_r2_`` of s on the identity line, and the divergence ``from_`` of q from it;
        ``gain`` E_q[r] − E_p[r], and what Statement 5 says it is on either law, ``gain_lambert`` and ``gain_kl_law``.
    """
    p, q = policy, policy * np.exp(log_ratio)
    q = q / q.sum(axis=-1, keepdims=True)
    moved = divergences.movement(p, log_ratio)
    laws = {"law": law, "lambert": pmd_mean_update(p, reward, tau), "kl_law": kl_update(p, reward, tau)}
    seen = np.ones(p.shape, dtype=bool) if seen is None else seen
    statistics = {
        "share": share(p, reward, tau, log_ratio), "slope": _slope(p, reward / tau - log_ratio, np.exp(log_ratio)),
        "reverse_kl": moved.reverse_kl, "kl": moved.kl, "chi2": moved.chi2, "weight": law.chi2_weight,
        "gain": ((q - p) * reward).sum(axis=-1),
        "gain_lambert": tau * (moved.kl + moved.reverse_kl * (1 + moved.chi2)),
        "gain_kl_law": tau * (moved.kl + moved.reverse_kl),
    }  # fmt: skip
    for name, update in laws.items():
        statistics |= {
            f"r2_{name}": _r2(p * seen, log_ratio, update.log_ratio),
            f"plain_r2_{name}": _r2(1.0 * seen, log_ratio, update.log_ratio),
            f"from_{name}": divergences.kl(q, update.policy),
        }
    return statistics


class Share(NamedTuple):
    """A pooled estimate of f = λ/KL(p‖q) and its interval."""

    value: float
    low: float
    high: float
    weight: float
    """λ, the slope of D − s on ρ; prompts count by their variance of ρ."""
    reverse_kl: float
    """KL(p‖q), averaged in the same way."""


def pooled_share(
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    tau: ArrayLike,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Share:
    r"""Estimate f of ordinary training from the rollouts of many prompts, with a bootstrap interval over prompts.

    From n rollouts of p with log-ratios s_i, ρ_i = e^{s_i} and κ_i = ρ_i − 1 − s_i, whose mean is KL(p‖q), each prompt
    gives unbiased estimates: the covariance of A/τ − s and ρ, and Var(ρ) KL(p‖q) as the mean over i of κ_i times the
    variance of the other ρ_j.

    Parameters
    ----------
    log_ratio : array or tensor (P, n)
        s = log(q/p) of each rollout, n ≥ 3.
    advantage : array or tensor (P, n)
        r minus anything that is constant over a prompt's rollouts.
    tau : float
        Temperature τ > 0 in reward units; the effective one, τ n/(n − 1), for the plain mean of n rollouts.
    rng : numpy.random.Generator
        Draws the bootstrap's prompts.
    resamples : int
        Bootstrap samples.
    level : float
        Of the percentile interval.

    Returns
    -------
    Share

    Raises
    ------
    ValueError
        Less than three rollouts of a prompt.

    References
    ----------
    Statements 2 and 4.
    """
    s, A = np.asarray(log_ratio, dtype=float), np.asarray(advantage, dtype=float)
    n = s.shape[-1]
    if n < 3:
        raise ValueError(f"log_ratio must have at least 3 rollouts of each prompt, got {n}.")
    ratio = np.exp(s)
    centred = ratio - ratio.mean(axis=-1, keepdims=True)
    covariance = ((A / tau - s) * centred).sum(axis=-1) / (n - 1)
    squares = (centred**2).sum(axis=-1, keepdims=True)
    variance = squares[:, 0] / (n - 1)
    without = (squares - centred**2 * n / (n - 1)) / (n - 2)
    product = ((ratio - 1 - s) * without).mean(axis=-1)
    chosen = rng.integers(len(s), size=(resamples, len(s)))
    low, high = np.quantile(
        covariance[chosen].sum(axis=1) / product[chosen].sum(axis=1), [(1 - level) / 2, (1 + level) / 2]
    )
    totals = covariance.sum(), product.sum(), variance.sum()
    return Share(totals[0] / totals[1], low, high, totals[0] / totals[2], totals[1] / totals[2])


def pooled_r2(log_ratio: ArrayLike, reward: ArrayLike, tau: float) -> dict[str, float]:
    r"""Estimate which part of the variance of s = log(q/p) the laws explain, from n rollouts of p for many prompts.

    A prompt's law is that of its rollouts, each of probability 1/n; their mean reward misses E_p[r] by its sampling
    error, so use many. Variances about a prompt's mean and squares of what a law misses are summed over the prompts.

    Parameters
    ----------
    log_ratio : array (P, n)
        s of each rollout.
    reward : array (P, n)
        Its reward.
    tau : float
        Temperature τ > 0 in reward units; the effective one, as in `pooled_share`.

    Returns
    -------
    dict of str to float
        ``lambert`` and ``kl_law``, at most 1 and negative for a law farther from s than its mean is; ``reward``, the
        share of the variance between rollouts of different reward: no law that knows rewards alone explains more, but
        for the prompts' means.

    References
    ----------
    Statements 1 and 2.

    Examples
    --------
    >>> r = np.array([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    >>> s = pmd_mean_update(np.full((2, 4), 0.25), r, 0.5).log_ratio
    >>> {name: round(value, 3) for name, value in pooled_r2(s, r, 0.5).items()}
    {'lambert': 1.0, 'kl_law': 0.908, 'reward': 1.0}
    """
    s, r = np.asarray(log_ratio, dtype=float), np.asarray(reward, dtype=float)
    p = np.full(s.shape, 1 / s.shape[-1])
    equal = r[:, :, None] == r[:, None, :]
    predicted = {
        "lambert": pmd_mean_update(p, r, tau).log_ratio, "kl_law": kl_update(p, r, tau).log_ratio,
        "reward": (equal * s[:, None, :]).sum(axis=-1) / equal.sum(axis=-1),
    }  # fmt: skip
    variance = ((s - s.mean(axis=-1, keepdims=True)) ** 2).sum()
    return {name: float(1 - ((s - own) ** 2).sum() / variance) for name, own in predicted.items()}


def _slope(p, y, x):
    """Slope of the regression of y on x, weighted by p; NaN where x is constant."""
    centred = x - (p * x).sum(axis=-1, keepdims=True)
    return _ratio((p * y * centred).sum(axis=-1), (p * centred**2).sum(axis=-1))


def _r2(weight, value, predicted):
    """1 − Σ w (value − predicted)² / Σ w (value − mean)²; without weight on it, an action may be anything."""
    w = weight / weight.sum(axis=-1, keepdims=True)
    value, predicted = np.where(w > 0, value, 0.0), np.where(w > 0, predicted, 0.0)
    mean = (w * value).sum(axis=-1, keepdims=True)
    return 1 - _ratio((w * (value - predicted) ** 2).sum(axis=-1), (w * (value - mean) ** 2).sum(axis=-1))


def _ratio(a, b):
    """a/b; NaN where b is 0."""
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b != 0)
