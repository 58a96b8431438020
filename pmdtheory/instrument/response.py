r"""What a loss does to one rollout: its coefficients, and how they answer to what is changed.

The coefficient of a token is −n ∂L/∂log π_θ of it. All that is known of a loss here is a function
``loss(logp, old_logp, mask, rewards, tau)`` of one group of rollouts, in PyTorch; the rest is NumPy.

As a function of a log-ratio x the coefficient of most losses is a combination of 1, x, e^x, x e^x and e^{2x}, which
five numbers tell apart:

=====================  ==============================================================
terms                  form
=====================  ==============================================================
1, x                   regression: A − τ x
1                      log-likelihood weighted by A
e^x, x e^x             regression over the policy: ρ (A − τ x)
x, e^x                 gain over the policy, penalty over the anchor: ρ A − 2τ x
e^x, e^{2x}            quadratic penalty in ρ (CFPO)
1, x, e^x              regression with a fixed χ² penalty
e^x                    importance-weighted, unclipped
=====================  ==============================================================

Where the coefficient vanishes on one side the ratio is clipped; where it is ρ A up to a cap and then constant, the
weights are truncated.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import baselines, knobs  # noqa: F401  knobs registers its baselines
from .bench import HARD, Prompt

__all__ = ["Loss", "Response", "measure"]

TARGET_KL = 0.8
_GRID = np.linspace(-2.0, 2.0, 41)
_SMALL = 1e-7


class Loss:
    """A loss of PyTorch tensors as coefficients of NumPy arrays.

    Parameters
    ----------
    function : callable
        ``function(logp, old_logp, mask, rewards, tau) -> loss``: tensors (n, T), (n, T), boolean (n, T), (n,) and a
        float; logp carries the gradient.

    Raises
    ------
    ModuleNotFoundError
        Without PyTorch.
    """

    def __init__(self, function: Callable[..., Any]):
        try:
            import torch
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "identify works on losses written in PyTorch, which is not installed: pip install 'pmdtheory[llm]'",
                name="torch",
            ) from error
        self._torch, self.function = torch, function

    def coefficients(
        self, logp: np.ndarray, old_logp: np.ndarray, mask: np.ndarray, rewards: np.ndarray, tau: float
    ) -> np.ndarray:
        """−n ∂L/∂logp, (n, T)."""
        torch = self._torch
        logp = torch.tensor(logp, dtype=torch.float64, requires_grad=True)
        old_logp, rewards = (torch.tensor(x, dtype=torch.float64) for x in (old_logp, rewards))
        loss = self.function(logp, old_logp, torch.tensor(mask), rewards, float(tau))
        if not (isinstance(loss, torch.Tensor) and loss.ndim == 0):
            raise ValueError(f"loss must return a tensor without axes, got {loss!r}.")
        if not loss.requires_grad:
            return np.zeros(logp.shape)
        (gradient,) = torch.autograd.grad(loss, logp, allow_unused=True)
        if gradient is None:
            return np.zeros(logp.shape)
        if not torch.isfinite(gradient).all():
            raise ValueError("loss must have finite gradients for log-ratios between -3 and 3, got NaN or infinity.")
        return -len(logp) * gradient.numpy()

    def on(
        self, prompt: Prompt, ratios: ArrayLike, tau: float, rewards: np.ndarray | None = None, padding: float = 0.0
    ) -> np.ndarray:
        """Coefficients (n, T) of a prompt's group at token log-ratios of (n, T) or (n,), the same at each token."""
        ratios = np.asarray(ratios, dtype=float)
        ratios = ratios if ratios.ndim == 2 else np.repeat(ratios[:, None], prompt.mask.shape[1], axis=1)
        mask = prompt.mask[prompt.rows]
        old = prompt.token_logp(prompt.anchor)[prompt.rows] + np.where(mask, 0.0, -1.0)
        rewards = prompt.reward[prompt.rows] if rewards is None else rewards
        return self.coefficients(old + np.where(mask, ratios, padding), old, mask, rewards, tau)

    def field(self, prompt: Prompt, tau: float) -> Callable[[np.ndarray], np.ndarray]:
        """What the loss does to the logits of a prompt, for `flow.follow`."""
        old = prompt.token_logp(prompt.anchor)

        def force(logits):
            ratios = (prompt.token_logp(logits) - old)[prompt.rows]
            each = self.on(prompt, ratios, tau)
            sums = np.zeros(prompt.mask.shape)
            np.add.at(sums, prompt.rows, each)
            return prompt.pull(logits, sums / len(prompt.rows))

        return force


