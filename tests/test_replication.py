"""The table of what replicates: the pages hold the present one, and every verdict follows from the tables."""

import numpy as np
import pandas as pd
import pytest

from figures import harness, replication
from figures.training_staleness import TARGET

OURS, PART = "pmd-mean-loo", "pmd-part-loo"
NAMES = (
    "validate_pretrained",
    *("validate", "validate_prompts", "study_temperature"),
    *("study_staleness", "study_staleness_curves", "study_staleness_tuning"),
)
COMMITTED = harness.DATA


@pytest.fixture
def verdict(tmp_path, monkeypatch):
    """The verdict of a row after a table was changed by a function."""
    monkeypatch.setattr(harness, "DATA", tmp_path)

    def changed(row, **changes):
        for name in NAMES:
            table = pd.read_csv(COMMITTED / f"{name}.csv")
            change = changes.get(name)
            (change(table) if change else table).to_csv(tmp_path / f"{name}.csv", index=False)
        return row()[2]

    return changed


def where(table, mask, **columns):
    """The table with other values where the mask holds."""
    return table.assign(**{name: table[name].where(~mask, value) for name, value in columns.items()})


@pytest.mark.parametrize(("page", "evidence"), [(replication.README, False), (replication.FINDINGS, True)])
def test_the_pages_hold_the_present_table(page, evidence):
    text = page.read_text()
    assert replication.update(text, evidence) == text
    assert ("R² at least" in text) == evidence
    assert all(claim in text for claim in ("conservative where rewards are low", "robust to finite samples", "faster"))


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match=r"README\.md must hold the marks"):
        replication.update("# Title")
    with pytest.raises(ValueError, match=r"findings\.md must hold the marks"):
        replication.update("# Title", evidence=True)


def test_law(verdict):
    """A fit off its law by 0.02, or swapped laws, and the verdict says so."""
    one = {"validate": lambda t: where(t, (t.experiment == "population") & (t.tau == 0.1), share=0.5)}
    swapped = {"validate": lambda t: t.assign(share=1 - t.share)}
    assert verdict(replication.law) == "holds"
    assert verdict(replication.law, **one) == "holds in 60 of 80 fits"
    assert verdict(replication.law, **swapped) == "does not hold"
    assert verdict(replication.law, validate=lambda t: t.assign(r2_law=0.9)) == "does not hold"


def test_other_losses(verdict):
    """One fit that is as near to PMD-mean's law is counted; without any the claim has no evidence."""

    def near(table):
        which = (table.experiment == "family") & (table.algorithm == "filtered") & (table.seed == 0)
        return table.assign(from_lambert=table.from_lambert.where(~which, table.from_law))

    assert verdict(replication.family) == "holds"
    assert verdict(replication.family, validate=near) == "holds in 39 of 40 fits"


def test_conservative(verdict):
    """Moving as far on low rewards as on high ones, and further."""

    def times(factor):
        def change(t):
            low = (t.algorithm == "pmd-mean") & (t.expected_reward < 0.3)
            return t.assign(kl=t.kl * np.where(low, factor, 1.0))

        return change

    assert verdict(replication.conservative) == "holds"
    assert verdict(replication.conservative, validate_prompts=times(10.0)) == "does not hold"
    same = {"validate_prompts": lambda t: t.assign(kl=1.0 + 0.1 * ((t.number + t.seed) % 3))}
    assert verdict(replication.conservative, **same) == "not told apart"


def test_finite_samples(verdict):
    """With every PMD-mean accuracy set to 0 the row does not say that the claim holds."""
    column = "test/avg@8"
    zero = {"study_temperature": lambda t: where(t, t.estimator == OURS, **{column: 0.0})}
    one = {"study_temperature": lambda t: where(t, t.estimator == PART, **{column: 0.0})}
    equal = {"study_temperature": lambda t: t.assign(**{column: 0.5 + 0.01 * t.seed})}
    assert verdict(replication.finite_samples, **zero) == "does not hold: PMD-part is ahead at τ = 0.02, at τ = 0.5"
    assert verdict(replication.finite_samples, **one) == "holds at τ = 0.02, at τ = 0.5"
    assert verdict(replication.finite_samples, **equal) == "not told apart at τ = 0.02, at τ = 0.5"


def test_stable(verdict):
    """Everything of the one estimator below its base, then of the other, then of neither."""

    def ending(ours, part):
        def change(t):
            names = t.get("estimator", t.get("method"))
            return t.assign(**{"before/avg@8": 0.3, "test/avg@8": names.map({OURS: ours, PART: part}).fillna(0.9)})

        return {"study_temperature": change, "study_staleness_tuning": change}

    places = "at τ ≤ 0.1, at τ > 0.1, in tuning for staleness"
    assert verdict(replication.stable, **ending(0.9, 0.1)) == f"holds {places}"
    assert verdict(replication.stable, **ending(0.1, 0.9)) == f"does not hold: PMD-part is ahead {places}"
    assert verdict(replication.stable, **ending(0.9, 0.9)) == f"not told apart {places}"


