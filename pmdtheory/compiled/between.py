"""Between the passes: what becomes of the sums of all parts of a row, each of which has its own `t`."""

import numpy as np

from .elementary import exponential, log, log_of_one_more, loop
from .layout import (
    AVERAGE,
    BASELINE,
    BEST,
    CHANGE,
    CURVE,
    END,
    EXACT,
    EXPONENTS,
    FIRST,
    GIVEN,
    IDEAL,
    LAST,
    LIKELIEST,
    LOG,
    MASS,
    MEAN,
    MOVE,
    OWN,
    PSI,
    RATE,
    ROUGH,
    SCALE,
    SECOND,
    SHIFT,
    SLOPE,
    STEP,
    TARGETS,
    TAU,
    WEIGHT,
    V,
)

_STEPS = 20
_NEAR, THERE = 0.005, 2e-5  # moves of v after which a pass in 64 bits may follow, or none


@loop
def _summed(t, at, out):
    """Sums over the parts, always in one order."""
    first = at * out.size
    for i in range(out.size):
        out[i] = t[0, first + i]
    for part in range(1, len(t)):
        for i in range(out.size):
            out[i] += t[part, first + i]


@loop
def _farthest(t, out):
    first = 3 * out.size
    for i in range(out.size):
        out[i] = t[0, first + i]
    for part in range(1, len(t)):
        for i in range(out.size):
            out[i] = max(out[i], t[part, first + i])


@loop
def _choose(t, own):
    """The reward that belongs to the largest number."""
    for i in range(own.size):
        own[i] = t[0, own.size + i]
    for part in range(1, len(t)):
        for i in range(own.size):
            if t[part, i] > t[0, i]:
                t[0, i], own[i] = t[part, i], t[part, own.size + i]


@loop
def _begin(k, law, rows, g, state):
    """Of each row a, a first v, and its state: 1 where v is to be found, 0 where it is 0, −1 if not decided here."""
    active = False
    for i in range(rows):
        own, tau, variance, above = g[i + OWN], g[i + TAU], g[i + FIRST], g[i + SECOND]
        a = (own - g[i + GIVEN]) / tau + g[i + MEAN] if law == BASELINE else g[i + GIVEN]
        c = max(-a, 0.0)
        half = 0.5 * variance / ((1.0 + a) * (1.0 + a) if c == 0.0 else c + np.sqrt(c * c + variance))
        large = above / (1.0 + a + c) if k == 1.0 else 0.5 * variance / above
        v = c + half / np.sqrt(1.0 + (half / large) * (half / large)) if k == 1.0 else min(half, large)
        rounding = 1e-14 * abs(own) / tau
        fine = half > 1e-25 and variance < 1e30 and variance > rounding * rounding
        state[i] = 1 if fine and -256.0 < a < 1e15 else -1
        if above == 0.0 and 0.0 <= a < 1e300 and g[i + STEP] == 0.0:  # all targets are 0: nothing moves
            equal = law == BASELINE and abs(g[i + GIVEN] - own) <= 1e-13 * max(abs(g[i + GIVEN]), abs(own))
            state[i] = -1 if equal else 0  # whether the baseline is that one reward is for others to say
        g[i + V], g[i + SHIFT] = (v, a) if state[i] == 1 else (1.0, 1.0)
        g[i + WEIGHT], g[i + CHANGE] = k * g[i + V] + g[i + SHIFT], 0.0
        active |= state[i] == 1
    return active


@loop
def _newton_in_log(rows, g):
    """For k = 1, Halley's step of log Ψ − log v in log v, kept where the root lies, between half that value and all."""
    for i in range(rows):
        v, psi = g[i + V], g[i + PSI]
        value = log_of_one_more((psi - v) / v)
        first = -v * g[i + SLOPE] / psi
        second = first + v * (v * (g[i + CURVE] / psi)) - first * first
        first -= 1.0
        newton = -value / first
        bend = -0.5 * newton * second / first
        newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
        newton = min(max(newton, min(0.5 * value, value)), max(0.5 * value, value))
        growth, _ = exponential(newton)
        g[i + CHANGE], g[i + MOVE] = v * growth, abs(newton)


@loop
def _newton_in_weight(least, rows, g):
    """Where a < 0, Halley's step of 1/E_p[e^s] in λ, which stays above 0; moves are relative to λ or `least` v."""
    for i in range(rows):
        if g[i + SHIFT] < 0.0:
            v, excess, over = g[i + V], g[i + PSI] - g[i + V], 1.0 + g[i + WEIGHT]
            weight, mass = g[i + WEIGHT], 1.0 + excess / over
            first = -(g[i + SLOPE] + mass) / over
            second = (g[i + CURVE] - 2.0 * first) / over
            newton = -(excess / over) * (mass / first)
            bend = newton * (first / mass - 0.5 * second / first)
            newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
            beyond = newton < 0.0 and weight < 1e-6 * min(v, 1.0)
            newton = min(max(newton, -0.9 * weight), 9.0 * weight)
            g[i + CHANGE], g[i + MOVE] = newton, np.nan if beyond else abs(newton) / max(weight, least * v)


