"""The rules of advice: found where they are planted, judged on what they did not see, honest about their range."""

import json

import numpy as np
import pandas as pd
import pytest

from pmdtheory import advice, cli
from pmdtheory.advice import Trust, advise, fit, largest_tau, read, regimes

COEFFICIENTS = np.array([0.2, -1.0, 0.5, 0.6, 0.1])
TAUS = np.logspace(-4, 1, 11)


def planted(rng, kind, count):
    """A table of random regimes in which PMD-mean leads by 0.1 at U ≥ 8 and J ≤ 0.5, else by 0, and τ_max has a law."""
    rows = []
    for _ in range(count):
        regime = {
            "rollouts": int(2 ** rng.integers(2, 6)), "success": float(rng.uniform(0.05, 0.95)),
            "updates": int(2 ** rng.integers(0, 7)), "batches": int(2 ** rng.integers(0, 6)),
            "completions": 8, "lag": 0, "flips": 0.0, "mismatch": 0.0,
        }  # fmt: skip
        odds = regime["success"] / (1 - regime["success"])
        logs = [0, *map(np.log, (regime["updates"], regime["batches"], odds, regime["rollouts"]))]
        largest = np.exp(COEFFICIENTS @ np.array([1, *logs[1:]]))
        lead = 0.1 if regime["updates"] >= 8 and regime["success"] <= 0.5 else 0.0
        for method in ("pmd-mean", "pmd-part"):
            for tau in TAUS:  # nine tenths of the gain are left at `largest`, on a line in log τ from the τ below it
                below = TAUS[largest >= TAUS][-1] if (largest >= TAUS).any() else TAUS[0]
                share = np.log(tau / below) / np.log(largest / below) if largest > below else 0.0
                gain = 0.5 if tau <= below else max(0.5 - 0.05 * share, 0.0)
                rows.append({"kind": kind, **regime, "split": "tuning", "method": method, "knob": tau, "gain": gain})
        for method, own in {"pmd-mean": 0.0, "pmd-part": lead, "grpo": lead, "rloo": lead + 0.1}.items():
            rows.append({"kind": kind, **regime, "split": "evaluation", "method": method, "gain": 0.5 - own})
            rows[-1] |= {"lead": own, "lead_half": 0.01}
    return rows


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    return pd.DataFrame(planted(rng, "fitted", 80) + planted(rng, "held-out", 30))


def test_a_planted_rule_is_found(table):
    rule = fit(table)
    assert rule.age == 8 and rule.success == pytest.approx(0.5, abs=0.051)
    assert rule.right["fitted"] == 1.0 and rule.right["held-out"] >= 0.9
    for method in ("pmd-mean", "pmd-part"):
        assert rule.coefficients[method] == pytest.approx(COEFFICIENTS, abs=0.02)
        assert rule.factor[method] < 1.1
    assert {trust.behind for trust in rule.trust.values()} == {0}


def test_what_is_held_out_has_no_part_in_the_fit(table):
    """Turned round, its leads change the counts and nothing that was fitted."""
    turned = table.assign(lead=table.lead.where(table.kind != "held-out", -table.lead))
    before, after = fit(table), fit(turned)
    assert (after.age, after.success) == (before.age, before.success)
    assert np.array_equal(after.coefficients["pmd-mean"], before.coefficients["pmd-mean"])
    for rival in ("part", "clipped"):
        assert after.trust[True, rival].behind == before.trust[True, rival].ahead > 0
    assert after.right["held-out"] < before.right["held-out"]


def test_values_known_from_one_side_do_not_bend_the_rule(table):
    """Cutting the grid of τ censors a third of the regimes; taken as exact they would flatten the rule."""
    narrow = table[(table.split != "tuning") | table.knob.between(0.003, 1.1)]
    cells = regimes(narrow)
    assert (cells["side_pmd-mean"] != 0).mean() > 0.2
    kept = cells.dropna(subset="tau_pmd-mean")
    naive = np.linalg.lstsq(advice._design(kept), np.log(kept["tau_pmd-mean"]), rcond=None)[0]
    found = fit(narrow).coefficients["pmd-mean"]
    assert found == pytest.approx(COEFFICIENTS, abs=0.1)
    assert abs(naive[1] - COEFFICIENTS[1]) > 2 * abs(found[1] - COEFFICIENTS[1])


