"""Claims and their verdicts: the pages hold the present ones, each follows from its tables, and none is typed."""

import ast
import re

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from figures import harness, replication, simulation, verdicts
from figures.training_staleness import TARGET, reaching_target
from figures.verdicts import Claim

OURS, PART = "pmd-mean-loo", "pmd-part-loo"
ACCURACY = "test/avg@8"
ROOT = harness.HERE.parent
HOLDS, FAILS, OPEN, EMPTY = (verdicts.WORDS[sign] for sign in (1, -1, 0, None))


@pytest.fixture
def claim(monkeypatch):
    """The claim of a row after tables were changed, each by a function."""
    read = harness.read

    def changed(row, **changes):
        def doctored(path, columns=None, **options):
            table = read(path, columns, **options)
            return changes[path.stem](table) if path.stem in changes else table

        with monkeypatch.context() as patch:
            patch.setattr(harness, "read", doctored)
            return row()

    return changed


def empty(table):
    return table.iloc[:0]


def where(table, mask, **columns):
    """The table with other values where the mask holds."""
    return table.assign(**{name: table[name].where(~mask, value) for name, value in columns.items()})


def shifted(column, **values):
    """A column set to the value of its method, or `other`, plus a hundredth for each seed."""

    def change(table):
        by = next(name for name in ("method", "estimator", "knob", "update") if name in table)
        level = table[by].str.replace(r"\W", "_", regex=True).map(values).fillna(values.get("other", 0.5))
        return table.assign(**{column: level + 0.01 * table.seed.rank(method="dense")})

    return change


def ending(ours, part):
    """Runs of the two estimators that end at these accuracies, from 0.3."""

    def change(table):
        names = table.get("estimator", table.get("method"))
        ends = names.map({OURS: ours, PART: part}).fillna(0.9)
        return table.assign(**{"before/avg@8": 0.3, ACCURACY: ends})

    return {"study_temperature": change, "study_staleness_tuning": change}


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
                    key |= {"validation/avg@8": level, "tokens": tokens}
                    rows.append(key | {"iteration": iteration})
        return pd.DataFrame(rows)

    return {"study_staleness_curves": change}


NEVER = np.nan
EARLY, LATE = (10.0, 11.0, 12.0, 13.0, 14.0), (50.0, 51.0, 52.0, 53.0, 54.0)


def moving(low, high):
    """PMD-mean's divergence as a share of PMD-part's, on prompts with little reward and with much."""

    def change(t):
        share = np.where(t.expected_reward < 0.3, low, high) * (1 + 0.01 * t.seed)
        return t.assign(kl=np.where(t.algorithm == "pmd-mean", share, 1.0))

    return {"validate_prompts": change}


def by(column, names, values, half=None):
    """A column set by what another one names, its half-width, if it has one, to `half`."""

    def change(t):
        t = t.assign(**{column: t[names].map(values).fillna(t[column])})
        return t if half is None else t.assign(**{half: 0.01})

    return change


def knobs(**values):
    """Rewards of the bandits' methods, seeds a thousandth apart."""
    return {"better_knob": lambda t: t.assign(
        reward=t.method.str.replace("-", "_").map(values).fillna(0.5) + 1e-3 * (t.seed % 7)
    )}  # fmt: skip


def fits(**columns):
    return {"validate": lambda t: t.assign(**columns)}


def leading(lead):
    """Leads of PMD-mean over all others in every cell of the maps."""
    return {
        "where_it_pays": lambda t: where(
            t, (t.kind == "map") & (t.split == "evaluation") & (t.method != "pmd-mean"), lead=lead, lead_half=0.01
        )
    }


def scattered(table):
    """f of every setting around its law's, as far as seeds are apart."""
    on = (table.algorithm != "pmd-part").astype(float)
    return table.assign(share=on + 0.5 * (table.seed - table.seed.drop_duplicates().mean()))