@dataclass
class Response:
    """What `measure` found.

    Attributes
    ----------
    level : {'sequence', 'geometric', 'token'}
        What the coefficient is a function of: s, s/|y|, or the token's own s_t.
    form : str
        Its form; see the module's table.
    terms : ndarray, shape (5,)
        Coefficients of 1, x, e^x, x e^x, e^{2x} for the best completion, over that at x = 0, where it has that form.
    clip : tuple of float or None
        Ratios below and above which nothing pulls.
    cap : float or None
        Ratio above which the weight is constant.
    gates : tuple of float or None
        Steepness of a soft clip for A > 0 and A < 0.
    baseline : str
        Key of ``pmdtheory.baselines.BASELINES``, 'none', 'follows the residual', or 'unknown'.
    length, penalty_length : float
        Powers of |y| in the advantage's and in the penalty's coefficient: 0, or −1 where divided.
    equal_groups : {'pulled back', 'no gradient'}
        What happens to a moved policy where all rewards are equal.
    scale : {'linear', 'standardised', 'other'}
        Answer to doubled rewards.
    tau : float or None
        τ of a regression in reward units, at the declared temperature.
    follows_tau : bool or None
        Whether it doubles with the declared temperature.
    defects : list of str
        Planted or accidental, by name.
    """

    level: str = "sequence"
    form: str = "unknown"
    terms: np.ndarray | None = None
    clip: tuple | None = None
    cap: float | None = None
    gates: tuple | None = None
    baseline: str = "unknown"
    length: float = 0.0
    penalty_length: float | None = None
    equal_groups: str = "pulled back"
    scale: str = "other"
    tau: float | None = None
    follows_tau: bool | None = None
    defects: list = field(default_factory=list)


def measure(loss: Loss, tau: float) -> Response:
    """Find out how a `Loss` answers on the bench, at the declared temperature.

    Returns
    -------
    Response
    """
    found = Response()
    start = loss.on(HARD, np.zeros(len(HARD.rows)), tau)
    size = np.abs(start).max()
    if size == 0:
        raise ValueError("loss must have a gradient at the anchor where rewards differ, got zero.")
    if _reads_padding(loss, tau):
        found.defects.append("missing length mask")
    found.level = _level(loss, tau, size)
    first = _first_of(HARD)
    at_anchor = start[first, 0]
    found.length = _power(at_anchor, HARD)
    found.scale = _scale(loss, tau, start)
    found.baseline = _baseline(loss, start, found.length, tau)
    moved = np.random.default_rng(0).normal(size=len(HARD.rows))
    equal = loss.on(HARD, 0.3 * moved, tau, rewards=np.full(len(HARD.rows), 0.5))
    found.equal_groups = "pulled back" if np.abs(equal).max() > _SMALL * size else "no gradient"
    _read_form(found, loss, tau)
    follows, leaks = _answers_to_a_third(loss, tau)
    if leaks > _SMALL * size:
        found.defects.append("gradient through the baseline")
    elif follows > _SMALL * size:
        found.baseline = "follows the residual"
    if found.form == "regression":
        _read_regression(found, loss, tau, at_anchor)
    if found.baseline == "loo_log_partition":
        clamp = _clamp(loss)
        if clamp is not None:
            found.defects.append(f"clamp {clamp:.0e}".replace("e-0", "e-"))
    return found


def _first_of(prompt):
    """Row of the first rollout of each completion."""
    return np.concatenate([[0], np.cumsum(prompt.counts)[:-1]])


