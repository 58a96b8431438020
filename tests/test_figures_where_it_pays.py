"""Where PMD-mean pays: what the picture says follows from the table, and a doctored table says something else."""

import numpy as np
import pandas as pd
import pytest

from figures import harness, where_it_pays
from pmdtheory import advice


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(harness.DATA / "where_it_pays.csv")


def test_every_cell_has_what_was_promised(table):
    """All regimes, five methods, at least fifty seeds' worth of evaluation, other seeds for tuning."""
    grid = {name: where_it_pays.FULL[name] for name in ("maps", "success", "updates", "random")}
    for kind in where_it_pays.FULL["kinds"]:
        wanted = where_it_pays.regimes(kind, **grid)
        own = table[(table.kind == kind) & (table.split == "evaluation")]
        assert own.groupby("method").size().eq(len(wanted)).all()
        assert own.method.nunique() == (2 if kind == "bandit" else 5)
    assert where_it_pays.FULL["seeds"] >= 50


def test_unseen_regimes_are_others(table):
    seen, unseen = (where_it_pays.regimes(kind, (), (), (), random=90) for kind in ("fitted", "held-out"))
    assert not set(seen) & set(unseen) and len(unseen) == 45


def test_smoothing_is_the_mean_of_neighbours():
    assert where_it_pays.smoothed(np.array([[3.0, 0.0, 6.0, 3.0]])) == pytest.approx(np.array([[1.5, 3.0, 3.0, 4.5]]))


def test_the_choice_avoids_a_cliff(monkeypatch):
    """The best single value stands beside the worst ones: it is not chosen."""
    cliff = dict(zip(where_it_pays.TAUS, (0.2, 0.31, 0.3, 0.1, 0.35, -0.2)))

    def gains(regime, trials, seeds, seed):
        return np.array([[cliff.get(trial.knob, 0.0) if trial.rate == 1.0 else -1.0] * seeds for trial in trials])

    monkeypatch.setattr(where_it_pays, "gains", gains)
    rows = pd.DataFrame(where_it_pays.tuned("map", None, 3, 4))
    chosen = rows[(rows.split == "evaluation") & (rows.method == "pmd-mean")].iloc[0]
    assert (chosen.knob, chosen.rate) == (0.004, 1.0)


def doctored(table, lead):
    """The maps with another lead of PMD-mean over every rival."""
    rivals = (table.kind == "map") & (table.method != "pmd-mean") & (table.split == "evaluation")
    return table.assign(lead=table.lead.where(~rivals, lead), lead_half=table.lead_half.where(~rivals, 0.01))


@pytest.mark.parametrize(("lead", "verdict"), [(0.3, "pmd-mean"), (0.0, "none"), (-0.3, "part")])
def test_verdicts_follow_the_table(table, lead, verdict):
    cells = where_it_pays.mapped(doctored(table, lead))
    assert set(cells.verdict) == {verdict}
    number = {"pmd-mean": "trails in 0", "none": "trails in 0", "part": f"trails in {len(cells)}"}[verdict]
    assert where_it_pays.title(doctored(table, lead)).endswith(number)


def test_only_the_clipped_methods_ahead(table):
    changed = doctored(table, 0.3)
    clipped = changed.method.isin(("grpo", "rloo")) & (changed.kind == "map") & (changed.split == "evaluation")
    cells = where_it_pays.mapped(changed.assign(lead=changed.lead.where(~clipped, -0.2)))
    assert set(cells.verdict) == {"clipped"}


def test_many_comparisons_need_more_than_one_interval(table):
    """A lead just beyond its own 95% interval is not told apart among so many, nor does one count that is too small."""
    just = doctored(table, 0.0303)
    just = just.assign(lead_half=just.lead_half.where(just.lead_half != 0.01, 0.03))
    assert set(where_it_pays.mapped(just).verdict) == {"none"}
    assert set(where_it_pays.mapped(doctored(table, 0.019)).verdict) == {"none"}


def test_the_finding_follows_the_unseen_regimes(table):
    """Turned round, their leads make the rule wrong where it said that PMD-mean pays."""
    turned = table.assign(lead=table.lead.where(table.kind != "held-out", -table.lead))
    assert where_it_pays.finding(turned) != where_it_pays.finding(table)
    assert "leads PMD-part in 0 " in where_it_pays.finding(turned)
    assert advice.fit(turned).right["held-out"] < advice.fit(table).right["held-out"]