def test_the_fit_is_where_the_likelihood_is_flat(table):
    """Its gradient by finite differences of SciPy's normal law, with values known from either side."""
    from scipy.optimize import approx_fprime
    from scipy.stats import norm

    X = advice._design(regimes(table))
    y = X @ COEFFICIENTS + np.random.default_rng(0).normal(0, 0.3, len(X))
    low, high = np.quantile(y, [0.2, 0.7])
    y, side = y.clip(low, high), np.where(y < low, -1.0, np.where(y > high, 1.0, 0.0))

    def likelihood(parameters):
        law = norm(X @ parameters[:-1], np.exp(parameters[-1]))
        return np.where(side > 0, law.logsf(y), np.where(side < 0, law.logcdf(y), law.logpdf(y))).mean()

    found = advice._tobit(X, y, side)
    assert approx_fprime(found, likelihood, 1e-6) == pytest.approx(0, abs=1e-4)
    assert likelihood(found) > max(likelihood(found + step) for step in 0.01 * np.eye(6))


def test_with_one_update_tau_has_no_part_in_pmd_means_rule(table):
    """Whatever is measured there, the rule of PMD-mean stays; PMD-part's does not."""
    flat = table.assign(gain=table.gain.where((table.updates > 1) | (table.split != "tuning"), 0.5))
    before, after = fit(table), fit(flat)
    assert np.array_equal(before.coefficients["pmd-mean"], after.coefficients["pmd-mean"])
    assert not np.allclose(before.coefficients["pmd-part"], after.coefficients["pmd-part"], atol=0.01)


def test_exponents_have_intervals_as_wide_as_least_squares_says(monkeypatch):
    """Where every value is known, t₀.₉₇₅ times the standard errors, but for the bootstrap's own error."""
    from scipy.stats import t as student

    rng = np.random.default_rng(2)
    count = 300
    cells = pd.DataFrame({
        "kind": "fitted", "age": 2.0 ** rng.integers(1, 7, count), "batches": 2.0 ** rng.integers(0, 6, count),
        "success": rng.uniform(0.1, 0.9, count), "rollouts": 2 ** rng.integers(2, 6, count), "side_pmd-mean": 0.0,
    })  # fmt: skip
    X = advice._design(cells)
    cells["tau_pmd-mean"] = np.exp(X @ COEFFICIENTS + rng.normal(0, 0.5, count))
    monkeypatch.setattr(advice, "regimes", lambda table: cells)
    found = advice.exponents(None)
    best, (rest,), *_ = np.linalg.lstsq(X, np.log(cells["tau_pmd-mean"]), rcond=None)
    half = student.ppf(0.975, count - 5) * np.sqrt(rest / (count - 5) * np.diag(np.linalg.inv(X.T @ X)))
    assert [each.value for each in found] == pytest.approx(best, abs=1e-4)
    assert [(each.high - each.low) / 2 for each in found] == pytest.approx(half, rel=0.2)
    assert all(each.low < truth < each.high for each, truth in zip(found, COEFFICIENTS))


@pytest.mark.parametrize(
    ("beyond", "quantile"),
    [
        ([], 9),
        ([1, 2, 3], 10),  # the others are a seventh each: up to 9 there are 6/7
        ([5], 10),  # what may lie beyond 5 is shared by the five above it: up to 9 there are 0.88
        ([10], 9),
        ([9, 10], np.inf),
    ],
)
def test_what_is_known_from_one_side_is_at_least_as_far(beyond, quantile):
    distances = np.arange(1.0, 11)
    assert advice._quantile(distances, np.isin(distances, beyond), 0.9) == quantile


def test_agreement_that_is_not_known_does_not_narrow_the_factor(table, monkeypatch):
    """Regimes in which every τ that was tried is small enough, as the rule says, tell nothing of how far it is off."""
    cells = regimes(table)
    held_out = cells.kind == "held-out"
    cells.loc[held_out, "tau_pmd-mean"] *= 2.0
    easy = cells[held_out].assign(success=0.999, batches=1024.0, **{"tau_pmd-mean": TAUS[-1], "side_pmd-mean": 1.0})
    monkeypatch.setattr(advice, "regimes", lambda table: cells)
    alone = fit(table).factor["pmd-mean"]
    monkeypatch.setattr(advice, "regimes", lambda table: pd.concat([cells, easy, easy]))
    assert alone == pytest.approx(2, rel=0.1) and fit(table).factor["pmd-mean"] == alone
    wrong = easy.assign(success=0.1, batches=1)  # the rule says less: the factor is at least what is known
    monkeypatch.setattr(advice, "regimes", lambda table: pd.concat([cells, wrong]))
    assert fit(table).factor["pmd-mean"] > 10


