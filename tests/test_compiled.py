"""The compiled updates: that they are used, agree with NumPy's, and leave what they should."""

import os
import shutil
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import types

from pmdtheory import baseline_update, compiled, kl_update, mixed_update, pmd_mean_update, updates
from pmdtheory.compiled import beside, elementary, kept, layout, solve, threads
from tests.problems import hard_problems, on, problems

UPDATES = {
    "kl": kl_update, "pmd-mean": pmd_mean_update, "mixed": lambda *problem: mixed_update(*problem, 0.3),
    "baseline": lambda *problem: baseline_update(*problem, -4.0),
}  # fmt: skip
SHAPES = [(1, 70_000), (1, 5000), (300, 7), (5, 256), (3, 257), (40, 1), (1, 2), (7, 1000), (2, 3, 4)]


def ordinary(shape, seed=0):
    """Dirichlet policies with a few zeros, and normal rewards."""
    rng = np.random.default_rng(seed)
    policy = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
    if shape[-1] > 2:
        policy[rng.random(shape) < 0.05] = 0.0
        policy /= policy.sum(axis=-1, keepdims=True)
    return policy, rng.normal(size=shape)


def same(one, other, tolerance=1e-12):
    assert np.abs(one.policy - other.policy).sum(axis=-1).max() < tolerance
    for field in ("log_ratio", "chi2_weight", "baseline"):
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(one.local, other.local)


def no_other_path(*problem):
    raise AssertionError("a row was left to NumPy")