def _reads_padding(loss, tau):
    zero = np.zeros(len(HARD.rows))
    mask = HARD.mask[HARD.rows]
    plain, padded = loss.on(HARD, zero, tau), loss.on(HARD, zero, tau, padding=0.7)
    size = np.abs(plain[mask]).max()
    return bool(np.abs(padded[~mask]).max() > _SMALL * size or np.abs((padded - plain)[mask]).max() > _SMALL * size)


def _one_row(prompt, y, ratios):
    """Token log-ratios (n, T), those of the first rollout of completion y as given and else zero."""
    out = np.zeros((len(prompt.rows), prompt.mask.shape[1]))
    out[_first_of(prompt)[y], : prompt.lengths[y]] = ratios
    return out


def _coefficient(loss, tau, y, ratios, prompt=HARD):
    """Coefficients of the tokens of one rollout whose token log-ratios are given."""
    return loss.on(prompt, _one_row(prompt, y, ratios), tau)[_first_of(prompt)[y], : prompt.lengths[y]]


def _level(loss, tau, size):
    uneven = _coefficient(loss, tau, 3, np.array([0.05, -0.06, 0.11, 0.02]))
    if np.ptp(uneven) > _SMALL * size:
        return "token"
    # Two completions of equal reward but different lengths: the same function of s, or of s/|y|?
    pair = (0, 1) if _coefficient(loss, tau, 0, np.zeros(1))[0] != 0 else (3, 4)
    ends = {}
    for name, unit in (("sequence", np.ones(2)), ("geometric", HARD.lengths[list(pair)])):
        curves = [
            [_coefficient(loss, tau, y, x * total / HARD.lengths[y])[0] for x in (0.0, 0.02, 0.04)]
            for y, total in zip(pair, unit)
        ]
        a, b = (np.array(curve) / curve[0] for curve in curves)
        ends[name] = np.abs(a - b).max()
    return "geometric" if ends["geometric"] < 1e-9 < ends["sequence"] else "sequence"


def _power(at_anchor, prompt):
    """Power of |y| in the coefficient, from completions of equal reward."""
    pairs = [(a, b) for a in range(len(prompt.rewards)) for b in range(a) if prompt.rewards[a] == prompt.rewards[b]]
    powers = [
        np.log(at_anchor[a] / at_anchor[b]) / np.log(prompt.lengths[a] / prompt.lengths[b])
        for a, b in pairs
        if at_anchor[a] * at_anchor[b] > 0
    ]
    power = float(np.mean(powers)) if powers else 0.0
    return round(power) + 0.0 if abs(power - round(power)) < 1e-3 else power


def _scale(loss, tau, start):
    doubled = loss.on(HARD, np.zeros(len(HARD.rows)), tau, rewards=2 * HARD.reward[HARD.rows])
    for name, factor, tolerance in (("linear", 2.0, 1e-9), ("standardised", 1.0, 2e-3)):
        if np.abs(doubled - factor * start).max() < tolerance * np.abs(start).max():
            return name
    return "other"


def _baseline(loss, start, length, tau):
    """Name of the baseline whose advantages are in proportion to the coefficients at the anchor."""
    rewards = HARD.reward[HARD.rows]
    seen = start[:, 0] / HARD.lengths[HARD.rows] ** length
    candidates = {"none": rewards}
    for name, baseline in baselines.BASELINES.items():
        candidates[name] = rewards - baseline(rewards, tau, None, TARGET_KL)
    best = min(candidates, key=lambda name: _angle(seen, candidates[name]))
    if best in ("mean", "loo_mean"):  # in one direction: the group size tells them apart, the unit does not
        return _mean_or_leave_one_out(loss, tau)
    return best if _angle(seen, candidates[best]) < 1e-4 else "unknown"


def _angle(a, b):
    a, b = a / np.linalg.norm(a), b / max(np.linalg.norm(b), 1e-300)
    return np.linalg.norm(a - b)