@loop
def _newton(rows, g):
    """For k = 0, Halley's step of log E_p[e^s] in v."""
    for i in range(rows):
        v, excess, over = g[i + V], g[i + PSI] - g[i + V], 1.0 + g[i + SHIFT]
        value, mass = log_of_one_more(excess / over), over + excess
        first = -(g[i + SLOPE] + 1.0) / mass
        second = g[i + CURVE] / mass - first * first
        newton = -value / first
        bend = -0.5 * newton * second / first
        newton /= 1.0 - (bend if abs(bend) < 0.5 else 0.0)
        newton = min(max(newton, -0.9 * v), 9.0 * v)
        g[i + CHANGE], g[i + MOVE] = newton, abs(newton) / min(v, 1.0)


@loop
def _moved(rows, g, state):
    """Change v where it is to be found; returns the farthest move or step. Numbers that are none decide nothing."""
    farthest = 0.0
    for i in range(rows):
        far = max(g[i + MOVE], 0.1 * g[i + STEP])
        state[i] = -1 if state[i] == 1 and not far < 1e30 else state[i]
        change = g[i + CHANGE] if state[i] == 1 else 0.0
        g[i + CHANGE] = change
        g[i + V] += change
        g[i + MOVE] = far if state[i] == 1 else 0.0
        farthest = max(farthest, g[i + MOVE])
    return farthest


@loop
def _move(k, least, rows, g, state):
    """Move v by what the sums say; returns how far the farthest row went."""
    if k == 1.0:
        _newton_in_log(rows, g)
        _newton_in_weight(least, rows, g)
    else:
        _newton(rows, g)
    return _moved(rows, g, state)


@loop
def _log_z(rows, g):
    """log Z of each row and what q is to be multiplied by; whether p e^x may have vanished somewhere."""
    again = False
    for i in range(rows):
        growth, mass = g[i + FIRST], g[i + MASS]
        again |= g[i + STEP] > 600.0 or not mass > 1e-10
        g[i + LOG] = log_of_one_more(max(growth, -0.5))
        g[i + SECOND], g[i + FIRST], g[i + MASS] = growth, mass, 1.0 / mass
    for i in range(rows):
        if g[i + SECOND] < -0.5:
            g[i + LOG] = log(g[i + FIRST])
    return again


@loop
def follow(at, law, k, rows, g, t, state):
    """What follows a pass: `at` has the next one, how many of its kind there were, and how it is to start."""
    stage, following = at[0], at[0]
    at[1] += 1
    if stage == BEST:
        _choose(t, g[OWN : OWN + rows])
        following = AVERAGE
    elif stage == AVERAGE:
        _summed(t, 0, g[MEAN : MEAN + rows])
        for i in range(rows):
            g[i + MEAN] *= g[i + RATE]
        following = TARGETS
    elif stage == TARGETS:
        _summed(t, 0, g[FIRST : FIRST + rows])
        _summed(t, 1, g[SECOND : SECOND + rows])
        _summed(t, 2, g[STEP : STEP + rows])
        following = ROUGH if _begin(k, law, rows, g, state) else END
        g[STEP : STEP + rows] = 0.0
        at[2] = 1
    elif stage == ROUGH:
        _summed(t, 0, g[PSI : PSI + rows])
        _summed(t, 1, g[SLOPE : SLOPE + rows])
        _summed(t, 2, g[CURVE : CURVE + rows])
        if at[3]:
            _summed(t, 3, g[FIRST : FIRST + rows])
            g[PSI], g[SLOPE], g[CURVE] = g[PSI] / g[FIRST], g[SLOPE] / g[FIRST], g[CURVE] / g[FIRST]
        farthest = _move(k, 1e-4, rows, g, state)
        at[2] = at[3] == 1 or farthest > 0.2
        if (farthest < _NEAR and at[3] == 0) or at[1] == _STEPS:
            following, at[2] = EXACT, 1
        at[3] = 0
    elif stage == EXACT:
        _summed(t, 0, g[PSI : PSI + rows])
        _summed(t, 1, g[SLOPE : SLOPE + rows])
        _farthest(t, g[STEP : STEP + rows])
        at[2] = 0
        if _move(k, 0.0, rows, g, state) < THERE or at[1] == _STEPS:
            following = LAST
    elif stage == LIKELIEST:
        _choose(t, g[OWN : OWN + rows])
        following = EXPONENTS
    elif stage == EXPONENTS:
        _summed(t, 0, g[FIRST : FIRST + rows])
        _summed(t, 1, g[MASS : MASS + rows])
        _farthest(t, g[STEP : STEP + rows])
        at[2] = _log_z(rows, g)
        following = IDEAL
    else:  # the masses, of which a single row's is divided away by one more pass
        if stage == LAST or at[2]:
            _summed(t, 0, g[MASS : MASS + rows])
        else:
            g[MASS : MASS + rows] = 1.0
        off = abs(g[MASS] - 1.0) > (1e-15 if stage == LAST else 0.0)
        following = SCALE if rows == 1 and off and stage != SCALE else END
    if following in (ROUGH, EXACT):
        for i in range(rows):
            g[i + WEIGHT] += k * g[i + CHANGE]  # v + a would cancel where a < 0
            if at[2]:
                g[i + LOG] = log(g[i + WEIGHT] + 1e-30)
    at[0] = following
    at[1] = at[1] if following == stage else 0
