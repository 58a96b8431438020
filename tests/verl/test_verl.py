"""The plug-in for verl against the lean loop's loss: two ranks, several micro-batches, empty completions.

``make test-verl`` runs this inside verl, through its registries and its own actor loss. Where verl is absent, stand-ins
for its registries and configuration take its place, and what needs verl itself is skipped.
"""

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from pmdllm.losses import ALGORITHMS, Settings

from pmdtheory.baselines import estimate

HAS_VERL = importlib.util.find_spec("verl") is not None
needs_verl = pytest.mark.skipif(not HAS_VERL, reason="verl is not installed: make test-verl")

P, N, T, TAU = 4, 4, 7, 0.3
RANKS = [[range(3), range(3, 8)], [range(8, 10), range(10, 11), range(11, 16)]]  # micro-batches of two ranks
MODES = {
    "seq-mean-token-sum": "none",
    "seq-mean-token-mean": "seq-mean-token-mean",
    "seq-mean-token-sum-norm": "seq-mean-token-sum-norm",
}


def stand_ins():
    """Modules of the names that the plug-in imports: two registries and a configuration."""
    estimators, losses = {}, {}

    def register(registry):
        return lambda name: lambda function: registry.setdefault(name, function)

    @dataclass
    class PolicyLossConfig:
        loss_mode: str = "vanilla"

        def get(self, key, default=None):
            return getattr(self, key, default)

    core = ModuleType("verl.trainer.ppo.core_algos")
    core.register_adv_est, core.register_policy_loss = register(estimators), register(losses)
    core.get_adv_estimator_fn, core.get_policy_loss_fn = estimators.__getitem__, losses.__getitem__
    config = ModuleType("verl.workers.config")
    config.PolicyLossConfig = PolicyLossConfig
    config.ActorConfig = lambda **options: SimpleNamespace(global_batch_info={}, **options)
    packages = {name: ModuleType(name) for name in ("verl", "verl.trainer", "verl.trainer.ppo", "verl.workers")}
    return packages | {core.__name__: core, config.__name__: config}


@pytest.fixture(scope="module")
def verl():
    """verl's registries and configuration with the plug-in loaded, as verl's own start loads it."""
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_VERL:
            for name, module in stand_ins().items():
                patch.setitem(sys.modules, name, module)
        core = importlib.import_module("verl.trainer.ppo.core_algos")
        config = importlib.import_module("verl.workers.config")
        adapter = importlib.import_module("pmdllm.integrations.verl")
        yield SimpleNamespace(
            estimator=core.get_adv_estimator_fn, loss=core.get_policy_loss_fn, ActorConfig=config.ActorConfig,
            PMDLossConfig=adapter.PMDLossConfig, adapter=adapter,
        )  # fmt: skip
        if not HAS_VERL:
            sys.modules.pop("pmdllm.integrations.verl")


@pytest.fixture(params=[0.0, 0.4], ids=["s = 0", "later"])
def batch(request):
    """Ragged completions of four prompts in mixed order, one with a hole in its mask, two without tokens."""
    generator = torch.Generator().manual_seed(3)
    old = -torch.rand(P * N, T, generator=generator) - 0.1
    mask = torch.arange(T) < torch.randint(1, T + 1, (P * N, 1), generator=generator)
    mask[2] = torch.arange(T) != 1
    mask[[5, 10]] = False
    order = torch.randperm(P * N, generator=generator).numpy()
    return SimpleNamespace(
        old=old, mask=mask, logp=old + request.param * torch.randn(P * N, T, generator=generator),
        rewards=torch.rand(P * N, generator=generator), uid=np.array([f"prompt-{i // N}" for i in order], dtype=object),
    )  # fmt: skip


def token_rewards(batch):
    """verl's rewards: a completion's stands at its last token."""
    rewards = torch.zeros(P * N, T)
    rewards[range(P * N), (batch.mask * torch.arange(T)).argmax(1)] = batch.rewards
    return rewards


def advantages(verl, batch, name, **config):
    return verl.estimator(name)(
        token_level_rewards=token_rewards(batch), response_mask=batch.mask.float(), index=batch.uid, config=config
    )[0]


def configuration(verl, loss_agg_mode, tau=TAU, **whole):
    config = verl.ActorConfig(
        strategy="fsdp", rollout_n=N, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=loss_agg_mode, loss_scale_factor=T,
        policy_loss=verl.PMDLossConfig(tau=tau), use_kl_loss=False, entropy_coeff=0,
    )  # fmt: skip
    config.global_batch_info.update({"loss_scale_factor": T, "batch_num_tokens": None} | whole)
    return config


