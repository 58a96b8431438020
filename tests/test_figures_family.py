"""Figures of the family: their rows satisfy the equations of the laws, written out here."""

import numpy as np
import pytest

from figures import averaging, family, filtering, kimi_k25, robustness


def test_averaging_rows_solve_the_capped_equation_and_end_on_the_two_laws():
    table = averaging.compute(**averaging.FULL)
    J, tau, c = table.success, table.tau, table.cap
    rho = np.stack([table.failure / (1 - J), table.after / J])
    s, weight = np.log(rho), np.maximum(1, rho / c.to_numpy())
    C = (-J - tau * s[0]) / weight[0]
    np.testing.assert_allclose(tau * s[1] + C * weight[1], 1 - J, atol=1e-10)
    for _, part in table.groupby(["success", "tau"]):
        assert part.failure.iloc[0] == pytest.approx(part.failure_mean.iloc[0], rel=0.05)
        assert part.failure.iloc[-1] == pytest.approx(part.failure_kl.iloc[-1], rel=1e-9)
        assert (np.diff(part.failure) <= 1e-12).all()
    assert "halfway at c" in averaging.finding(table)


def test_filtering_rows_solve_the_filtered_equation():
    table = filtering.compute(**filtering.FULL)
    there = table.dropna()
    J, n, tau = there.success, there.rollouts, there.tau
    after = 1 / (1 + np.exp(-there.odds))
    high, low = np.log(after / J), np.log((1 - after) / (1 - J))
    w_high, w_low = 1 - J ** (n - 1), 1 - (1 - J) ** (n - 1)
    C = (-J - w_low * tau * low) / np.exp(low)
    np.testing.assert_allclose(w_high * tau * high + C * np.exp(high), 1 - J, atol=1e-8)
    np.testing.assert_allclose(table.odds_kl - np.log(table.success / (1 - table.success)), 1 / table.tau, rtol=1e-9)
    largest = there[there["rollouts"] == 64]
    assert (np.abs(largest.odds - largest.odds_mean)[largest.success.between(0.2, 0.8)] < 1e-3).all()


def test_k25_rows_solve_their_equation_below_e_and_exist_where_the_boundary_says():
    table = kimi_k25.compute(**kimi_k25.FULL)
    there = table.dropna()
    rho = np.stack([there.failure / (1 - there.success), (1 - there.failure) / there.success])
    assert (rho <= np.e * (1 + 1e-9)).all()
    pull = 2 * there.tau.to_numpy() * np.log(rho) / rho
    np.testing.assert_allclose(pull[1] - pull[0], 1, atol=1e-9)
    clear = np.abs(table.tau - table.smallest_tau) > 1e-6
    assert (table.failure.notna() == (table.tau > table.smallest_tau))[clear].all()
    assert "all but 0 of them" in kimi_k25.finding(table)


def test_robustness_of_the_kl_law_is_that_of_a_softmax():
    settings = robustness.FULL | {"taus": (0.06, 0.5)}
    table = robustness.compute(**settings).set_index(["prompt", "law", "tau"])
    reward = np.linspace(0, 1, settings["actions"])
    for mean in settings["means"]:
        p = family.tilted(reward, mean)
        for tau in settings["taus"]:
            powers = [p * np.exp((reward + settings["error"] * (reward == a)) / tau) for a in [*reward, None]]
            policies = [power / power.sum() for power in powers]
            change = np.array([np.abs(q - policies[-1]).sum() for q in policies[:-1]])
            row = table.loc[mean, "on-policy", tau]
            assert row.largest == pytest.approx(change.max(), rel=1e-9)
            assert row["mean"] == pytest.approx(p @ change, rel=1e-9)
            assert row.action == reward[change.argmax()]