@pytest.mark.parametrize(
    ("gains", "tau", "side"),
    [
        ([0.5, 0.5, 0.5, 0.5], 1.0, 1),
        ([0.5, 0.5, 0.4, 0.1], np.sqrt(0.1 * 0.01), 0),
        ([0.5, 0.4, 0.1, 0.1], np.sqrt(0.01 * 0.001), -1),
        ([0.2, 0.5, 0.1, 0.46], 1.0, 1),
        ([0.01, 0.01, 0.0, 0.0], np.nan, np.nan),
        ([0.5, np.nan, 0.4, 0.1], np.nan, np.nan),
    ],
)
def test_largest_tau_by_hand(gains, tau, side):
    found = largest_tau(np.array([0.001, 0.01, 0.1, 1.0]), np.array(gains))
    assert found == pytest.approx((tau, side), rel=1e-9, nan_ok=True)


def test_a_lag_longer_than_the_run_counts_as_the_run(table):
    cells = regimes(table.assign(lag=100))
    assert (cells.age == cells.updates * cells.batches).all()


def test_the_committed_table_answers():
    """A small τ for many updates of few batches; what lies outside is said."""
    many, few = advise(16, 0.2, updates=64, batches=2), advise(16, 0.2, updates=4, batches=32)
    assert many.tau["pmd-mean"][0] < few.tau["pmd-mean"][0] and not many.outside
    assert many.tau["pmd-mean"][1] < many.tau["pmd-mean"][0] < many.tau["pmd-mean"][2]
    assert many.tried == few.tried == (0.001, 1.0)
    assert advise(16, 0.2, updates=1).tau["pmd-mean"] is None
    assert np.isfinite(advise(16, 0.2, updates=10**24, batches=10**24).tau["pmd-part"]).all()
    far = advise(128, 0.2, updates=8, batches=1000, flips=0.4)
    assert len(far.outside) == 3 and "extrapolates: n = 128, simulated 4 to 32" in str(far)


@pytest.mark.parametrize("updates", [2, 16, 64])
@pytest.mark.parametrize(("success", "batches"), [(0.03, 1), (0.2, 8), (0.9, 128)])
def test_no_tau_is_named_that_was_not_tried_without_saying_so(updates, success, batches):
    found = advise(16, success, updates, batches)
    for tau, line in zip(found.tau.values(), str(found).split("\n")[1:3]):
        low, high = sorted(tau)[0], sorted(tau)[2]
        assert 0.001 <= low <= high <= 1
        assert ("less than 0.001" in line) == (low == 0.001) and ("more than 1" in line) == (high == 1)
        assert ("was not tried" in line) == (low == 0.001 or high == 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rollouts": 1}, "rollouts"), ({"success": 0}, "success"), ({"updates": 0}, "updates"), ({"lag": -1}, "lag")],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        advise(**{"rollouts": 8, "success": 0.2, "updates": 8} | change)


def test_tables_that_will_not_do_are_named(tmp_path, table):
    with pytest.raises(ValueError, match=r"nowhere\.csv is not there"):
        read(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="'fitted' and 'held-out'"):
        fit(table[table.kind == "fitted"])
    table.drop(columns="lead").to_csv(tmp_path / "other.csv")
    (tmp_path / "no table").write_bytes(b"a\nb,c\n\xff")
    for path, lacks in (("other.csv", "lacks lead:"), ("no table", "lacks kind, "), ("", "is not there")):
        with pytest.raises(ValueError, match=lacks):
            read(tmp_path / path)


@pytest.mark.parametrize("value", [np.nan, "many"])
@pytest.mark.parametrize(("column", "split"), [("gain", "tuning"), ("success", "tuning"), ("lead", "evaluation")])
def test_a_number_that_is_missing_is_named(tmp_path, table, column, split, value):
    row = table.index[(table.split == split) & (table.method == "pmd-part")][3]
    wrong = table.assign(lag=0, knob=table.knob.fillna(1.0)).astype({column: object})
    wrong.loc[row, column] = value
    wrong.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match=f"table.csv must have a number for {column} in line {row + 2}: name a copy"):
        read(tmp_path / "table.csv")


def test_counts_in_words():
    words = str(Trust(9, 1, 10))
    assert "in 9 of 10 held-out regimes (55% to 100%)" in words and "behind by as much in 1" in words


def test_the_command_at_its_defaults_and_as_json(capsys, tmp_path):
    assert cli.main(["advise"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("In simulation PMD-mean ") and "τ at most" in out and "held-out regimes" in out
    assert cli.main(["advise", "--updates", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tau"]["pmd-mean"] is None and set(found["held_out"]) == {"part", "clipped"}
    assert found["tried"] == [0.001, 1.0]
    assert cli.main(["advise", "--table", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