def by_engine(verl, name, mode, batch, advantage, weight=None, call=None):
    """Loss and gradient that reach verl's optimiser: micro-batches add up, ranks are averaged."""
    logp = batch.logp.clone().requires_grad_()
    config = configuration(verl, mode, dp_size=2, global_batch_size=P * N)
    total = 0.0
    for rows in (list(rows) for rank in RANKS for rows in rank):
        call = call or (lambda **arguments: verl.loss(name)(**arguments)[0])
        loss = call(
            old_log_prob=batch.old[rows], log_prob=logp[rows], advantages=advantage[rows],
            response_mask=batch.mask[rows], loss_agg_mode=mode, config=config,
            rollout_is_weights=None if weight is None else weight[rows],
        ) / len(RANKS)  # fmt: skip
        loss.backward()
        total += loss.item()
    return total, logp.grad


def by_lean_loop(name, mode, batch, advantage, weight=None):
    """One call on the whole batch; verl's mean counts completions without tokens, the lean loop's does not."""
    algorithm = {"pmd-sequence": "pmd-mean", "pmd-token": "kimi-token"}[name]
    logp = batch.logp.clone().requires_grad_()
    settings = Settings(TAU, length_normalization=MODES[mode], max_length=T, weight=weight)
    loss, _ = ALGORITHMS[algorithm].loss(logp, batch.old, batch.mask, advantage, settings)
    (loss * batch.mask.any(1).sum() / (P * N)).backward()
    return loss.item() * batch.mask.any(1).sum().item() / (P * N), logp.grad


def departure(found, expected):
    return max(abs(found[0] - expected[0]), (found[1] - expected[1]).abs().max().item())


def of_completions(values, batch):
    return torch.where(batch.mask, values, -torch.inf).amax(1).nan_to_num(neginf=0.0)


