"""The studies that are declared: what is trained by ``make study`` and drawn by the figures of the same names.

All are on the preset tiny-cpu. Its 80 iterations of 512 rollouts and 8 updates are there for slow bases and seeds;
comparisons take 60, where methods still differ. To add a study, list its settings; options to be tuned go into their
``trials``.
"""

from .study import Setting, Study, grid

__all__ = ["STUDIES"]

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
    checked=(
        {"estimator": "pmd-mean-loo", "tau": 0.05, "n": 16},
        {"estimator": "pmd-part-loo", "tau": 0.05, "n": 16},
    ),
)

LEARNING_RATES = grid(learning_rate=(1.5e-4, 3e-4, 6e-4, 1.2e-3, 2.4e-3))

METHODS = Study(
    "methods",
    settings=(
        *(
            Setting(
                {"method": f"{algorithm} tau {tau}"},
                {"algorithm": f"{algorithm}-loo", "tau": tau} | BUDGET,
                LEARNING_RATES,
            )
            for algorithm in ("pmd-mean", "pmd-part")
            for tau in (0.1, 0.5)
        ),
        *(Setting({"method": name}, {"algorithm": name} | BUDGET, LEARNING_RATES) for name in ("grpo", "gspo", "rloo")),
    ),
    seeds=SEEDS,
    tuning_seeds=TUNING_SEEDS,
    checked=({"method": "pmd-mean tau 0.1"}, {"method": "grpo"}),
)

STUDIES = {study.name: study for study in (SEEDS_AND_BASES, TEMPERATURE, METHODS)}