def _mean_or_leave_one_out(loss, tau):
    """In a group twice as large, two copies of it, a leave-one-out advantage is (2n − 2)/(2n − 1) of what it was."""
    n, answers = len(HARD.rows), []
    for copies in (1, 2):
        rows = np.tile(HARD.rows, copies)
        logp = HARD.token_logp(HARD.anchor)[rows]
        answers.append(loss.coefficients(logp, logp, HARD.mask[rows], HARD.reward[rows], tau)[0, 0])
    return "loo_mean" if abs(answers[1] / answers[0] - (2 * n - 2) / (2 * n - 1)) < 1e-4 else "mean"


def _curve(loss, tau, y, level, prompt=HARD):
    """Coefficient of the first token of completion y as a function of x, its unit of log-ratio."""
    share = 1.0 if level in ("token", "geometric") else 1 / prompt.lengths[y]
    return np.array([_coefficient(loss, tau, y, np.full(prompt.lengths[y], x * share), prompt)[0] for x in _GRID])


def _terms(x, values):
    """Least squares on 1, x, e^x, x e^x, e^{2x}: coefficients, or None if that is not what the values are."""
    basis = np.stack([np.ones_like(x), x, np.exp(x), x * np.exp(x), np.exp(2 * x)], axis=1)
    terms = np.linalg.lstsq(basis, values, rcond=None)[0]
    size = np.abs(values).max()
    return (
        np.where(np.abs(terms) > 1e-6 * size, terms, 0.0)
        if np.abs(basis @ terms - values).max() < 1e-8 * size
        else None
    )


_FORMS = {
    (0, 1): "regression", (0,): "log-likelihood", (2, 3): "regression over the policy",
    (1, 2): "penalty over the anchor", (2, 4): "quadratic penalty", (0, 1, 2): "regression with a fixed χ² penalty",
    (2,): "importance-weighted",
}  # fmt: skip


def _read_form(found, loss, tau):
    """Form of the answer of the best completion (A > 0) and the worst (A < 0) to their own log-ratio."""
    worst = 0 if _coefficient(loss, tau, 0, np.zeros(1))[0] != 0 else 2
    curves = [_curve(loss, tau, y, found.level) for y in (3, worst)]
    terms = [_terms(_GRID, curve) for curve in curves]
    middle = len(_GRID) // 2
    if all(t is not None for t in terms):
        supports = [tuple(np.flatnonzero(t)) for t in terms]
        if supports[0] == supports[1]:
            found.form = _FORMS.get(supports[0], "unknown")
            found.terms = terms[0] / curves[0][middle]
            return
    ratios = [curve / np.exp(_GRID) / curve[middle] for curve in curves]
    flats = [np.abs(curve) < 1e-12 * np.abs(curve[middle]) for curve in curves]
    if flats[0][-1] and flats[1][0] and not flats[0][0] and not flats[1][-1]:
        found.form = "clipped surrogate"
        found.clip = (_edge(loss, tau, 0, found.level, -1), _edge(loss, tau, 3, found.level, 1))
        return
    constant = [curve / curve[-1] for curve in curves]
    if all(abs(c[-1] - c[-2]) < 1e-10 for c in constant) and all(abs(r[0] - r[1]) < 1e-10 for r in ratios):
        found.form = "truncated weights, no penalty"
        found.cap = float((curves[0][-1] / curves[0][0]) * np.exp(_GRID[0]))
        return
    low, high = slice(0, 8), slice(-8, None)
    parts = [_terms_of(_GRID[low], curves[0][low], (2, 3)), _terms_of(_GRID[high], curves[0][high], (0, 1))]
    if all(part is not None for part in parts):
        found.form, found.cap = "truncated regression", float(parts[1][0] / parts[0][0])
        return
    gates = [_gate(_GRID, ratio) for ratio in ratios]
    if all(g is not None for g in gates):
        found.form, found.gates = "soft clip", tuple(gates)


def _terms_of(x, values, which):
    basis = np.stack([np.ones_like(x), x, np.exp(x), x * np.exp(x)], axis=1)[:, list(which)]
    terms = np.linalg.lstsq(basis, values, rcond=None)[0]
    return terms if np.abs(basis @ terms - values).max() < 1e-9 * np.abs(values).max() else None