def alone(update, *problem):
    """The update, of which no row may be left to NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_kl", "_pmd_mean", "_mixed", "_with_baseline"):
            patch.setattr(updates, name, no_other_path)
        return update(*problem)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tau", [3.0, 1.0, 0.1, 1 / 30])
@pytest.mark.parametrize("name", UPDATES)
def test_ordinary_problems_are_solved_without_numpy_and_alike(name, tau, shape):
    policy, reward = ordinary(shape)
    fast = alone(UPDATES[name], policy, reward, tau)
    with on("NumPy"):
        same(fast, UPDATES[name](policy, reward, tau))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[-1] > 1], ids=str)
@pytest.mark.parametrize("tau", [3.0, 0.1, 1 / 30])
@pytest.mark.parametrize("share", [1e-6, 0.5, 0.99])
def test_baselines_between_the_mean_and_the_log_partition(share, tau, shape):
    """There 0 < λ < KL(p‖q); a rounding of λ moves s + λ e^s by ρ of it."""
    policy, reward = ordinary(shape)
    ideal, mean = kl_update(policy, reward, tau).baseline, pmd_mean_update(policy, reward, tau)
    baseline = mean.baseline + share * (ideal - mean.baseline)
    fast = alone(baseline_update, policy, reward, tau, baseline)
    assert np.all((fast.chi2_weight > 0) & (fast.chi2_weight < mean.chi2_weight))
    target = (reward - baseline[..., None]) / tau
    ratio = np.exp(fast.log_ratio)
    residual = fast.log_ratio + fast.chi2_weight[..., None] * ratio - target
    assert np.abs(residual / (1 + ratio))[policy > 0].max() < 1e-13
    with on("NumPy"):
        same(fast, baseline_update(policy, reward, tau, baseline), 1e-11)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("baseline", [0.1, 0.4454116107454644, 0.6])
def test_a_small_weight_beside_a_large_divergence_keeps_its_digits(baseline, rows):
    """λ = v − c cancels where KL(p‖q) = v is in the hundreds; the root of E_p[e^s] = 1, s = d − W(λ e^d), does not."""
    policy, reward, tau = np.array([1.54e-8, 0.998377407, 1 - 0.998377407 - 1.54e-8]), np.array([1.0, 0.0, 0.0]), 0.0024
    with mpmath.workdps(40):
        p, tau_exact = [mpmath.mpf(float(x)) for x in policy], mpmath.mpf(tau)
        targets = [(mpmath.mpf(float(r)) - mpmath.mpf(baseline)) / tau_exact for r in reward]

        def excess(log_weight):
            weight = mpmath.exp(log_weight)
            ratios = (mpmath.lambertw(weight * mpmath.exp(d)).real / weight for d in targets)
            return mpmath.log(mpmath.fsum(x * ratio for x, ratio in zip(p, ratios)))

        weight = float(mpmath.exp(mpmath.findroot(excess, (-20, -10), solver="anderson", tol=1e-25)))
    fast = alone(baseline_update, np.tile(policy, (rows, 1)), np.tile(reward, (rows, 1)), tau, baseline)
    np.testing.assert_allclose(fast.chi2_weight, weight, rtol=1e-12)


@settings(max_examples=60)
@given(problems(smallest_exponent=-30, zeros=True), st.floats(-1, 1))
def test_any_baseline_up_to_the_log_partition_alike(problem, share):
    policy, reward, tau = problem
    mean, ideal = policy @ reward, float(kl_update(*problem).baseline)
    baseline = mean + share * (ideal - mean)
    fast = baseline_update(*problem, baseline)
    with on("NumPy"):
        plain = baseline_update(*problem, baseline)
    rounding = 1e-14 * (np.abs(reward).max() / tau + 1)
    assert np.abs(fast.policy - plain.policy).sum() < 1e-12 + rounding
    assert fast.chi2_weight == pytest.approx(plain.chi2_weight, rel=1e-9, abs=10 * rounding)


@pytest.mark.parametrize("name", UPDATES)
def test_two_levels_of_reward(name):
    """With a level that a row lacks, actions without probability at a third, and steps that are tiny."""
    policy, reward = ordinary((200, 9))
    reward = np.where(policy > 0, (reward > 0.5).astype(float), 7.0)
    reward[:3] = 1.0
    for tau in (1e6, 0.5, 0.02):
        fast = alone(UPDATES[name], policy, reward, tau)
        with on("NumPy"):
            same(fast, UPDATES[name](policy, reward, tau))
        assert np.all(fast.log_ratio[policy == 0] == 0) and np.all(fast.policy[policy == 0] == 0)
        if name != "mixed":
            assert np.abs(fast.log_ratio[:3]).max() < 1e-15


def test_two_levels_in_some_rows_only():
    """Rows are merged where all at their side have two levels."""
    policy, reward = ordinary((100, 9), seed=2)
    reward[:70] = (reward[:70] > 0).astype(float)
    for update in (UPDATES["pmd-mean"], UPDATES["mixed"]):
        fast = alone(update, policy, reward, 0.3)
        with on("NumPy"):
            same(fast, update(policy, reward, 0.3))


SPOILED = {
    "policy with NaN": (0, np.nan), "policy below 0": (0, -1e-300), "policy infinite": (0, np.inf),
    "policy far from 1": (0, 0.9), "policy near 1": (0, lambda x: x + 1e-9),
    "policy at rounding": (0, lambda x: x + 8e-15),
    "reward infinite": (1, np.inf), "reward with NaN": (1, np.nan), "reward huge": (1, 1e306),
    "tau overflows": (2, 1e-308), "tau zero": (2, 0.0), "tau infinite": (2, np.inf),
    "baseline with NaN": (3, np.nan), "baseline huge": (3, -1e305),
}  # fmt: skip


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("shape", [(1, 5), (2, 5), (77, 5), (3, 300), (1, 70_000)], ids=str)
@pytest.mark.parametrize("spoil", SPOILED)
def test_arguments_that_are_not_plainly_sound_are_judged_by_the_checks(spoil, shape, binary):
    """The compiled updates look at their arguments themselves, and leave what is not beyond doubt to `simplex`."""
    policy, reward = ordinary(shape)
    policy[-1, :2], policy[-1, 2:] = (0.3, 0.7), 0.0
    reward = (reward > 0).astype(float) if binary else reward
    problem = [policy, reward, np.full(len(policy), 0.5), np.full(len(policy), -4.0)]
    which, value = SPOILED[spoil]
    place = [(-1, 0), (-1, -1), -1, -1][which]  # a reward of an action without probability
    problem[which][place] = value(problem[which][place]) if callable(value) else value
    for update, arguments in (kl_update, problem[:3]), (pmd_mean_update, problem[:3]), (baseline_update, problem):
        found = []
        for path in ("compiled", "NumPy"):
            with on(path):
                try:
                    found.append(update(*arguments))
                except ValueError as error:
                    found.append(str(error))
        if isinstance(found[1], str):
            assert found[0] == found[1]
        else:
            same(*found)


def test_rows_that_are_left_come_back_in_their_places():
    """Rows at the limits of floating-point numbers among ordinary ones."""
    policy, reward = ordinary((60, 5), seed=1)
    policy[[3, 17, 40]] = [1, 1e-300, 0, 0, 0], [1, 1e-200, 1e-200, 0, 0], [1, 1e-300, 1e-300, 0, 0]
    reward[3] = [0, 1000, 0, 0, 0]
    for name in ("kl", "pmd-mean"):
        fast = UPDATES[name](policy, reward, 1.0)
        with on("NumPy"):
            same(fast, UPDATES[name](policy, reward, 1.0))


def test_a_row_refused_by_numpy_is_named_by_its_place():
    policy, reward = ordinary((30, 4))
    baseline = np.full(30, -5.0)
    baseline[[4, 21]] = 0.0, 90.0
    with pytest.raises(ValueError, match=r"got 90\.0 at index \(21,\)"):
        baseline_update(policy, reward, 1.0, baseline)


def test_hard_problems_are_mostly_decided():
    """Were everything left to NumPy, the tests against high precision would not see the compiled path."""
    done = [
        bool(compiled.pmd_mean(policy[None], reward[None], np.array([tau]))[-1][0])
        for policy, reward, tau in hard_problems(np.random.default_rng(3), 200)
    ]
    assert np.mean(done) > 0.6
    between = [
        bool(compiled.with_baseline(p[None], r[None], np.array([tau]), np.array([b]))[-1][0])
        for p, r, tau in hard_problems(np.random.default_rng(3), 200)
        for b in [(p @ r + kl_update(p, r, tau).baseline) / 2]
    ]
    assert np.mean(between) > 0.5


@pytest.mark.parametrize("kind", ["float32", "integers", "strided", "read-only"])
def test_arrays_of_other_kinds(kind):
    policy, reward = ordinary((6, 5))
    if kind == "float32":
        policy, reward = policy.astype(np.float32), reward.astype(np.float32)
    elif kind == "integers":
        reward = np.arange(30).reshape(6, 5)
    elif kind == "strided":
        policy, reward = np.asfortranarray(policy), np.repeat(reward, 2, axis=1)[:, ::2]
    else:
        policy.flags.writeable = reward.flags.writeable = False
    for update in UPDATES.values():
        fast = update(policy, reward, 0.7)
        with on("NumPy"):
            same(fast, update(policy, reward, 0.7))


def test_tiny_probabilities_keep_their_log_ratios():
    """Where E_p[D] is lost in subnormal numbers, and where e^s is one."""
    with on("NumPy"):
        plain = kl_update([1, 5e-324], [0, -0.3], 1.0), pmd_mean_update([0.5, 0.5], [0, 720], 1.0)
    fast = kl_update([1, 5e-324], [0, -0.3], 1.0), pmd_mean_update([0.5, 0.5], [0, 720], 1.0)
    for one, other in zip(fast, plain):
        np.testing.assert_allclose(one.log_ratio, other.log_ratio, rtol=1e-13)
    policy, reward = np.full(3, 1 / 3), np.array([0.0, -715.0, -743.0])
    np.testing.assert_allclose(kl_update(policy, reward, 1.0).policy, np.exp(reward), rtol=0.02, atol=0)


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("name, weight", [("kl", 0), ("pmd-mean", 0), ("mixed", 0.3), ("baseline", 4)])
def test_an_action_too_rare_to_have_moments_still_moves(name, weight, rows):
    """E_p[D] and E_p[D²] vanish; s + λ(e^s − 1) = −0.3 does not."""
    policy, reward = np.tile([1, 5e-324], (rows, 1)), np.tile([0.0, -0.3], (rows, 1))
    s = float(mpmath.findroot(lambda s: s + weight * mpmath.expm1(s) + 0.3, -0.1))
    found = UPDATES[name](policy, reward, 1.0).log_ratio
    np.testing.assert_allclose(found, np.tile([0.0, s], (rows, 1)), rtol=1e-13, atol=1e-15)


def test_updates_in_threads_that_outlive_the_main_one():
    """No thread can be started then, and nothing that registers itself with the interpreter be imported."""
    code = (
        "import threading, time, numpy as np\n"
        "from pmdtheory import kl_update\n"
        "def late():\n"
        "    time.sleep(0.3)\n"
        "    for shape in (2000, 300), (1, 600_000):\n"
        "        print(kl_update(np.full(shape, 1 / shape[1]), np.zeros(shape), 1.0).policy.shape)\n"
        "threading.Thread(target=late).start()\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "(2000, 300)\n(1, 600000)\n", done.stderr


def test_a_row_does_not_depend_on_its_neighbours():
    policy, reward = ordinary((50, 11))
    together = pmd_mean_update(policy, reward, 0.2)
    for i in (0, 20, 49):
        same(pmd_mean_update(policy[i], reward[i], 0.2), updates.Update(
            together.policy[i], together.log_ratio[i], together.chi2_weight[i], together.baseline[i], together.local[i],
        ), 1e-14)  # fmt: skip


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("shape", [(300, 7), (100, 10), (70, 96), (5, 257), (1, 70_000), (2, 70_000)], ids=str)
def test_the_same_bits_for_any_number_of_threads(monkeypatch, name, shape, binary):
    policy, reward = ordinary(shape)
    problem = policy, (reward > 0).astype(float) if binary else reward, 0.3
    monkeypatch.setattr(threads, "_SHARE", 8)
    found = []
    for number in ("1", "2", "3", "64"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        found.append(alone(UPDATES[name], *problem))
    assert solve.parts_of(70_000) == 3  # that threads share
    for other in found[1:]:
        for field in ("policy", "log_ratio", "chi2_weight", "baseline"):
            np.testing.assert_array_equal(getattr(found[0], field), getattr(other, field))


def test_elementary_functions():
    """Against 40 digits: rounding for the exponentials, what they promise for the rough ones."""
    with mpmath.workdps(40):
        for x in np.concatenate([np.linspace(-700, 700, 301), np.geomspace(1e-300, 1, 40), -np.geomspace(1e-9, 1, 40)]):
            exact, one_less = mpmath.exp(mpmath.mpf(float(x))), mpmath.expm1(mpmath.mpf(float(x)))
            less, ratio = elementary.exponential(x)
            assert abs(less - one_less) <= 6e-16 * abs(one_less) and abs(ratio - exact) <= 6e-16 * exact
        near = np.geomspace(1e-12, 0.9)
        for x in np.concatenate([np.geomspace(1e-300, 1e300, 501), near - 1, -near]):
            exact = mpmath.log1p(mpmath.mpf(float(x)))
            assert abs(elementary.log_of_one_more(x) - exact) <= 2e-15 * abs(exact)
        for x in np.concatenate([np.geomspace(1e-300, 1e300, 501), 1 + near, 1 - near]):
            exact = mpmath.log(mpmath.mpf(float(x)))
            assert abs(elementary.log(x) - exact) <= 2e-15 * abs(exact)


@pytest.mark.parametrize("weight", [1e-9, 1e-3, 0.4, 30.0, 1e6])
def test_a_first_solution_and_rough_steps(weight):
    """s + λ (e^s − 1) = d by Lambert's function: the start within 0.06, then each step gains single precision."""
    d = np.concatenate([np.linspace(-90, 80, 196), np.geomspace(1e-6, 1, 30), -np.geomspace(1e-6, 1, 30)])
    with mpmath.workdps(40):
        exact = [x + weight - mpmath.lambertw(weight * mpmath.exp(x + weight)).real for x in map(mpmath.mpf, d)]
        size = [mpmath.expm1(s) - s for s in exact]
    exact, size = (np.array(x, dtype=float).reshape(-1, layout.LANES) for x in (exact, size))
    for targets, s, terms in zip(d.reshape(exact.shape), exact, size):
        c = np.zeros((layout.QUANTITIES, layout.LANES), dtype=np.float32)
        c[np.array([layout.WEIGHT, layout.LOG]) // layout.LANES] = np.array([[weight], [np.log(weight)]])
        y = np.stack([np.ones(s.size), targets, s, s]).astype(np.float32)
        arguments, found = (y.reshape(1, -1), np.float32(1), c.reshape(-1)), y[2]
        beside._starts(y.reshape(1, -1), c.reshape(-1))
        assert np.abs(found - s).max() < 0.06
        beside._roughs(*arguments)
        np.testing.assert_allclose(found, s, rtol=1e-5, atol=3e-8)
        c[layout.PSI // layout.LANES] = 0.0
        beside._roughs(*arguments)
        np.testing.assert_allclose(found, s, rtol=1e-5, atol=1e-14)
        np.testing.assert_allclose(c[layout.PSI // layout.LANES], terms, rtol=5e-4)


def test_where_nothing_can_be_written(monkeypatch):
    """Numba refuses to keep what it compiles if it finds no folder for it."""
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    assert kept.kept(types.int64)(lambda x: 2 * x)(21) == 42


def test_what_is_kept_on_disk_is_made_anew_when_any_file_of_the_package_changes(tmp_path):
    """Numba itself looks at the file of a compiled function only, not at those of the functions that it calls."""
    package = tmp_path / "package"
    package.mkdir()
    shutil.copy(kept.__file__, package / "kept.py")
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(
        "from numba import types\n"
        "from .kept import kept\n"
        "from .sibling import times\n"
        "@kept(types.int64)\n"
        "def entry(x):\n"
        "    return times(x)\n"
    )
    code = "from package.entry import entry; print(entry(7), sum(entry.stats.cache_hits.values()))"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    found = []
    for factor in (2, 2, 3):
        (package / "sibling.py").write_text(f"import numba\n@numba.njit\ndef times(x):\n    return {factor} * x\n")
        run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run([sys.executable, "-c", code], **run)
        found.append((done.stdout.split(), len(list(tmp_path.rglob("*.nbc")))))
    assert found == [(["14", "0"], 1), (["14", "1"], 1), (["21", "0"], 2)], done.stderr


def test_all_that_is_kept_on_disk_hangs_on_the_files_of_the_package():
    assert [cell.cell_contents for cell in solve.solve_rows.py_func.__closure__] == [kept._SOURCES]


@pytest.mark.parametrize("how", ["environment", "no numba", "no compiler"])
def test_numpy_alone(how):
    code = "import sys; from pmdtheory import pmd_mean_update; "
    code += "sys.modules['numba'] = None; " if how == "no numba" else ""
    code += "print(pmd_mean_update([0.5, 0.5], [0, 1], 1).policy.round(4), 'pmdtheory.compiled' in sys.modules)"
    off = {"environment": {"PMDTHEORY_COMPILED": "0"}, "no compiler": {"NUMBA_DISABLE_JIT": "1"}}.get(how, {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | off)
    assert done.stdout == "[0.2862 0.7138] False\n", done.stderr
