"""A network against the exact solutions: enumeration, predictions, statistics, fits, and the tables' resumption."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pmdllm.config import from_preset, presets
from pmdllm.logp import token_logp
from pmdllm.losses import ALGORITHMS
from pmdllm.rollout import sample
from pmdllm.study import plan, run
from pmdllm.validation import fit
from pmdllm.validation.declared import ValidateConfig, Validation, departures, summary
from pmdllm.validation.experiments import Cell, one_step
from pmdllm.validation.fit import base
from pmdllm.validation.sums import Sums
from scipy.special import wrightomega

from pmdtheory import laws
from pmdtheory.sampled import sampled_update

TINY = ValidateConfig(
    hidden_size=16, heads=2, layers=1, warmup_steps=60, warmup_batch=32, prompts=2, evaluations=6, steps=6, n=4,
    rollouts="4", sizes="3", rewards="graded", taus="0.1", outer_steps=2, recursion_evaluations=4, recursion_steps=4,
    held_out_steps=3, held_out_batch=2, training_prompts=4, training_iterations=2, training_epochs=2, family_steps=3,
    recursion_tau=4.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("validate")


@pytest.fixture(scope="module")
def tiny(folder):
    """A base that has learned a little."""
    return base(replace(TINY, output=str(folder)), 0)


@pytest.fixture(scope="module")
def fitted_prompt(folder):
    """One prompt with graded reward, fitted to convergence: anchor, τ, and the log-ratios by algorithm."""
    config = ValidateConfig(output=str(folder), warmup_steps=100, warmup_batch=64)
    start = base(config, 0)
    anchor, tau, found = fit.anchor(start, [4321], "graded"), 0.1, {}
    for algorithm in ("pmd-mean", "pmd-part"):
        policy = start.copy()
        law = laws.predict(anchor.policy, anchor.rewards.numpy(), tau, ALGORITHMS[algorithm].baseline.name)
        loss = fit.population(policy, anchor, ALGORITHMS[algorithm], tau, law)
        fit.lbfgs(policy, loss, 100)
        fitted = fit.anchor(policy, [4321], "graded")
        found[algorithm] = (fitted.logp - anchor.logp).numpy()
    return anchor, tau, found


@pytest.mark.parametrize("algorithm, expected", [("pmd-mean", 1), ("pmd-part", 0)])
def test_a_converged_network_is_on_the_law_of_its_loss(fitted_prompt, algorithm, expected):
    """The claim of the project on one prompt; both laws written out here, the Lambert-W root found by bisection."""
    anchor, tau, found = fitted_prompt
    p, r, s = anchor.policy[0], anchor.rewards.numpy()[0], found[algorithm][0]
    D = (r - p @ r) / tau
    low, high = 1e-9, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        mass = p @ (wrightomega(np.log(middle) + D).real / middle)
        low, high = (middle, high) if mass > 1 else (low, middle)
    lambert, kl = D - wrightomega(np.log(low) + D).real, r / tau - np.log(p @ np.exp(r / tau))
    own, other = (lambert, kl) if expected else (kl, lambert)

    def unexplained(predicted):
        return p @ (s - predicted) ** 2 / (p @ (s - p @ s) ** 2)

    assert unexplained(own) < 0.01 < unexplained(other)
    covariance = np.cov(D - s, np.exp(s), aweights=p, ddof=0)
    f = covariance[0, 1] / (covariance[1, 1] * (p @ -s))
    assert (f > 0.98) if expected else (abs(f) < 0.02)
    assert laws.share(p[None], r[None], tau, s[None])[0] == pytest.approx(f, rel=1e-6, abs=1e-9)


def test_a_converged_network_gains_what_statement_5_says(fitted_prompt):
    anchor, tau, found = fitted_prompt
    r = anchor.rewards.numpy()
    for algorithm, name in (("pmd-mean", "gain_lambert"), ("pmd-part", "gain_kl_law")):
        law = laws.predict(anchor.policy, r, tau, ALGORITHMS[algorithm].baseline.name)
        said = laws.compare(anchor.policy, r, tau, found[algorithm], law)
        assert said[name] == pytest.approx(said["gain"], rel=0.02)


def test_the_trie_gives_the_probabilities_of_whole_completions(tiny):
    """Against one plain forward pass per completion, without mask or packing."""
    model, tokenizer, prompts = tiny.model, tiny.tokenizer, Sums().prompts([907, 4321])
    with torch.no_grad():
        logp = tiny(prompts)
    for row, prompt in enumerate(prompts):
        texts = [f"{prompt}{answer:02}{tokenizer.eos_token}" for answer in (0, 37, 99)]
        ids = torch.tensor(tokenizer(texts).input_ids)
        with torch.no_grad():
            law = torch.log_softmax(model(ids).logits.double(), -1)
        plain = law[:, 5:8].gather(2, ids[:, 6:, None]).sum((1, 2))
        assert logp[row, [0, 37, 99]].numpy() == pytest.approx(plain.numpy(), abs=1e-5)
    assert logp.exp().sum(1).numpy() == pytest.approx(1, abs=1e-12)


def test_the_malformed_action_is_all_other_strings(tiny):
    """Its probability, and that of each answer, against the frequencies of generated completions."""
    rollouts = sample(tiny.model, tiny.tokenizer, ["98+76="], 20_000, 3, torch.Generator().manual_seed(0))
    counts = np.bincount(tiny.actions(rollouts), minlength=101)
    with torch.no_grad():
        p = tiny(["98+76="]).exp().numpy()[0]
    expected = 20_000 * p
    often = expected > 20
    assert often[100] and often.sum() > 10
    deviations = (counts - expected)[often] / np.sqrt(expected * (1 - p))[often]
    assert np.abs(deviations).max() < 4.5


def test_actions_are_read_from_tokens(tiny):
    texts = ["07<eos>", "7<eos><pad>", "071", "0=<eos>", "70<eos>", "07<pad>"]
    ids = torch.tensor([tiny.tokenizer(text).input_ids for text in texts])
    mask = torch.ones(ids.shape, dtype=torch.bool)
    mask[1, 2] = False
    rollouts = type("", (), {"tokens": ids, "mask": mask})
    assert tiny.actions(rollouts).tolist() == [7, 100, 100, 100, 70, 100]


@pytest.mark.parametrize(
    "kind, level", [("binary", lambda e: float(e == 0)), ("graded", lambda e: math.exp(-e * e / 18))]
)
def test_rewards_fall_with_the_distance_around_the_circle(kind, level):
    table = Sums().rewards([9899, 5], kind)
    for row, answer in zip(table, [97, 5]):
        assert row[100] == 0
        for y in range(100):
            assert row[y] == level(min((y - answer) % 100, (answer - y) % 100))


def test_an_unknown_reward():
    with pytest.raises(ValueError, match="kind must be one of binary, graded, got 'gold'"):
        Sums().rewards([1], "gold")


@pytest.mark.parametrize("name", ["pmd-mean", "pmd-mean-loo", "pmd-part", "pmd-part-loo"])
def test_predictions_are_stationary_for_the_loss_of_many_batches(name):
    """The residuals of the fitted s, averaged over drawn batches action by action, are λρ with one λ."""
    rng, n, tau, batches = np.random.default_rng(0), 4, 0.5, 400_000
    p, r = np.array([[0.2, 0.3, 0.5]]), np.array([[1.0, 0.6, 0.0]])
    law = laws.predict(p, r, tau, ALGORITHMS[name].baseline.name, n)
    actions = rng.choice(3, size=(batches, n), p=p[0])
    target = ALGORITHMS[name].advantage(torch.from_numpy(r[0][actions]), tau).numpy() / tau
    drawn = [target[actions == action] for action in range(3)]
    residual = [values.mean() - s for values, s in zip(drawn, law.log_ratio[0])]
    error = [values.std() / np.sqrt(len(values) / n) for values in drawn]
    for value, ratio, noise in zip(residual, np.exp(law.log_ratio[0]), error):
        assert abs(value - law.chi2_weight[0] * ratio) < 4.5 * noise


def test_the_population_loss_is_the_mean_of_sampled_losses(tiny):
    """In expectation, up to the variance of the targets, which has no gradient: so compare gradients."""
    anchor = fit.anchor(tiny, [12, 5555], "graded")
    moved = tiny(anchor.prompts)
    anchor = replace(anchor, logp=(moved.detach() + 0.3 * torch.sin(torch.arange(101.0))).log_softmax(-1))
    tau, algorithm = 0.3, ALGORITHMS["pmd-mean-loo"]
    law = laws.predict(anchor.policy, anchor.rewards.numpy(), tau, "mean")

    def gradient(loss):
        bias = tiny.model.lm_head.weight
        return torch.autograd.grad(loss, bias)[0]

    exact = gradient(fit.population(tiny, anchor, algorithm, tau, law)())
    generator = torch.Generator().manual_seed(0)
    fresh = fit.fresh_rollouts(tiny, anchor, algorithm, tau, 100_000, generator)
    assert torch.allclose(gradient(fresh()), exact, atol=0.03 * exact.abs().max().item())


def test_completions_have_the_log_probabilities_of_their_actions(tiny):
    """The loss by token of generated completions is the loss of their actions, if all are well-formed."""
    rollouts = sample(tiny.model, tiny.tokenizer, ["12+34="], 64, 3, torch.Generator().manual_seed(3))
    drawn = tiny.actions(rollouts)
    logp, _ = token_logp(tiny.model, rollouts)
    table = tiny(["12+34="])[0]
    formed = drawn != 100
    assert formed.sum() > 10
    assert logp.sum(1)[formed].detach().numpy() == pytest.approx(table[drawn[formed]].detach().numpy(), abs=1e-5)


def test_a_fixed_batch_is_judged_by_statement_14(tiny):
    anchor = fit.anchor(tiny, [12], "graded")
    cell = Cell("batch", "graded", 0.3, "pmd-mean-loo", 3, 1, 0)
    actions = np.array([[46, 46, 100]])
    expected = sampled_update(anchor.policy, actions, anchor.rewards.numpy()[:, actions[0]], 0.3, "loo_mean")
    assert np.array_equal(cell.law(None, anchor, actions).policy, expected.policy)


@pytest.fixture(scope="module")
def table(folder):
    assert run(Validation(TINY), folder, folder / "runs", log=lambda line: None) == []
    return Validation(TINY).rows(folder)


def test_every_experiment_gives_a_row_per_cell(table, folder):
    assert set(table["experiment"]) == set(TINY.experiments.split(","))
    assert departures(table)  # these budgets are far too small
    named = {str(Cell(**row)) for row in table[list(Cell.__dataclass_fields__)].to_dict("records")}
    assert named == {str(fit.cell) for fit in Validation(TINY).cells()}
    recursion = table[(table["experiment"] == "recursion") & np.isinf(table["n"])]
    assert recursion["iteration"].tolist() == [1, 2]
    assert set(table[table["experiment"] == "held-out"]["split"]) == {"train", "held-out"}


def test_the_tables_hold_what_the_summary_says(table, folder):
    prompts = pd.read_csv(folder / "validate_prompts.csv")
    population = prompts[(prompts["experiment"] == "population") & (prompts["algorithm"] == "pmd-mean")]
    row = table[(table["experiment"] == "population") & (table["algorithm"] == "pmd-mean")].iloc[0]
    assert row["share"] == pytest.approx(population["share"].median(), rel=1e-6)
    assert row["prompts"] == len(population) == TINY.prompts
    actions = pd.read_csv(folder / "validate_actions.csv")
    assert np.allclose(actions.groupby(["algorithm", "number"])["policy"].sum(), 1)
    steps = pd.read_csv(folder / "validate_steps.csv")
    assert set(steps["experiment"]) == set(TINY.experiments.split(",")) - {"recursion", "training"}
    training = pd.read_csv(folder / "validate_training.csv")
    assert training[["iteration", "epoch"]].drop_duplicates().values.tolist() == [[1, 2], [2, 2], [1, 1], [2, 1]]


def test_statement_9_bounds_the_exact_recursion(table, folder):
    """The first outer step of PMD-mean: the law's own failures lie between the bounds, prompt by prompt."""
    prompts = pd.read_csv(folder / "validate_prompts.csv")
    rows = prompts[(prompts["experiment"] == "recursion") & (prompts["iteration"] == 1)]
    before = 1 - rows["expected_reward"]
    after = np.log((1 - rows["expected_reward_recursion"]) / before)
    assert (rows["failure_low"] <= after + 1e-6).all() and (after <= rows["failure_high"] + 1e-6).all()


