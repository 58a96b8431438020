"""A knob that moves τ or the baseline, against a fixed τ with the mean or the log-partition.

All follow the same sampled regression with leave-one-out baselines. PMD-mean and PMD-part have τ to choose. *Target KL*
takes, for each rollout, the baseline between the two for which the update of the other rollouts of its prompt would
have KL(p‖q) equal to a target (Statement 10; target 0 is PMD-mean, infinity PMD-part). *Scheduled τ* is PMD-mean with τ
multiplied after each batch by √(λ/target), within a factor of 2, λ being measured on the rollouts. *Annealed τ* is the
control that measures nothing: one factor after every batch. Panels b to d, for three of the bandits: expected reward
after the last of 12 batches over τ, the first one where τ moves (then with target 0.3, factor 0.8). Bandits with 16
contexts, first policies near uniform, exact minimiser of each batch: 4 actions, Bernoulli rewards, n = 8; 64 actions, n
= 4, graded rewards with Gaussian noise of 0.3, and binary ones without. Log-linear bandits on 64 held-out contexts (32
for training, 16 actions, 24 features, own problem per seed, n = 8, 8 Adam steps of 0.1 a batch): binary (a tenth are 1)
and graded with noise of 0.3. Panel a: equal budgets. Each method has 8 trials (mean and part: τ; target KL: 4 τ × 2
targets; schedule and annealing: 8 targets or factors, from τ = 0.5), chosen on tuning seeds; shown is the reward on
other seeds minus that of the better of PMD-mean and PMD-part (also by tuning, hence by twice as many trials), in
percent of the latter, paired by seed. The bandits of tuning and evaluation have rewards of their own; all evaluation
seeds share one bandit, so that intervals cover the sampling alone, but each has its own log-linear problem. Bands and
bars: 95% confidence intervals over 20 evaluation seeds.
"""

import numpy as np
import pandas as pd

from pmdtheory import bandit, loglinear, plotting
from pmdtheory.bandit import Bandit
from pmdtheory.comparisons import signs, student_test
from pmdtheory.intervals import SHARE, mean_interval
from pmdtheory.knobs import loo_target_kl_baseline, next_tau

from .marks import span

