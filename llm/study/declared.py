"""The studies that are declared: what is trained by ``make study`` and drawn by the figures of the same names.

Those of ``make study`` are on the preset tiny-cpu; the others, of a pretrained model or a GPU, run when named. The 80
iterations of 512 rollouts and 8 updates of tiny-cpu are there for slow bases and seeds; comparisons take 60, where
methods still differ. The study of staleness takes 256 updates of 64 rollouts, in batches of 64 U. To add a study, list
its settings; options to be tuned go into their ``trials``.
"""

from . import Setting, Study, grid

__all__ = ["ON_REQUEST", "STUDIES"]

SEEDS, TUNING_SEEDS = (0, 1, 2, 3, 4), (100, 101)
BUDGET = {"iterations": 60}
ROLLOUTS = 512

SEEDS_AND_BASES = Study(
    "seeds",
    settings=(
        Setting({"base": "shipped"}, {"algorithm": "pmd-mean", "model": "base"}),
        Setting({"base": "second"}, {"algorithm": "pmd-mean", "model": "warmup:0"}),
    ),
    seeds=SEEDS,
    checked=({"base": "shipped"},),
)

TEMPERATURE = Study(
    "temperature",
    settings=tuple(
        Setting(
            {"estimator": algorithm, "tau": tau, "n": n},
            {"algorithm": algorithm, "tau": tau, "rollouts_per_prompt": n, "prompts_per_batch": ROLLOUTS // n} | BUDGET,
        )
        for n in (4, 16)
        for tau in (0.02, 0.05, 0.1, 0.5)
        for algorithm in ("pmd-mean-loo", "pmd-part-loo")
    ),
    seeds=SEEDS,
    checked=tuple({"estimator": name, "tau": 0.05, "n": 16} for name in ("pmd-mean-loo", "pmd-part-loo")),
)

LEARNING_RATES = grid(learning_rate=(1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3))

METHODS = Study(
    "methods",
    settings=(
        *(
            Setting({"method": f"{name} tau {tau}"}, {"algorithm": f"{name}-loo", "tau": tau} | BUDGET, LEARNING_RATES)
            for name in ("pmd-mean", "pmd-part")
            for tau in (0.1, 0.5)
        ),
        *(Setting({"method": name}, {"algorithm": name} | BUDGET, LEARNING_RATES) for name in ("grpo", "gspo", "rloo")),
    ),
    seeds=SEEDS,
    tuning_seeds=TUNING_SEEDS,
    checked=({"method": "pmd-mean tau 0.1"}, {"method": "grpo"}),
)


def batches(updates, iterations):
    """Options of batches of 64 U rollouts, U = `updates` updates on each, and of eight evaluations."""
    spent = {"iterations": iterations, "updates_per_batch": updates, "prompts_per_batch": 4 * updates}
    return spent | {"eval_every": max(1, iterations // 8), "eval_prompts": 128, "test_prompts": 256}


def stale(method, updates, iterations, budget="rollouts", lag=0):
    """A setting of the study of staleness, U = `updates`; those of other budgets or lags take over what is tuned."""
    options = {"algorithm": method, "rollout_lag": lag} | batches(updates, iterations)
    tuned = tuned_at(method, updates)
    columns = tuned | {"budget": budget, "lag": lag}
    seeds = len(SEEDS) if budget == "refreshes" else None
    return Setting(columns, options, stale_trials(method, updates), None if columns == tuned else tuned, seeds)


def tuned_at(method, updates):
    """Columns of the setting of the study of staleness in which rate and knob of a method are chosen for U."""
    return {"method": method, "budget": "rollouts", "updates_per_batch": updates, "lag": 0}


def relative(updates, name, **options):
    """A relative of PMD-mean at fresh rollouts, with the rate and τ chosen for PMD-mean."""
    options = {"algorithm": "pmd-mean-loo"} | batches(updates, UPDATES // updates) | options
    tuned = tuned_at("pmd-mean-loo", updates)
    return Setting(tuned | {"method": name}, options, stale_trials("pmd-mean-loo", updates), tuned)


def stale_trials(method, updates):
    """Every rate with every value of the knob; or rates alone, for most methods with one update per batch."""
    knobs = STALE_KNOBS[method].get(updates, ({},))
    return tuple(knob | {"learning_rate": rate} for knob in knobs for rate in STALE_RATES[updates])


def clips(*values):
    """Symmetric clip ranges."""
    return tuple({"clip_low": clip, "clip_high": clip} for clip in values)


# Two values of each knob at first; then more where the best lay at an edge.
STALE_KNOBS = {
    "pmd-mean-loo": {8: grid(tau=(0.05, 0.2)), 64: grid(tau=(0.0125, 0.05, 0.2))},
    "pmd-part-loo": dict.fromkeys((1, 8), grid(tau=(0.2, 0.5, 1.25))) | {64: grid(tau=(0.08, 0.2, 0.5, 1.25))},
    "grpo": {8: clips(0.2, 0.4, 0.8), 64: clips(0.2, 0.4, 0.8)},
    "gspo": {8: clips(0.0125, 0.05, 0.2), 64: clips(0.05, 0.2, 0.8)},
}
STALE_RATES = {
    1: (2e-4, 3e-4, 4.5e-4, 6e-4, 9e-4, 1.2e-3, 1.8e-3),
    8: (3e-4, 4.5e-4, 6e-4, 9e-4, 1.2e-3, 1.8e-3, 2.4e-3),
    64: (3e-4, 4.5e-4, 6e-4, 9e-4, 1.2e-3),
}
UPDATES, REFRESHES, LAGS = 256, 8, (0, 1, 4)
STALE_SEEDS = 12

STALENESS = Study(
    "staleness",
    settings=(
        *(stale(method, u, UPDATES // u, lag=lag) for lag in LAGS for u in (64, 8, 1) for method in STALE_KNOBS),
        *(stale(method, u, REFRESHES, "refreshes") for u in (8, 64) for method in STALE_KNOBS),
        *(relative(u, "free baseline", algorithm="free-baseline") for u in (64, 8, 1)),
        *(relative(u, "filtered", filter_low=0.0, filter_high=1.0) for u in (64, 8, 1)),
    ),
    seeds=tuple(range(STALE_SEEDS)),
    tuning_seeds=TUNING_SEEDS,
    checked=tuple(tuned_at(method, 64) for method in ("pmd-mean-loo", "grpo")),
)

KNOB = Study(
    "knob",
    settings=tuple(
        Setting(
            {"knob": knob},
            {"algorithm": algorithm} | batches(16, UPDATES // 16),
            tuple(values | {"learning_rate": 6e-4} for values in candidates),
        )
        for knob, algorithm, candidates in (
            ("pmd-mean", "pmd-mean-loo", grid(tau=(0.05, 0.2))),
            ("pmd-part", "pmd-part-loo", grid(tau=(0.2, 0.5))),
            ("target-kl", "pmd-target", ({"tau": 0.1, "target_kl": 2.0}, {"tau": 0.2, "target_kl": 1.0})),
            ("scheduled-tau", "pmd-mean-loo", grid(tau=(0.1,), target_kl=(0.05, 0.3))),
            ("annealed-tau", "pmd-mean-loo", grid(tau=(0.2,), tau_factor=(0.8, 0.9))),
        )
    ),
    seeds=SEEDS,
    tuning_seeds=TUNING_SEEDS,
)

# The two ends of the map of where PMD-mean pays (the figure of that name), 128 updates of 64 rollouts in each.
REGIMES = {"best": (64, 16), "worst": (1, 4)}
CLIPS = tuple({"clip_low": clip, "clip_high": clip} for clip in (0.2, 0.4, 0.8))
REGIME_KNOBS = {
    "pmd-mean-loo": grid(tau=(0.005, 0.03, 0.1, 0.3)),
    "pmd-part-loo": grid(tau=(0.03, 0.12, 0.3, 0.6)),
    "grpo": (*CLIPS, {"clip_low": 0.99, "clip_high": 1e6}),
    "rloo": (*CLIPS, {"clip_low": 0.99, "clip_high": 1e6}),
}


def regime_trials(method, updates, rates):
    """Every rate with every value of the knob; or the rates alone, where the knob has little effect or none."""
    knobs = REGIME_KNOBS[method] if updates > 1 else ({"tau": 0.5} if method == "pmd-part-loo" else {},)
    return tuple(knob | {"learning_rate": rate} for knob in knobs for rate in rates[updates])


def in_regimes(total, rates, **options):
    """A setting for each method in each of the `REGIMES`, `total` updates a run."""
    return tuple(
        Setting(
            {"regime": regime, "method": method},
            {"algorithm": method} | batches(U, total // U)
            | {"rollouts_per_prompt": n, "prompts_per_batch": 64 * U // n} | options,
            regime_trials(method, U, rates),
        )
        for regime, (U, n) in REGIMES.items()
        for method in REGIME_KNOBS
    )  # fmt: skip


WHERE_IT_PAYS = Study(
    "regimes",
    settings=in_regimes(128, {64: (3e-4, 6e-4, 1.2e-3), 1: (4e-4, 6e-4, 9e-4, 1.2e-3)}),
    seeds=tuple(range(8)),
    tuning_seeds=TUNING_SEEDS,
    checked=({"regime": "best", "method": "pmd-mean-loo"},),
)

RATES = {4: (6e-6, 1e-5, 1.8e-5, 3e-5), 16: (3e-6, 5e-6, 9e-6, 1.5e-5)}
PRETRAINED_KNOBS = {
    "pmd-mean-loo": grid(tau=(0.1, 0.3)),
    "pmd-part-loo": grid(tau=(0.1, 0.3)),
    "grpo": tuple({"clip_low": clip, "clip_high": clip} for clip in (0.2, 0.4)),
    "gspo": tuple({"clip_low": clip, "clip_high": clip} for clip in (0.05, 0.2)),
    "rloo": (),
}


def pretrained_trials(method, updates):
    """Four candidates for every method and U: two rates and two values of its knob, or four rates where it has none."""
    knobs, rates = PRETRAINED_KNOBS[method], RATES[updates]
    if not knobs:
        return grid(learning_rate=rates)
    return tuple(knob | {"learning_rate": rate} for knob in knobs for rate in rates[1::2])


PRETRAINED = Study(
    "pretrained",
    settings=tuple(
        Setting(
            {"method": method, "updates_per_batch": updates},
            {"algorithm": method, "updates_per_batch": updates},
            pretrained_trials(method, updates),
        )
        for updates in RATES
        for method in PRETRAINED_KNOBS
    ),
    seeds=SEEDS,
    tuning_seeds=TUNING_SEEDS[:1],
    preset="smollm2-135m-comparison",
    guess=(0.25, 0.1),
)

# The presets as they are; nothing is tuned. Templates of word problems that never occur in training count separately.
SUMS = Study(
    "sums",
    settings=(Setting({"method": "pmd-mean-loo"}, {}),),
    seeds=SEEDS,
    preset="smollm2-135m",
    guess=(0.08, 0.03),
)
WORD_PROBLEMS = Study(
    "word_problems",
    settings=tuple(
        Setting({"method": method}, {"algorithm": method, "model": "warmup:0"}) for method in ("pmd-mean-loo", "grpo")
    ),
    seeds=SEEDS,
    preset="smollm2-135m-word-problems",
    guess=(0.4, 0.25),
)

# At the preset's learning rate, not tuned. A cell is meant to take under two minutes on a data-centre GPU, which none
# has been timed on yet; the base is made first.
GPU = Study(
    "gpu",
    settings=tuple(
        Setting({"method": method}, {"algorithm": method, "model": "warmup:0", "iterations": 24, "eval_every": 4})
        for method in ("pmd-mean-loo", "grpo")
    ),
    seeds=SEEDS,
    preset="small-gpu",
)

# The same for a pretrained model, fetched first: sums as it is, word problems after a supervised start.
GPU_PRETRAINED = Study(
    "gpu_pretrained",
    settings=tuple(
        Setting({"task": task, "method": method}, {"algorithm": method, "task": task} | start)
        for task, start in (("sums:largest=30", {}), ("word_problems", {"model": "warmup:0"}))
        for method in ("pmd-mean-loo", "grpo")
    ),
    seeds=SEEDS,
    preset="smollm2-135m-gpu",
)

# The two ends of the map for the pretrained model on a GPU. It has not been run: rates and knobs are guesses.
REGIMES_PRETRAINED = Study(
    "regimes_pretrained",
    settings=in_regimes(128, {64: (4e-6, 8e-6, 1.6e-5), 1: (5e-6, 8e-6, 1.2e-5, 2e-5)}, test_prompts=150),
    seeds=SEEDS,
    tuning_seeds=TUNING_SEEDS[:1],
    preset="smollm2-135m-gpu",
)

STUDIES = {study.name: study for study in (SEEDS_AND_BASES, TEMPERATURE, METHODS, STALENESS, KNOB, WHERE_IT_PAYS)}
# Run when named: they need a model that is fetched, or a GPU.
ON_REQUEST = {study.name: study for study in (SUMS, WORD_PROBLEMS, PRETRAINED, GPU, GPU_PRETRAINED, REGIMES_PRETRAINED)}