THREE = "validate_pretrained", "validate_held_out", "training_map"
R, S = replication, simulation
DOCTORED = {
    R.law: {HOLDS: {}, FAILS: {"validate": lambda t: t.assign(share=1 - t.share)}, EMPTY: {"validate": empty}},
    R.further: {
        HOLDS: {"training_map": lambda t: t.assign(share=1.1, r2_lambert=0.95)},
        FAILS: dict.fromkeys(THREE, lambda t: t.assign(share=t.share + 20.0)),
        OPEN: dict.fromkeys(THREE, scattered) | {"training_map": lambda t: scattered(t).assign(r2_lambert=0.95)},
        EMPTY: dict.fromkeys(THREE, empty),
    },
    R.family: {
        HOLDS: {},
        FAILS: {"validate": lambda t: t.assign(from_lambert=t.from_law)},
        EMPTY: {"validate": empty},
    },
    R.conservative: {HOLDS: moving(0.4, 0.9), FAILS: moving(0.9, 0.4), OPEN: moving(0.5, 0.5),
                     EMPTY: {"validate_prompts": empty}},
    R.finite_samples: {
        HOLDS: {"study_temperature": shifted(ACCURACY, pmd_mean_loo=0.9)},
        FAILS: {"study_temperature": shifted(ACCURACY, pmd_mean_loo=0.1)},
        OPEN: {"study_temperature": shifted(ACCURACY)},
        EMPTY: {"study_temperature": empty},
    },
    R.stable: {HOLDS: ending(0.9, 0.1), FAILS: ending(0.1, 0.9), OPEN: ending(0.9, 0.9),
               EMPTY: {"study_temperature": empty, "study_staleness_tuning": empty}},
    R.better: {
        HOLDS: {"study_staleness": shifted(ACCURACY, pmd_mean_loo=0.9)},
        FAILS: {"study_staleness": shifted(ACCURACY, pmd_mean_loo=0.1)},
        OPEN: {"study_staleness": shifted(ACCURACY)},
        EMPTY: {"study_staleness": empty},
    },
    R.faster: {HOLDS: curves(EARLY, LATE), FAILS: curves((NEVER,) * 5, LATE), OPEN: curves((NEVER,) * 5, (NEVER,) * 5),
               EMPTY: {"study_staleness_curves": empty}},
    R.tuned: {
        HOLDS: {"study_methods": shifted(ACCURACY, pmd_mean_tau_0_1=0.9)},
        FAILS: {"study_methods": shifted(ACCURACY, pmd_mean_tau_0_1=0.1)},
        OPEN: {"study_methods": shifted(ACCURACY)},
        EMPTY: {"study_methods": empty},
    },
    R.knob: {
        HOLDS: {"study_knob": shifted(ACCURACY, pmd_mean=0.1, pmd_part=0.1, other=0.9)},
        FAILS: {"study_knob": shifted(ACCURACY, pmd_mean=0.9, pmd_part=0.1, other=0.5)},
        OPEN: {"study_knob": shifted(ACCURACY)},
        EMPTY: {"study_knob": empty},
    },
    S.step: {
        HOLDS: {},
        FAILS: {"population": lambda t: t.assign(cvxpy_subproblem=0.0),
                "adaptive_weight": lambda t: t.assign(chi2_weight=2 * t.reverse_kl)},
        EMPTY: {"population": empty, "adaptive_weight": empty},
    },
    S.one_context: {
        HOLDS: {},
        FAILS: {"conservatism": lambda t: t.assign(mean_factor=t.kl_factor / 2)},
        OPEN: {"conservatism": lambda t: t.assign(mean_factor=t.kl_factor)},
        EMPTY: {"conservatism": empty},
    },
    S.low_values: {
        HOLDS: {"mdp_lambda_map": lambda t: t.assign(kl_kl=1.0, kl_mean=0.1)},
        FAILS: {"mdp_lambda_map": lambda t: t.assign(kl_kl=1.0, kl_mean=1.0)},
        EMPTY: {"mdp_lambda_map": empty},
    },
    S.partition: {
        HOLDS: {"log_partition_laboratory": lambda t: t.assign(sd=9.0)},
        FAILS: {"log_partition_laboratory": lambda t: t.assign(sd=0.1, bias=0.1)},
        OPEN: {"log_partition_laboratory": lambda t: t.assign(sd=2.0 * (t.tau.rank(method="dense") % 2), bias=0.0)},
        EMPTY: {"log_partition_laboratory": empty},
    },
    S.one_step: {
        HOLDS: {"finite_sample_improvement": lambda t: t.assign(over_part=1.0, over_part_half=0.1)},
        FAILS: {"finite_sample_improvement": lambda t: t.assign(over_part=-1.0, over_part_half=0.1)},
        OPEN: {"finite_sample_improvement": lambda t: t.assign(over_part=0.1, over_part_half=0.1)},
        EMPTY: {"finite_sample_improvement": empty},
    },
    S.many_steps: {
        HOLDS: {"finite_sample_iterated": by("reward", "estimator", {S.PLAIN[0]: 0.9, S.PLAIN[1]: 0.5}, "reward_half")},
        FAILS: {"finite_sample_iterated": by("reward", "estimator", {S.PLAIN[0]: 0.5, S.PLAIN[1]: 0.9}, "reward_half")},
        OPEN: {"finite_sample_iterated": lambda t: t.assign(reward=0.5, reward_half=0.01)},
        EMPTY: {"finite_sample_iterated": empty},
    },
    S.loglinear: {
        HOLDS: {"loglinear_training": by("held_out", "update", {"mean": 0.9, "part": 0.5})},
        FAILS: {"loglinear_training": by("held_out", "update", {"mean": 0.5, "part": 0.9})},
        OPEN: {"loglinear_training": lambda t: t.assign(held_out=0.5)},
        EMPTY: {"loglinear_training": empty},
    },
    S.knob: {
        HOLDS: knobs(target_KL=0.9, schedule=0.9, annealed=0.9),
        FAILS: knobs(target_KL=0.1, schedule=0.1, annealed=0.1),
        OPEN: knobs(),
        EMPTY: {"better_knob": empty},
    },
    S.blind: {HOLDS: knobs(schedule=0.9), FAILS: knobs(annealed=0.9), OPEN: knobs(), EMPTY: {"better_knob": empty}},
    S.inexact: {
        HOLDS: {"inexact_evaluation": by("floor", "update", {"mean": 0.1, "kl": 0.5}, "floor_half_width")},
        FAILS: {"inexact_evaluation": by("floor", "update", {"mean": 0.5, "kl": 0.1}, "floor_half_width")},
        OPEN: {"inexact_evaluation": by("floor", "update", {"mean": 0.5, "kl": 0.5}, "floor_half_width")},
        EMPTY: {"inexact_evaluation": empty},
    },
    S.laws: {HOLDS: {}, FAILS: {"family": lambda t: t.assign(log_ratio=0.0)}, EMPTY: {"family": empty}},
    S.wrong_reward: {
        HOLDS: {"robustness": by("largest", "law", {"pmd-mean": 0.1, "on-policy": 0.5})},
        FAILS: {"robustness": by("largest", "law", {"pmd-mean": 0.5, "on-policy": 0.1})},
        OPEN: {"robustness": by("largest", "law", {"pmd-mean": 0.5, "on-policy": 0.5})},
        EMPTY: {"robustness": empty},
    },
    S.mdps: {HOLDS: {}, FAILS: {"mdp_convergence": lambda t: t.assign(holds=False)}, EMPTY: {"mdp_convergence": empty}},
    S.pays: {HOLDS: leading(0.3), FAILS: leading(-0.3), OPEN: leading(0.0), EMPTY: {"where_it_pays": empty}},
}  # fmt: skip
EXACT = {R.law, R.family, S.step, S.low_values, S.laws, S.mdps}
"""Claims of thresholds on numbers without noise: each case holds or does not."""
CASES = [(row, word) for row, words in DOCTORED.items() for word in words]


