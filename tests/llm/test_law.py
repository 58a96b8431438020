"""`pmdtheory.identify` and ``pmd-llm law``: every algorithm, TRL's own losses, and planted mistakes by name."""

import subprocess
import sys

import numpy as np
import pytest
from pmdllm import cli
from pmdllm.integrations import law
from pmdllm.losses import ALGORITHMS

from pmdtheory import identify
from pmdtheory.instrument.bench import EASY, HARD
from tests.llm import handwritten_losses as handwritten

TAU = 0.25
CLIPPED = "clipped surrogate"
OURS = {  # law, form, level, power of |y|, scale
    "pmd-mean": ("pmd-mean", "regression", "sequence", 0, "linear"),
    "pmd-mean-loo": ("pmd-mean", "regression", "sequence", 0, "linear"),
    "pmd-part": ("KL law", "regression", "sequence", 0, "other"),
    "pmd-part-loo": ("leave-one-out log-partition", "regression", "sequence", 0, "other"),
    "pmd-target": ("target-kl", "regression", "sequence", 0, "other"),
    "kimi-token": ("token regression", "regression", "token", 0, "linear"),
    "grpo": ("no interior law", CLIPPED, "token", -1, "standardised"),
    "dr-grpo": ("no interior law", CLIPPED, "token", 0, "linear"),
    "rloo": ("no interior law", CLIPPED, "sequence", 0, "linear"),
    "gspo": ("no interior law", CLIPPED, "geometric", -1, "standardised"),
    "free-baseline": ("KL law", "regression", "sequence", 0, "linear"),
    "fixed-chi2": ("fixed-chi2", "regression with a fixed χ² penalty", "sequence", 0, "linear"),
    "standardised": ("standardised", "regression", "sequence", 0, "standardised"),
    "quantile": ("quantile", "regression", "sequence", 0, "standardised"),
    "kimi-k2.5": ("kimi-k2.5", "penalty over the anchor", "sequence", 0, "linear"),
}
TRL = {
    "grpo": (CLIPPED, "token", -1, "standardised"),
    "dr_grpo": (CLIPPED, "token", 0, "linear"),
    "dapo": (CLIPPED, "token", 0, "standardised"),
    "gspo": (CLIPPED, "geometric", -1, "standardised"),
    "cispo": ("truncated weights, no penalty", "token", 0, "standardised"),
    "sapo": ("soft clip", "token", -1, "standardised"),
}
BY_HAND = {  # law, τ
    "pmd_mean": ("pmd-mean", TAU),
    "pmd_mean_of_targets": ("pmd-mean", TAU),
    "signs": ("pmd-mean", TAU / 2),
    "free_baseline": ("KL law", TAU),
    "on_policy": ("KL law", TAU),
    "a_star_po": ("KL law", TAU),
    "a_star_po_over_the_anchor": ("two-temperatures (β₁ = 0.5)", TAU),
    "ideal_weights": ("KL law", TAU),
    "divided_by_length": ("length-divided", TAU),
    "standardised": ("standardised", TAU),
    "truncated": ("truncated-importance", TAU),
    "kimi_k25": ("kimi-k2.5", 0.4),
    "cfpo": ("cfpo", np.nan),
    "successes": ("asymre", np.nan),
    "cispo": ("cispo", np.nan),
    "filtered": ("filtered", TAU),
    "quantile": ("quantile", TAU),
}
DEFECTS = {
    "per_token_squares": "per-token squared ratio",
    "clamped_log_partition": "clamp 1e-8",
    "without_mask": "missing length mask",
    "advantage_over_tokens": "advantage scaled by 1/tokens",
    "leaking_baseline": "gradient through the baseline",
    "tau_dropped": "τ dropped",
}


def test_every_algorithm_has_an_expected_law():
    assert set(OURS) == set(ALGORITHMS)


@pytest.mark.parametrize("name", OURS)
def test_our_algorithms(name):
    tau = 0.4 if name == "kimi-k2.5" else TAU
    found = identify(law.load(name), tau, name)
    expected, form, level, power, scale = OURS[name]
    assert (found.law, found.response.form, found.response.level) == (expected, form, level)
    assert (found.response.length, found.response.scale) == (power, scale)
    assert found.defects == (["per-token squared ratio"] if name == "kimi-token" else [])
    assert found.interior == (expected != "no interior law")
    if found.interior:
        near, next_one = found.matches[:2]
        assert found.tau == pytest.approx(tau, rel=1e-6) and near.distance < 1e-7 and next_one.distance > 1e-3
        assert found.response.equal_groups == "pulled back"
        assert found.response.follows_tau or form != "regression" or name == "quantile"
    else:
        assert found.response.clip == pytest.approx((0.8, 1.2), abs=1e-6)
        assert found.response.equal_groups == "no gradient" and "no interior law" in found.sentence()


def test_a_temperature_without_a_law_is_named():
    """Statement 27: below it one action takes most; the hard prompt's is between the two."""
    found = identify(law.load("kimi-k2.5"), TAU, "kimi-k2.5")
    assert (found.law, found.statement) == ("no interior law", "27") and "A larger τ has one" in found.sentence()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TRL)