def test_finished_cells_are_kept_and_lost_ones_made_again(table, folder):
    """Without tables, all but a lost cell is taken from the folders of the cells; with them, nothing is left to do."""
    declared, lines = Validation(TINY), []
    path = next(iter((folder / "runs" / "validate").glob("held-out*")))
    before = {table: (folder / f"validate_{table}.csv").read_bytes() for table in ("prompts", "steps", "training")}
    shutil.rmtree(path)
    for lost in folder.glob("*.csv"):
        lost.unlink()
    assert plan(declared, folder) == (declared.cells(), [])
    assert run(declared, folder, folder / "runs", log=lines.append) == []
    assert len(lines) == 1 + len(declared.cells()) and path.exists()  # and how many there are
    assert all((folder / f"validate_{table}.csv").read_bytes() == rows for table, rows in before.items())
    again = declared.rows(folder)
    pd.testing.assert_frame_equal(again.drop(columns="cpu_seconds"), table.drop(columns="cpu_seconds"))
    taken = again["experiment"] != "held-out"
    assert again[taken].equals(table[taken])  # seconds and all
    assert plan(declared, folder) == ([], []) and plan(Validation(replace(TINY, evaluations=7)), folder)[0]


def test_cells_made_with_other_budgets_are_others():
    def folder(**changes):
        return Validation(replace(TINY, **changes)).cells()[0].folder

    assert Validation(TINY).cells()[0].cell.experiment == "population"
    assert folder(seeds="0,2", steps=9) == folder()
    assert folder(evaluations=7) != folder() != folder(heads=1)