STEPS, FIRST_TAU, TARGET, FACTOR = 12, 0.5, 0.3, 0.8
FULL = {
    "environments": ("few binary", "many graded", "many binary", "log-linear binary", "log-linear graded"),
    "taus": (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    "kl_targets": (0.5, 2.0),
    "weight_targets": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "factors": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
    "tuning_seeds": 6,
    "seeds": 20,
}
FAST = FULL | {
    "environments": ("few binary", "log-linear binary"),
    "taus": (0.02, 0.05, 0.1, 0.2),
    "weight_targets": (0.1, 1.0),
    "factors": (0.7, 0.9),
    "tuning_seeds": 2,
    "seeds": 3,
}
KEYS = ["environment", "method", "tau", "setting", "split", "seed"]
TOLERANCE = {"reward": 1e-8}  # minibatch steps at small τ amplify rounding, and λ is fed back into τ

BANDITS = {"few binary": (4, 8), "many graded": (64, 4), "many binary": (64, 4)}
METHODS = {
    "mean": ("PMD-mean", plotting.method("pmd-mean")),
    "part": ("PMD-part", plotting.method("pmd-part")),
    "target-KL": ("target KL", plotting.method("pmd-target")),
    "schedule": (r"scheduled $\tau$", plotting.method("scheduled-tau")),
    "annealed": (r"annealed $\tau$", plotting.method("annealed-tau")),
}
ENVIRONMENTS = {
    "few binary": "4 actions, binary",
    "many graded": "64 actions, graded",
    "many binary": "64 actions, binary",
    "log-linear binary": "log-linear, binary",
    "log-linear graded": "log-linear, graded",
}
KNOBS = {"target-KL": "target KL", "schedule": "scheduled τ", "annealed": "annealed τ"}


def trials(split, taus, kl_targets, weight_targets, factors):
    """Every (method, τ, setting), setting being a target or a factor; equally many of each method when tuning."""
    fixed = [(method, tau, target) for method, target in (("mean", 0.0), ("part", np.inf)) for tau in taus]
    aimed = [("target-KL", tau, target) for target in kl_targets for tau in taus[1::2]]
    moving = [("schedule", FIRST_TAU, target) for target in weight_targets]
    moving += [("annealed", FIRST_TAU, factor) for factor in factors]
    if split == 1:
        moving += [(method, tau, x) for method, x in (("schedule", TARGET), ("annealed", FACTOR)) for tau in taus]
    return list(dict.fromkeys(fixed + aimed + moving))


def arguments(method, setting):
    """Estimator and schedule of a trial; of several if `setting` has shape (trials, 1)."""
    if method == "target-KL":
        target = np.asarray(setting)[..., None]
        return {"estimator": lambda rewards, tau: loo_target_kl_baseline(rewards, tau, target)}
    schedules = {
        "schedule": lambda tau, weight: next_tau(tau, weight, setting),
        "annealed": lambda tau, weight: setting * tau,
    }
    return {"estimator": "loo_log_partition" if method == "part" else "loo_mean", "schedule": schedules.get(method)}


def bandit_rewards(environment, split, seeds):
    """(method, τ, settings) → reward (trials, seeds) after the last batch, in a bandit of this split."""
    actions, n = BANDITS[environment]
    rng = np.random.default_rng([10, split])
    if environment == "many binary":
        problem = bandit.random_bandit(rng, 16, actions, "binary", success=0.05)
    else:
        noise = {"noise": "bernoulli"} if environment == "few binary" else {"noise": "gaussian", "noise_scale": 0.3}
        problem = Bandit(rng.random((16, actions)), **noise)
    logits = 0.3 * rng.normal(size=(16, actions))  # not uniform: else equal losses could tie, and rounding decide
    first = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

    def run(method, tau, settings):
        options = arguments(method, settings[:, None])
        with np.errstate(over="ignore"):  # of the divergences in the table, where probabilities of 1e-300 come back
            table = bandit.iterate(problem, first, tau[:, None], STEPS, rollouts=n, seeds=seeds, seed=split, **options)
        return table[table.step == STEPS].reward.to_numpy().reshape(-1, seeds)

    return run


def loglinear_rewards(environment, split, seeds):
    """(method, τ, settings) → held-out reward (trials, seeds), each seed with a problem of its own."""
    features, rewards = [], []
    for seed in range(seeds):
        rng = np.random.default_rng([11, split, seed])
        phi, direction = rng.normal(size=(96, 16, 24)), rng.normal(size=24)
        score = phi @ (direction / np.linalg.norm(direction)) + 0.5 * rng.normal(size=(96, 16))
        graded = 1 / (1 + np.exp(2 - 2 * score))
        features.append(phi / np.sqrt(24))
        rewards.append(graded if environment == "log-linear graded" else score > np.quantile(score, 0.9))
    features, rewards = np.stack(features), np.stack(rewards).astype(float)
    policy = np.full(rewards.shape, 1 / 16)
    train = loglinear.LogLinear(features[:, :32], policy[:, :32])
    held_out = loglinear.LogLinear(features[:, 32:], policy[:, 32:])
    noise = {"noise": "gaussian", "noise_scale": 0.3} if environment == "log-linear graded" else {}
    problems = [Bandit(r[:32], **noise) for r in rewards]

    def run(method, taus, settings):
        regime, reward = {"rollouts": 8, "updates": 8, "learning_rate": 0.1, "seed": split}, []
        for tau, setting in zip(taus, settings):
            theta = loglinear.iterate(train, problems, tau, STEPS, **regime, **arguments(method, setting))
            reward.append((held_out.at(theta[-1]) * rewards[:, 32:]).sum(axis=-1).mean(axis=-1))
        return np.stack(reward)

    return run


def compute(environments, tuning_seeds, seeds, **grids):
    """One row per environment, trial, split (0 tuning, 1 evaluation) and seed: reward after the last batch."""
    rows = []
    for environment in environments:
        for split, count in enumerate((tuning_seeds, seeds)):
            run = (bandit_rewards if environment in BANDITS else loglinear_rewards)(environment, split, count)
            every = pd.DataFrame(trials(split, **grids), columns=["method", "tau", "setting"])
            for method, some in every.groupby("method", sort=False):
                reward = run(method, some.tau.to_numpy(), some.setting.to_numpy())
                table = some.loc[some.index.repeat(count)]
                table.insert(0, "environment", environment)
                seed = np.tile(np.arange(count), len(some))
                rows.append(table.assign(split=split, seed=seed, reward=reward.ravel()))
    return pd.concat(rows, ignore_index=True)


def chosen(table):
    """Mean reward of each trial on the tuning seeds; per method, rewards of the best on the evaluation seeds."""
    trial = ["method", "tau", "setting"]
    tuning = table[table.split == 0].groupby(trial).reward.mean()
    evaluation = table[table.split == 1].set_index(trial).sort_index().reward
    return tuning, {method: evaluation[(method, *tuning[method].idxmax())].to_numpy() for method in METHODS}


def leads(table):
    """Mean and 95% half-width of each knob's lead in percent, per environment, over the better of mean and part.

    The schedule's lead over annealing is among them, as knob "measuring". The sign is 0 for a lead below half a percent
    and where Student's test does not tell it from 0, Holm's correction made for the knobs' comparisons and for the
    schedule's.
    """
    rows = []
    for environment, part in table.groupby("environment", sort=False):
        tuning, reward = chosen(part)
        rival = max(("mean", "part"), key=lambda method: tuning[method].max())
        for knob, one, other in [(knob, knob, rival) for knob in KNOBS] + [("measuring", "schedule", "annealed")]:
            lead = 100 * (reward[one] - reward[other]) / reward[other].mean()
            mean, half, _ = mean_interval(lead)
            row = {"environment": environment, "knob": knob, "rival": other, "lead": mean, "half": half}
            rows.append(row | {"seeds": len(lead)})
    found = pd.DataFrame(rows, columns=["environment", "knob", "rival", "lead", "half", "seeds"]).assign(sign=0)
    measuring = found.knob == "measuring"
    for own in (measuring, ~measuring):
        tests = [student_test(*row) for row in found.loc[own, ["lead", "half", "seeds"]].itertuples(index=False)]
        found.loc[own, "sign"] = signs(tests)
    return found.assign(sign=found.sign.where(found.lead.abs() > 0.5, 0))


def lines(table):
    """Rows of each line over τ, evaluation seeds: name → (rows, style)."""
    rows = table[table.split == 1]
    drawn = {label: (rows[rows.method == method], style) for method, (label, style) in METHODS.items()}
    aimed, style = drawn.pop(METHODS["target-KL"][0])
    for target, dashes in zip(sorted(aimed.setting.unique()), ("-.", ":")):
        drawn[f"target KL {target:g}"] = (aimed[aimed.setting == target], style | {"linestyle": dashes})
    for method, setting in (("schedule", TARGET), ("annealed", FACTOR)):
        label, style = METHODS[method]
        drawn[label] = (rows[(rows.method == method) & (rows.setting == setting)], style)
    return drawn


def breadth(rows, knob):
    """Share of a knob's grid within 95% of its best reward there, averaged over environments."""
    mean = rows.groupby(["environment", knob]).reward.mean()
    return (mean >= 0.95 * mean.groupby("environment").transform("max")).groupby("environment").mean().mean()


def plot(table):
    """Tuned differences in all environments; reward over τ in some."""
    figure, axes = plotting.panels(2, 3, height=2.3)
    for axis in axes[4:]:
        axis.remove()
    grid = axes[0].get_gridspec()
    axes[0].set_subplotspec(grid[0, :])
    for axis, place in zip(axes[1:4], range(3)):
        axis.set_subplotspec(grid[1, place])
    _forest(axes[0], leads(table))
    shown = [name for name in ("few binary", "many graded", "log-linear graded") if name in set(table.environment)]
    drawn = {}
    for axis, environment in zip(axes[1:], shown):
        for label, (rows, style) in lines(table[table.environment == environment]).items():
            plotting.band(axis, "tau", rows, "reward", limits=SHARE, label=label, **style)
            drawn[label] = style
        axis.set(xscale="log", xlabel=r"(first) temperature $\tau$", title=ENVIRONMENTS[environment])
        axis.set_xticks(ticks := sorted(table.tau.unique())[::3], [f"{tau:g}" for tau in ticks])
        axis.minorticks_off()
    axes[1].set_ylabel("reward after 12 batches")
    handles = [plotting.line(label=label, **style) for label, style in drawn.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _forest(axis, table):
    environments = list(dict.fromkeys(table.environment))
    for shift, knob in zip((-0.2, 0.0, 0.2), KNOBS):
        rows = table[table.knob == knob]
        axis.errorbar(
            rows.lead, np.arange(len(rows)) + shift, xerr=rows.half, fmt="o", markersize=3.5, capsize=2, linewidth=1,
            color=METHODS[knob][1]["color"], label=METHODS[knob][0],
        )  # fmt: skip
    axis.axvline(0, color=plotting.VERMILION, linewidth=1, label="better of PMD-mean\nand PMD-part")
    axis.set_yticks(range(len(environments)), [ENVIRONMENTS[name] for name in environments])
    axis.set(xlabel="percent of its reward", ylim=(len(environments) - 0.5, -0.5))
    axis.set_title("reward over that of the better of PMD-mean and PMD-part, all tuned alike")
    axis.legend(loc="lower left")


def verdicts(rows):
    """In how many environments a lead is above and below zero, by its sign."""
    return int((rows.sign > 0).sum()), int((rows.sign < 0).sum())


def title(table):
    """In how many environments each knob is better."""
    rows = leads(table)
    count = rows.environment.nunique()
    better = {knob: verdicts(rows[rows.knob == knob])[0] for knob in (*KNOBS, "measuring")}
    return (
        f"A falling τ beats a fixed one in {better['annealed']} of {count} bandits, a baseline aimed at a KL in "
        f"{better['target-KL']}; a τ that follows λ beats a blind fall in {better['measuring']}"
    )


def finding(table):
    """Whether a knob beats the better of PMD-mean and PMD-part, and how wide each one's good range is."""
    rows, evaluation = leads(table), table[table.split == 1]

    def words(knob):
        mine = rows[rows.knob == knob]
        better, worse = verdicts(mine)
        return f"better in {better}, worse in {worse}"

    broad = {name.replace(r"$\tau$", "τ"): breadth(part, "tau") for name, (part, _) in lines(table).items()}
    ranges = ", ".join(f"{name} {value:.0%}" for name, value in broad.items() if "target" not in name)
    moving = evaluation[evaluation.tau == FIRST_TAU]
    target, factor = (breadth(moving[moving.method == method], "setting") for method in ("schedule", "annealed"))
    each = "; ".join(f"{name} {words(knob)}" for knob, name in KNOBS.items())
    return (
        "over the better of PMD-mean and PMD-part annealed τ gains "
        f"{span(rows.lead[rows.knob == 'annealed'], 1)}%, scheduled τ {span(rows.lead[rows.knob == 'schedule'], 1)}%, "
        f"target KL {span(rows.lead[rows.knob == 'target-KL'], 1)}%. By more than 0.5%, Holm-corrected, in "
        f"{rows.environment.nunique()} environments: {each}. Scheduled over annealed τ {words('measuring')}. "
        f"Temperatures within 95% of a method's best: {ranges}; schedule's targets {target:.0%}, annealing's factors "
        f"{factor:.0%}."
    )