def test_losses_of_trl(name):
    found = identify(law.load(name, "trl"), TAU, name)
    form, level, power, scale = TRL[name]
    answer = found.response
    assert (answer.form, answer.level, answer.length, answer.scale) == (form, level, power, scale)
    assert found.law == "no interior law" and found.defects == []
    if form == CLIPPED:
        assert answer.clip == pytest.approx((0.8, 1.28 if name == "dapo" else 1.2), abs=1e-6)
    if name == "cispo":
        assert answer.cap == pytest.approx(5.0)
    if name == "sapo":
        assert answer.gates == pytest.approx((1.0, 1.05), abs=1e-6)


@pytest.mark.parametrize("name", BY_HAND)
def test_losses_of_a_few_lines(name):
    found = identify(getattr(handwritten, name), TAU)
    expected, tau = BY_HAND[name]
    assert found.law == expected and found.defects == [] and found.name == name
    assert found.tau == pytest.approx(tau, rel=1e-6, nan_ok=True)
    assert found.matches[0].distance < 1e-6 and found.matches[1].distance > 1e-3
    assert (found.response.equal_groups == "no gradient") == (name in ("filtered", "cfpo", "cispo"))
    if name == "free_baseline":
        assert found.response.baseline == "follows the residual"


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defects_are_named(name):
    found = identify(getattr(handwritten, name), TAU)
    assert found.defects == [DEFECTS[name]] and DEFECTS[name] in found.sentence()


def test_the_declared_temperature_is_followed_or_not():
    assert identify(handwritten.tau_dropped, 0.1).tau == pytest.approx(0.5)
    assert identify(handwritten.pmd_mean, 0.5).tau == pytest.approx(0.5)


def test_bench():
    """The anchor is the policy, and pull is the gradient of Σ c log π."""
    rng = np.random.default_rng(0)
    for prompt in (HARD, EASY):
        assert np.allclose(np.exp(prompt.token_logp(prompt.anchor).sum(axis=1)), prompt.policy)
        logits, c = rng.normal(size=len(prompt.anchor)), rng.normal(size=prompt.mask.shape)
        step = 1e-6 * np.eye(len(logits))
        numeric = [(c * (prompt.token_logp(logits + e) - prompt.token_logp(logits - e))).sum() / 2e-6 for e in step]
        assert np.allclose(prompt.pull(logits, np.where(prompt.mask, c, 0.0)), numeric, atol=1e-8)


def verl_vanilla(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode="token-mean", config=None):
    ratio = ((log_prob - old_log_prob) * response_mask).exp()
    losses = -(ratio * advantages).minimum(ratio.clamp(0.8, 1.2) * advantages)
    return (losses * response_mask).sum() / response_mask.sum(), {}


def prime_regression(inputs):
    s = ((inputs.trainer_logprobs - inputs.inference_logprobs) * inputs.loss_mask).sum()
    return (inputs.advantages[0] - 0.3 * s).square()


def trl_regression(per_token_logps, inputs):
    s = ((per_token_logps - inputs["old_per_token_logps"]) * inputs["completion_mask"]).sum(-1)
    return (inputs["advantages"] - 0.3 * s).square().mean()


@pytest.mark.parametrize(
    ("function", "signature", "expected"),
    [
        ("verl_vanilla", "verl", "no interior law"),
        ("prime_regression", "prime-rl", "pmd-mean"),
        ("trl_regression", "trl", "pmd-mean"),
    ],
)
def test_functions_in_other_signatures(function, signature, expected):
    found = identify(law.load(f"{__file__}:{function}", signature), TAU)
    assert found.law == expected


def test_command(capsys, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def loss(logp, old_logp, mask, rewards, tau):\n"
        "    s = ((logp - old_logp) * mask).sum(-1)\n"
        "    return (rewards - rewards.mean() - tau * s).square().mean()\n"
    )
    picture = tmp_path / "law.png"
    assert cli.main(["law", f"{tmp_path / 'mine.py'}:loss", "--figure", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("law                   pmd-mean (Statement 2)\nτ in our convention   0.25 (declared 0.25)\n")
    assert "leads to the law of pmd-mean at τ = 0.25 (Statement 2)." in out and picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "algorithm must be one of pmd-mean"),
        (["ppo", "--signature", "trl"], "loss of TRL must be one of grpo"),
        (["grpo", "--signature", "openrlhf"], "signature must be one of pmdllm, trl, verl, prime-rl"),
        (["vanilla", "--signature", "verl"], "loss must be module:function or file.py:function for verl"),
        (["pmd-mean", "--tau", "0"], "tau must be positive and finite, got 0.0"),
        (["nowhere:loss"], "there is no module 'nowhere'"),
    ],
)
def test_bad_input_is_one_line(capsys, words, message):
    assert cli.main(["law", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_losses_that_cannot_be_identified_say_why():
    with pytest.raises(ValueError, match="loss must return a tensor without axes"):
        identify(lambda logp, old_logp, mask, rewards, tau: logp.sum(-1))
    with pytest.raises(ValueError, match="got zero"):
        identify(lambda logp, old_logp, mask, rewards, tau: 0 * logp.sum())
    with pytest.raises(ValueError, match="finite gradients"):
        identify(lambda logp, old_logp, mask, rewards, tau: (logp - old_logp).sum().sqrt())


def test_identify_without_torch_says_what_is_missing():
    code = """
import sys, importlib.abc
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("no torch", name="torch")
sys.meta_path.insert(0, NoTorch())
import pmdtheory
try:
    pmdtheory.identify(lambda *a: 0)
except ModuleNotFoundError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'pmdtheory[llm]'" in run.stdout