def test_the_base_is_left_as_it_is(tiny):
    before = [parameter.clone() for parameter in tiny.trained]
    one_step(Cell("population", "graded", 0.1, "pmd-mean", math.inf, 2, 0), TINY, tiny)
    assert all(torch.equal(a, b) for a, b in zip(before, tiny.trained))


def test_departures_name_what_does_not_hold():
    rows = []
    for algorithm, own, other in (("pmd-mean", "lambert", "kl_law"), ("pmd-part", "kl_law", "lambert")):
        row = {"experiment": "population", "reward": "graded", "tau": 0.1, "algorithm": algorithm, "seed": 0}
        row |= {"share": 1.0 if own == "lambert" else 0.0, f"r2_{own}": 0.999, f"r2_{other}": 0.5}
        rows.append(row | {f"from_{own}": 1e-3, f"from_{other}": 1e-1})
    table = pd.DataFrame(rows)
    assert departures(table) == []
    assert len(departures(table.assign(share=0.5))) == 2
    assert len(departures(table.assign(r2_lambert=0.9))) == 1
    assert len(departures(table.assign(from_lambert=0.02))) == 1
    assert departures(table.assign(tau=1.0, from_lambert=0.02)) == []


def test_the_summary_is_of_prompts():
    columns = {"number": [1, 2, 3], "share": [0.0, 1.0, 5.0], "reverse_kl": [1.1, 0.9, 2.0], "weight": 1.0}
    cell = {"experiment": "population", "reward": "graded", "tau": 0.1, "algorithm": "pmd-mean", "n": math.inf}
    columns |= cell | {"size": 3, "seed": 0, "split": "train", "iteration": 1}
    columns |= {"from_law": 1.0, "from_lambert": 2.0, "from_kl_law": [1.0, 2.0, 6.0]}
    row = summary(pd.DataFrame(columns)).iloc[0]
    assert (row["share"], row["prompts"], row["mean_from_kl_law"]) == (1.0, 3, 3.0)
    assert row["weight_error"] == pytest.approx(0.1) and row["share_high"] == pytest.approx(4.6)


@pytest.mark.parametrize("preset", presets("validate"))
def test_the_presets_are_configurations(preset):
    config = from_preset(ValidateConfig, preset, kind="validate")
    assert {fit.cell.experiment for fit in Validation(config).cells()} == set(config.experiments.split(","))


@pytest.mark.parametrize(
    "field, value",
    [("seeds", "-1"), ("seeds", "a"), ("taus", "0"), ("taus", "nan"), ("rollouts", "1"), ("sizes", "9999"),
     ("experiments", "population,all"), ("rewards", ""), ("prompts", 0), ("prompts", 10_001), ("n", 1),
     ("evaluations", 1.5), ("learning_rate", float("nan")), ("tau", -0.1), ("seeds", "0,0"), ("jobs", 0)],
)  # fmt: skip
def test_options_that_cannot_be_meant(field, value):
    with pytest.raises(ValueError, match=rf"^{field} must be .*got "):
        replace(TINY, **{field: value})
