"""The README's table of what replicates: it is the present one, and its verdicts follow from its intervals."""

import pandas as pd
import pytest

from figures import harness, replication


def test_the_readme_holds_the_present_table():
    text = replication.README.read_text()
    assert replication.update(text) == text
    assert all(claim in text for claim in ("conservative where rewards are low", "robust to finite samples", "faster"))


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match=r"README\.md must hold the marks"):
        replication.update("# Title")


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.9, "better than GRPO at U = 64"), (0.5, "not so against GRPO at U = 64")]
)
def test_verdicts_follow_from_the_intervals(ours, verdict, tmp_path, monkeypatch):
    """At U = 64 GRPO has 0.7 and GSPO the same as PMD-mean; at the other U all agree up to the seeds' noise."""
    monkeypatch.setattr(harness, "DATA", tmp_path)
    runs, curves = [], []
    for method, level in (("pmd-mean-loo", ours), ("grpo", 0.7), ("gspo", ours)):
        for updates in (1, 8, 64):
            for seed in range(5):
                end = (level if updates == 64 else 0.8) + 0.01 * ((seed * 7 + updates) % 5)
                key = {"method": method, "budget": "rollouts", "updates_per_batch": updates, "lag": 0, "seed": seed}
                runs.append(key | {"test/avg@8": end})
                for i in (0, 1):
                    spent = {"iteration": i, "tokens": 1e5 * i, "cpu_seconds": i}
                    curves.append(key | spent | {"validation/avg@8": 0.3 + i * (end - 0.3)})
    pd.DataFrame(runs).to_csv(tmp_path / "study_staleness.csv", index=False)
    pd.DataFrame(curves).to_csv(tmp_path / "study_staleness_curves.csv", index=False)
    accuracy, time = replication.better()
    assert verdict in accuracy[2]
    assert "GSPO" not in accuracy[2] and "U = 8" not in accuracy[2]
    assert f"PMD-mean {ours + 0.02:.2f} ± 0.02" in accuracy[1]
    assert ("faster than GRPO at U = 64" in time[2]) == (ours > 0.8)