def test_better(verdict):
    """Ahead in all six comparisons, behind in all, ahead in one, equal."""

    def accuracy(ours, updates=(1, 8, 64), rivals=0.5):
        def change(t):
            noise = 0.01 * t.seed
            mine = (t.method == OURS) & t.updates_per_batch.isin(updates)
            return t.assign(**{"test/avg@8": noise + np.where(mine, ours, rivals)})

        return {"study_staleness": change}

    assert verdict(replication.better, **accuracy(0.9)) == "holds"
    assert verdict(replication.better, **accuracy(0.1)) == "does not hold"
    assert verdict(replication.better, **accuracy(0.5)) == "not told apart at this scale"
    one = verdict(replication.better, **accuracy(0.9, (8,)))
    assert one == "better than GRPO at U = 8, GSPO at U = 8; else not told apart"
    one = verdict(replication.better, **accuracy(0.1, (8,)))
    assert one == "worse than GRPO at U = 8, GSPO at U = 8; else not told apart"


def curves(ours, rivals):
    """Change the curves so that seed i of PMD-mean reaches the target after ours[i] tokens, NaN: never."""

    def change(t):
        rows = []
        cells = t[(t.budget == "rollouts") & (t.lag == 0)][["method", "updates_per_batch"]].drop_duplicates()
        for method, updates in cells.itertuples(index=False):
            for seed, cost in enumerate(ours if method == OURS else rivals):
                key = {"method": method, "budget": "rollouts", "updates_per_batch": updates, "lag": 0, "seed": seed}
                ends = ((0, 0.0), (1, cost), (2, 200.0)) if cost == cost else ((0, 0.0), (2, 200.0))
                for iteration, tokens in ends:
                    level = TARGET if iteration == 1 or (iteration == 2 and cost == cost) else 0.3
                    key |= {"log_ratio/std": 0.1, "validation/avg@8": level, "tokens": tokens}
                    rows.append(key | {"iteration": iteration})
        return pd.DataFrame(rows)

    return {"study_staleness_curves": change}


NEVER = np.nan


def test_faster(verdict):
    """All seeds earlier, all later, and what seeds that never get there do to it."""
    early, late = (10.0, 11.0, 12.0, 13.0, 14.0), (50.0, 51.0, 52.0, 53.0, 54.0)
    assert verdict(replication.faster, **curves(early, late)) == "holds"
    assert verdict(replication.faster, **curves(late, early)) == "does not hold"
    assert verdict(replication.faster, **curves(early, (*late[:3], NEVER, NEVER))) == "holds"
    assert verdict(replication.faster, **curves((NEVER,) * 5, late)) == "does not hold"
    assert verdict(replication.faster, **curves((NEVER,) * 5, (NEVER,) * 5)) == "not told apart at this scale"


def test_a_pretrained_network_is_on_its_law_if_the_whole_interval_is_near_it(verdict):
    def moved(by, algorithm=None):
        return {"validate_pretrained": lambda t: t.assign(
            share=t.share + by * ((t.algorithm == algorithm) | (algorithm is None))
        )}  # fmt: skip

    assert verdict(replication.pretrained_law) == "holds"
    assert verdict(replication.pretrained_law, **moved(0.2)) == "does not hold"
    assert verdict(replication.pretrained_law, **moved(0.2, "pmd-part")) == "not told apart"
    scattered = {"validate_pretrained": lambda t: t.assign(share=t.share + 0.1 * t.seed)}
    assert verdict(replication.pretrained_law, **scattered) == "does not hold"


def test_who_reaches_a_target_early_but_not_always_is_not_faster(verdict):
    """3 of 5 seeds after 10 thousand tokens against 5 of 5 after 50: k/m and a lower bound are shown, no verdict."""
    some, late = (10.0, 11.0, 12.0, NEVER, NEVER), (50.0, 51.0, 52.0, 53.0, 54.0)
    scaled = [[1e3 * cost for cost in costs] for costs in (some, late)]
    assert verdict(replication.faster, **curves(*scaled)) == "not told apart at this scale"
    evidence = replication.faster()[1]
    assert "PMD-mean ≥ 7 (3/5), GRPO 52 ± 2 (5/5)" in evidence


def test_the_cost_of_a_target_is_interpolated():
    """Between the evaluations around the crossing; NaN where accuracy never gets there; at once if it starts there."""
    common = {"method": "grpo", "budget": "rollouts", "lag": 0, "updates_per_batch": 8}
    rows = [
        common | {"seed": seed, "iteration": i, "tokens": 100.0 * i, "validation/avg@8": value}
        for seed, values in enumerate(((0.3, 0.6, 0.8, 0.5), (0.3, 0.4, 0.5, 0.6), (0.7, 0.2, 0.2, 0.2)))
        for i, value in enumerate(values)
    ]
    costs = replication.reaching_target(pd.DataFrame(rows))
    assert replication.TARGET == 0.7
    assert costs.tokens.to_list() == pytest.approx([150.0, np.nan, 0.0], nan_ok=True)
    assert (costs.budget == 300).all()