@pytest.mark.parametrize(("row", "word"), CASES, ids=[f"{row.__name__}-{word}" for row, word in CASES])
def test_every_verdict_flips_to_each_of_its_values(claim, row, word):
    """Better, worse, alike, and without rows, in all cases of the claim."""
    found = claim(row, **DOCTORED[row][word])
    assert found.verdict == found.short == word


def test_every_claim_is_doctored_in_every_way():
    said = [claim.claim for module in (replication, simulation) for claim in module.claims()]
    assert sorted(said) == sorted(row().claim for row in DOCTORED)
    for row, words in DOCTORED.items():
        assert set(words) == {HOLDS, FAILS, EMPTY} | (set() if row in EXACT else {OPEN}), row.__name__


@pytest.mark.parametrize("module", [replication, simulation, verdicts], ids=lambda module: module.__name__)
def test_no_verdict_is_typed(module):
    """The cases of every claim are computed: no literal sign, and no word of a verdict but in their one list."""
    tree = ast.parse((harness.HERE / f"{module.__name__.rpartition('.')[2]}.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Claim"]
    for call in calls:
        cases = call.args[2]
        assert not isinstance(cases, ast.Constant)
        if isinstance(cases, ast.Dict):
            assert not any(isinstance(value, ast.Constant) for value in cases.values)
    if module is not verdicts:
        assert len(calls) == len(module.claims())
        texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        typed = re.compile(r"\b(holds (at|in|against|with)|not told apart|does not hold)\b")
        assert not any(typed.search(text) for text in texts)


@pytest.mark.parametrize("page", [replication.README, replication.FINDINGS, ROOT / "docs" / "practitioners.md"])
def test_no_page_has_a_verdict_of_its_own(page):
    """Cells and bold lines that begin as verdicts do stand between the marks only."""
    computed = re.compile(r"<!-- \w+: python -m figures --update -->.*?<!-- end of \w+ -->", re.DOTALL)
    text = computed.sub("", page.read_text())
    begin = "|".join(verdicts.WORDS.values())
    assert not re.search(rf"^\*\*({begin})|\|\s*\[?({begin})\b", text, flags=re.MULTILINE | re.IGNORECASE)


def test_the_pages_hold_the_present_verdicts():
    readme, findings = (page.read_text() for page in (replication.README, replication.FINDINGS))
    assert replication.table() in readme
    assert simulation.table() in findings and replication.sections() in findings
    assert verdicts.update(readme, replication.MARKS, replication.table()) == readme


def test_the_readmes_verdicts_are_short_and_lead_to_their_evidence():
    """At most ten rows, eight words each; the heading that a link names is there."""
    links = re.findall(r"^\| .* \| \[(.*)\]\(docs/findings\.md#(.*)\) \|$", replication.table(), flags=re.MULTILINE)
    assert len(links) == len(replication.claims()) <= 10
    headings = re.findall(r"^### (.*)$", replication.FINDINGS.read_text(), flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for words, anchor in links:
        assert len(words.split()) <= 8 and anchor in anchors
    assert all(len(claim.short.split()) <= 8 for claim in simulation.claims())


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="the page must hold the marks <!-- replication"):
        verdicts.update("# Title", replication.MARKS, "")


def test_verdicts_in_words():
    """Few cases are named, the last word stands for those left if they are many, many cases are counted."""
    few = Claim("c", "e", {"at a": 1, "at b": -1, "at c": 0})
    assert few.verdict == "holds at a; does not hold at b; not told apart at c"
    assert few.short == "holds in 1 of 3, fails in 1"
    most = Claim("c", "e", {"at a": 1, "at b": 0, "at c": 0, "at d": 0}, "runs")
    assert (most.verdict, most.short) == ("holds at a; else not told apart", "holds in 1 of 4 runs")
    many = Claim("c", "e", verdicts.counted([1] * 60 + [-1] * 20))
    assert many.verdict == many.short == "holds in 60 of 80, fails in 20"
    assert Claim("c", "e", {"a": 0, "b": -1, "c": None}).short == "fails in 1 of 3 cases"
    assert Claim("c", "e", {"a": 0, "b": None}).short == "not told apart in 1 of 2 cases"
    assert Claim("c", "e", {}).verdict == EMPTY and Claim("What, τ?", "e", {}).anchor == "what-τ"


def test_a_fit_off_its_law_is_counted(claim):
    """One temperature off by more than 0.02; a worse R²; one fit as near to PMD-mean's law."""
    one = {"validate": lambda t: where(t, (t.experiment == "population") & (t.tau == 0.1), share=0.5)}
    assert claim(replication.law, **one).verdict == "holds in 60 of 80, fails in 20"
    assert claim(replication.law, **fits(r2_law=0.9)).verdict == FAILS

    def near(table):
        which = (table.experiment == "family") & (table.algorithm == "filtered") & (table.seed == 0)
        return table.assign(from_lambert=table.from_lambert.where(~which, table.from_law))

    assert claim(replication.family, validate=near).verdict == "holds in 39 of 40, fails in 1"


def test_one_of_two_losses_off_its_law(claim):
    changes = {"validate_pretrained": lambda t: where(t, (t.algorithm == "pmd-part") & (t["size"] == 6), share=0.2)}
    changes |= {"training_map": lambda t: t.assign(share=1.1, r2_lambert=0.95)}
    found = claim(replication.further, **changes)
    held = "for the last block of SmolLM2-135M (6 prompts) and the log-partition loss"
    assert found.verdict.endswith(f"does not hold {held}")
    assert found.short == "holds in 6 of 7, fails in 1"


def test_what_is_trained_of_a_pretrained_network_counts_apart(claim):
    """All of it on 64 prompts, off its law: that fails, and the last block on 6 prompts still holds."""

    def more(table):
        options = table.options.str.replace(r"blocks=\d+", "blocks=0", regex=True)
        return pd.concat([table[table["size"] < 64], table.assign(size=64, options=options, share=0.5)])

    def cases(**changes):
        return {key: on for key, on in claim(replication.further, **changes).cases.items() if "SmolLM2" in key}

    usual, found = cases(), cases(validate_pretrained=more)
    apart = {key: on for key, on in found.items() if "64 prompts" in key}
    assert list(apart) == [f"for all of SmolLM2-135M (64 prompts) and the {loss} loss"
                           for loss in ("PMD-mean", "log-partition")]  # fmt: skip
    assert set(apart.values()) == {-1} and all(found[key] == 1 for key in usual if "64 prompts" not in key)


@pytest.mark.parametrize(
    ("column", "value", "split", "last", "fails"),
    [("share", 1.4, "held-out", True, 1), ("r2_law", 0.97, "held-out", True, 1), ("share", 9.0, "train", True, 0),
     ("share", 9.0, "held-out", False, 0)],
)  # fmt: skip
def test_unseen_prompts_of_the_most_training_prompts_count(claim, column, value, split, last, fails):
    def change(table):
        which = (table.algorithm == "pmd-mean") & (table.split == split)
        return where(table, which & ((table["size"] == table["size"].max()) == last), **{column: value})

    found = claim(replication.further, validate_held_out=change)
    assert [on for key, on in found.cases.items() if "unseen" in key] == [-1 if fails else 1, 1]


def test_the_best_of_ordinary_training_counts(claim):
    """One setting on the law is enough; on prompts that are not trained on none is asked for."""

    def best(split, f):
        def change(table):
            which = (table.n == 64) & (table.updates == 128) & (table.tau == 0.1) & (table.split == split)
            return where(table, which, share=f, r2_lambert=0.95)

        return {"training_map": change}

    assert claim(replication.further, **best("train", 1.1)).cases["for ordinary training at its best"] == 1
    assert claim(replication.further, **best("train", 0.5)).cases["for ordinary training at its best"] == -1
    same = claim(replication.further).evidence
    assert claim(replication.further, **best("held-out", 1.1)).evidence == same


def test_ahead_in_one_comparison_of_six(claim):
    """Holm's correction leaves one p-value of 2/252 below the level, 0.048, and none of two of 0.03: five seeds."""

    def at(ours, updates):
        def change(t):
            t = t[t.seed < 5]
            mine = (t.method == OURS) & (t.updates_per_batch == updates)
            return t.assign(**{ACCURACY: 0.01 * t.seed + np.where(mine, ours, 0.5)})

        return {"study_staleness": change}

    found = claim(replication.better, **at(0.9, 8))
    assert found.verdict == "holds against GRPO at U = 8, against GSPO at U = 8; else not told apart"
    assert "of 6 tests the least p is 0.048 after Holm's correction" in found.evidence
    assert claim(replication.better, **at(0.1, 8)).short == "fails in 2 of 6 comparisons"
    rows = pd.DataFrame({"a": [1, 2, 3, 4, 6.0], "b": [5, 7, 8, 9, 10.0]})
    tests = [replication.rank_test(rows.b, rows.a)] * 2
    assert [p < 0.05 for p in (tests[0].pvalue, 2 * tests[0].pvalue)] == [True, True]
    cases, words = replication._tested({str(i): tests[0] for i in range(6)})
    assert set(cases.values()) == {0} and "6 tests" in words


def test_missing_rows_of_one_case_are_said(claim):
    """Without PMD-part at the smaller τ the other case alone has a verdict."""

    def lacking(t):
        return t[~((t.estimator == PART) & (t.tau == t.tau.min()))].assign(**{ACCURACY: 0.5 + 0.01 * t.seed})

    found = claim(replication.finite_samples, study_temperature=lacking)
    assert found.verdict == "not told apart at τ = 0.5; no rows yet at τ = 0.02"
    assert "PMD-part –" in found.evidence


def test_runs_below_the_base_have_exact_intervals(claim):
    """3 of 30 against 16 of 30: Clopper and Pearson's ends from the tails, Fisher's test of the counts."""
    found = claim(replication.stable)
    assert "PMD-mean 0/30 [0.00, 0.12], PMD-part 16/30 [0.34, 0.72]" in found.evidence
    assert found.cases["at τ ≤ 0.1"] == 1 and fisher_exact([[0, 30], [16, 14]]).pvalue < 0.05 / 3


def test_who_reaches_a_target_early_but_not_always_is_not_faster(claim):
    """3 of 5 seeds after 10 thousand tokens against 5 of 5 after 50: k/m and restricted means, no verdict."""
    some, late = ([1e3 * cost for cost in costs] for costs in ((10.0, 11.0, 12.0, NEVER, NEVER), LATE))
    change = curves(some, late)["study_staleness_curves"]
    found = claim(
        replication.faster,
        study_staleness_curves=lambda t: (c := change(t)).assign(tokens=c.tokens.where(c.iteration < 2, 2e5)),
    )
    assert found.verdict == OPEN
    assert "PMD-mean 87 [0, 200] (3/5), GRPO 52 ± 2 (5/5)" in found.evidence  # (10 + 11 + 12 + 200 + 200)/5
    assert claim(replication.faster, **curves(EARLY, (*LATE[:3], NEVER, NEVER))).verdict == HOLDS


def test_the_cost_of_a_target_is_interpolated():
    """Between the evaluations around the crossing; NaN where accuracy never gets there; at once if it starts there."""
    common = {"method": "grpo", "budget": "rollouts", "lag": 0, "updates_per_batch": 8}
    rows = [
        common | {"seed": seed, "iteration": i, "tokens": 100.0 * i, "validation/avg@8": value}
        for seed, values in enumerate(((0.3, 0.6, 0.8, 0.5), (0.3, 0.4, 0.5, 0.6), (0.7, 0.2, 0.2, 0.2)))
        for i, value in enumerate(values)
    ]
    costs = reaching_target(pd.DataFrame(rows))
    assert TARGET == 0.7
    assert costs.tokens.to_list() == pytest.approx([150.0, np.nan, 0.0], nan_ok=True)
    assert (costs.budget == 300).all()