def _gate(x, ratio):
    """T of SAPO's 4 σ'(T (ρ − 1)) = 1/cosh²(T (ρ − 1)/2), or None."""
    near = np.abs(x) > 0.3
    with np.errstate(invalid="ignore", divide="ignore"):
        steep = 2 * np.arccosh(1 / np.sqrt(np.clip(ratio, 1e-300, None))) / np.abs(np.exp(x) - 1)
    inside = near & np.isfinite(steep) & (ratio < 1) & (ratio > 1e-6)
    if inside.sum() < 5 or np.ptp(steep[inside]) > 1e-5:
        return None
    return float(steep[inside].mean())


def _edge(loss, tau, y, level, sign):
    """The ratio at which a clipped completion's coefficient becomes zero, by bisection in x."""
    share = 1.0 if level in ("token", "geometric") else 1 / HARD.lengths[y]
    low, high = 0.0, 2.0
    for _ in range(30):
        x = (low + high) / 2
        c = _coefficient(loss, tau, y, np.full(HARD.lengths[y], sign * x * share))[0]
        low, high = (x, high) if c != 0 else (low, x)
    return float(np.exp(sign * low))


def _answers_to_a_third(loss, tau):
    """How the log-ratio of a third rollout changes the coefficient of another one, and of two copies the difference."""
    rows, own, differences = _first_of(HARD), [], []
    for third in (0.0, 0.4):
        ratios = np.zeros(len(HARD.rows))
        ratios[rows[3]], ratios[rows[2]] = 0.1, third
        c = loss.on(HARD, ratios, tau)[:, 0]
        own.append(c[rows[3]])
        differences.append(c[rows[3]] - c[rows[3] + 1])
    return abs(own[1] - own[0]), abs(differences[1] - differences[0])


def _read_regression(found, loss, tau, at_anchor):
    """τ of a regression, the length in its penalty, whether τ is what was declared."""

    def slope(y, t):
        share = 1.0 if found.level == "token" else 1 / HARD.lengths[y]
        a, b = (_coefficient(loss, t, y, np.full(HARD.lengths[y], x * share))[0] for x in (0.0, 0.5))
        return (a - b) / 0.5

    slopes = np.array([slope(y, tau) for y in range(len(HARD.counts))])
    found.penalty_length = _power(slopes, HARD)
    name = found.baseline if found.baseline in baselines.BASELINES else "mean"
    rewards = HARD.reward[HARD.rows]
    first = _first_of(HARD)[3]

    def measured(t):
        advantage = rewards[first] - baselines.BASELINES[name](rewards, t, None, TARGET_KL)[first]
        gain = loss.on(HARD, np.zeros(len(rewards)), t)[first, 0] / HARD.lengths[3] ** found.length / advantage
        return slope(3, t) / HARD.lengths[3] ** found.penalty_length / gain

    found.tau = float(measured(tau))
    factor = measured(2 * tau) / found.tau
    found.follows_tau = bool(abs(factor - 2) < 1e-6)
    if abs(factor - 1) < 1e-6:
        found.defects.append("τ dropped")
    if found.level == "token":
        found.defects.append("per-token squared ratio")
    if found.length == -1 and found.penalty_length == 0 and found.level == "sequence":
        found.defects.append("advantage scaled by 1/tokens")


def _clamp(loss):
    """The number at which the mean exponential of a lone success's rivals is clamped, or None if it is exact."""
    tau, n = 0.01, 16
    rewards = np.zeros(n)
    rewards[0] = 1.0
    logp, mask = np.full((n, 1), -1.0), np.ones((n, 1), dtype=bool)
    c = loss.coefficients(logp, logp, mask, rewards, tau)[:, 0]
    failure = -baselines.loo_log_partition(rewards, tau)[1]
    success = c[0] / c[1] * failure
    return None if abs(success - 1) < 1e-6 else float(np.exp(-success / tau))