@pytest.mark.parametrize("name", ["pmd-mean", "pmd-mean-loo", "pmd-part", "pmd-part-loo", "pmd-target"])
def test_estimators_are_the_baselines_of_groups(verl, batch, name):
    """Group by group, without the completions that have no token."""
    found = advantages(verl, batch, name, pmd_tau=TAU, pmd_target_kl=0.2)
    baseline = ALGORITHMS[name].baseline.name
    assert not found[~batch.mask].any()
    for uid in np.unique(batch.uid):
        rows = torch.from_numpy(np.flatnonzero(batch.uid == uid))
        rows = rows[batch.mask[rows].any(1)]
        rewards = batch.rewards[rows]
        expected = rewards - estimate(baseline, rewards, TAU, target_kl=0.2)
        torch.testing.assert_close(of_completions(found, batch)[rows], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["pmd-sequence", "pmd-token"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_the_lean_loops(verl, batch, name, mode, weighted):
    advantage = advantages(verl, batch, "pmd-mean-loo")
    weight = torch.linspace(0.5, 1.5, P * N) if weighted else None
    spread = None if weight is None else weight[:, None].expand(-1, T)
    found = by_engine(verl, name, mode, batch, advantage, spread)
    expected = by_lean_loop(name, mode, batch, of_completions(advantage, batch), weight)
    assert departure(found, expected) < 1e-6


def mean_of_the_micro_batch(verl, mode):
    def call(config, **arguments):
        own = configuration(verl, mode, dp_size=1, global_batch_size=None)
        return verl.loss("pmd-sequence")(config=own, **arguments)[0] / 2.5

    return call


def pre_multiplied(verl, mode):
    def call(advantages, response_mask, **arguments):
        advantages = advantages / response_mask.sum(1, keepdim=True).clamp(min=1)
        return verl.loss("pmd-sequence")(advantages=advantages, response_mask=response_mask, **arguments)[0]

    return call


def without_old_logp(verl, mode):
    def call(old_log_prob, log_prob, **arguments):
        return verl.loss("pmd-sequence")(old_log_prob=log_prob.detach(), log_prob=log_prob, **arguments)[0]

    return call


def scaled_rewards(verl, mode):
    def call(advantages, **arguments):
        return verl.loss("pmd-sequence")(advantages=advantages / 0.3, **arguments)[0]

    return call


@pytest.mark.parametrize("defect", [mean_of_the_micro_batch, pre_multiplied, without_old_logp, scaled_rewards])
@pytest.mark.parametrize("batch", [0.4], indirect=True)
def test_every_trap_departs(verl, batch, defect):
    mode = "seq-mean-token-sum"
    advantage = advantages(verl, batch, "pmd-mean-loo")
    expected = by_lean_loop("pmd-sequence", mode, batch, of_completions(advantage, batch))
    found = by_engine(verl, "pmd-sequence", mode, batch, advantage, call=defect(verl, mode))
    assert departure(found, expected) > 1e-2


@pytest.mark.parametrize("batch", [0.4], indirect=True)
def test_what_is_refused(verl, batch):
    advantage = advantages(verl, batch, "pmd-mean")
    arguments = {
        "old_log_prob": batch.old, "log_prob": batch.logp, "advantages": advantage, "response_mask": batch.mask,
        "loss_agg_mode": "seq-mean-token-sum", "config": configuration(verl, "seq-mean-token-sum"),
    }  # fmt: skip
    loss, found = verl.loss("pmd-sequence")(**arguments)
    assert torch.isfinite(loss) and found["actor/kl/k3"] > 0 and found["actor/residual"] > 0
    normed = {"loss_agg_mode": "seq-mean-token-sum-norm"}
    for changes, message in (
        ({"loss_agg_mode": "token-mean"}, "loss_agg_mode must be one of seq-mean-token-sum"),
        ({"config": configuration(verl, "seq-mean-token-sum", tau=None)}, "actor.policy_loss.tau must be given"),
        ({"config": configuration(verl, "seq-mean-token-sum", tau=-0.1)}, "loss.tau must be positive and finite"),
        ({"config": configuration(verl, "seq-mean-token-sum", dp_size=2)}, "must hold global_batch_size"),
        (normed | {"config": configuration(verl, **normed, loss_scale_factor=None)}, "loss_scale_factor must be given"),
        ({"advantages": torch.randn(P * N, T)}, "advantages must be the same at all tokens"),
        ({"rollout_is_weights": torch.rand(P * N, T)}, "rollout_is_weights must be the same at all tokens"),
    ):
        with pytest.raises(ValueError, match=message):
            verl.loss("pmd-sequence")(**(arguments | changes))
    with pytest.raises(ValueError, match=r"algorithm.pmd_tau must be given for pmd-part"):
        advantages(verl, batch, "pmd-part")
    with pytest.raises(ValueError, match="pmd-mean needs the uid"):
        verl.estimator("pmd-mean")(token_level_rewards=batch.old, response_mask=batch.mask)


@needs_verl
def test_verl_loads_the_plug_in_by_itself():
    """A failing entry point is only logged at debug level: look the names up in a fresh process."""
    code = """
import verl
from verl.trainer.ppo.core_algos import get_adv_estimator_fn, get_policy_loss_fn
for name in ("pmd-mean", "pmd-mean-loo", "pmd-part", "pmd-part-loo", "pmd-target"):
    assert get_adv_estimator_fn(name).__name__ == name
for name in ("pmd-sequence", "pmd-token"):
    assert get_policy_loss_fn(name).__name__ == name
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@needs_verl
def test_hydra_makes_the_configuration_of_the_launch_script(verl):
    """The overrides of examples/verl_pmd.sh in verl's own configuration, instantiated as its workers do."""
    import re
    import shlex
    from pathlib import Path

    from hydra import compose, initialize_config_module
    from verl.utils.config import omega_conf_to_dataclass

    script = (Path(__file__).parents[2] / "examples" / "verl_pmd.sh").read_text()
    command = re.search(r"main_ppo (.*?)\"\$@\"", script.replace("\\\n", " "), flags=re.DOTALL)[1]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[word for word in shlex.split(command) if "=" in word])
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    assert isinstance(actor.policy_loss, verl.PMDLossConfig)
    assert (actor.policy_loss.tau, actor.policy_loss.loss_mode, actor.use_kl_loss) == (0.01, "pmd-sequence", False)
    assert actor.loss_agg_mode == "seq-mean-token-mean" and config.algorithm.pmd_tau == 0.01
    assert (config.data.train_batch_size, actor.rollout_n, actor.ppo_mini_batch_size) == (512, 16, 32)


@needs_verl
@pytest.mark.parametrize("mode", MODES)
def test_the_actor_loss_of_verl(verl, batch, mode):
    """verl's ``ppo_loss`` on its packed sequences, prompts of other lengths before them, two ranks of micro-batches."""
    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.losses import ppo_loss

    advantage = advantages(verl, batch, "pmd-part-loo", pmd_tau=TAU)
    logp, total = batch.logp.clone().requires_grad_(), 0.0
    lengths = 1 + (torch.arange(T) * batch.mask).amax(1)  # what was sampled, tokens of which may be masked
    config = replace(configuration(verl, mode), global_batch_info={})

    def nested(rows):
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    for rows in (list(rows) for rank in RANKS for rows in rank):
        prompts = [torch.ones(1 + row % 3, dtype=torch.long) for row in rows]
        own = {
            "responses": batch.mask.long(), "response_mask": batch.mask, "old_log_probs": batch.old,
            "advantages": advantage,
        }  # fmt: skip
        data = TensorDict(
            {name: nested([value[row, : lengths[row]] for row in rows]) for name, value in own.items()}
            | {"prompts": nested(prompts)}, batch_size=len(rows),
        )  # fmt: skip
        tu.assign_non_tensor(data, dp_size=2, batch_num_tokens=int(batch.mask.sum()), global_batch_size=P * N)
        packed = [
            torch.cat([torch.zeros(len(prompt) - 1), logp[row, : lengths[row]], torch.zeros(1)])
            for prompt, row in zip(prompts, rows)
        ]
        loss, _ = ppo_loss(config, {"log_probs": nested(packed)}, data)
        (loss / len(RANKS)).backward()
        total += loss.item() / len(RANKS)
    expected = by_lean_loop("pmd-sequence", mode, batch, of_completions(advantage, batch))
    assert departure((total, logp.grad), expected) < 1e-6
