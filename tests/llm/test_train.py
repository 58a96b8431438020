"""The loop: each update against one written out by hand, and the same bits after any interruption."""

import copy
import itertools
import json
import math
import signal
import string
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pmdllm import models
from pmdllm.config import Config, from_preset
from pmdllm.logp import token_logp
from pmdllm.losses import Settings
from pmdllm.run.folder import RunFolder
from pmdllm.tasks import Problem, load
from pmdllm.tasks.answers import Verdict
from pmdllm.train import Diverged, Interrupted, Run, train


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder with a random model of some hundred parameters."""
    folder = tmp_path_factory.mktemp("small")
    tokenizer = models.character_tokenizer(load("arithmetic").alphabet)
    models.save(models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=64, seed=1), tokenizer, folder)
    return str(folder)


def tiny(small, folder, **changes):
    settings = {
        "output": str(folder), "model": small, "prompts_per_batch": 4, "rollouts_per_prompt": 4, "max_new_tokens": 6,
        "updates_per_batch": 2, "iterations": 3, "eval_every": 2, "eval_prompts": 8, "test_prompts": 8,
        "eval_samples": 2, "threads": 1, "learning_rate": 1e-3, "tau": 0.5, "checkpoint_seconds": 1e9,
    }
    return Config(**(settings | changes))


def ready(config):
    return Run(config, RunFolder(config))


def iterate(run):
    """Make one iteration; return its line."""
    batch = run.next_batch()
    for minibatch in batch.minibatches(run.rng):
        run.update(minibatch)
    return run.close(batch)


def outcome(folder):
    """Bytes of what must be the same for the same run."""
    folder = Path(folder)
    return (folder / "metrics.jsonl").read_bytes(), (folder / "model" / "model.safetensors").read_bytes()


def lines(folder):
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def rewarded(run, rewards):
    """Let the judge give these rewards (0 or 1) in turn: a random model earns none by itself."""
    values = iter(rewards)
    judge = run.task.judge

    def judged(completions, answers):
        verdict = judge(completions, answers)
        return replace(verdict, correct=np.array([next(values) == 1 for _ in completions]))

    run.task.judge = judged
    return run


# Four rollouts of a prompt in turn; both rewards in every group.
COIN = [1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0] * 256


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_updates_are_those_written_out_by_hand(small, tmp_path, micro_batch):
    """Two updates of PMD-mean: per-sequence passes without padding, the loss as in Statement 17, AdamW by formula."""
    config = tiny(small, tmp_path, micro_batch=micro_batch, max_grad_norm=0.0, learning_rate=1e-2, weight_decay=0.1)
    run = rewarded(ready(config), COIN)
    batch, order = run.next_batch(), copy.deepcopy(run.rng).permutation(4).reshape(2, 2).tolist()
    twin, _ = models.load(small)
    rewards = torch.tensor(COIN[:16], dtype=torch.float32).reshape(4, 4)
    assert batch.summary["reward"] == pytest.approx(rewards.mean().item())
    advantage = (rewards - rewards.mean(1, keepdim=True)).flatten()
    first = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in twin.named_parameters()}
    for step, (groups, minibatch) in enumerate(zip(order, batch.minibatches(run.rng), strict=True), 1):
        losses = []
        for row in [4 * group + i for group in groups for i in range(4)]:
            stored = {name: value[row] for name, value in vars(batch.rollouts).items()}
            prompt, tokens = stored["prompt_ids"][stored["prompt_mask"]], stored["tokens"][stored["mask"]]
            logits = twin(torch.cat([prompt, tokens])[None]).logits[0, len(prompt) - 1 : -1]
            logp = -torch.nn.functional.cross_entropy(logits, tokens, reduction="sum")
            losses.append(config.tau / 2 * (advantage[row] / config.tau - (logp - stored["logp"].sum())) ** 2)
        twin.zero_grad()
        torch.stack(losses).mean().backward()
        start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        run.update(minibatch)
        scale = torch.cat([p.grad.flatten() for p in twin.parameters()]).abs().max()
        for (name, p), q in zip(twin.named_parameters(), run.model.parameters()):
            torch.testing.assert_close(q.grad, p.grad, atol=1e-5 * scale.item(), rtol=1e-4)
            first[name] = 0.9 * first[name] + 0.1 * q.grad
            second[name] = 0.95 * second[name] + 0.05 * q.grad**2
            move = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
            expected = start[name] - config.learning_rate * (move + 0.1 * start[name])
            torch.testing.assert_close(q.detach(), expected, atol=1e-6, rtol=1e-5)
        twin.load_state_dict(run.model.state_dict())


@pytest.mark.parametrize("changes", [{"algorithm": "free-baseline"}, {"algorithm": "fixed-chi2", "chi2_coef": 0.2}])
def test_a_free_baseline_is_that_of_whole_groups_at_the_present_policy(small, tmp_path, changes):
    """The second update of a batch, in passes that cut groups: the gradient written out over each group."""
    run = ready(tiny(small, tmp_path, micro_batch=3, max_grad_norm=0.0, learning_rate=1e-2, **changes))
    batch, rng, kappa = run.next_batch(), np.random.default_rng(0), changes.get("chi2_coef", 0.0)
    batch.advantage = torch.rand(batch.advantage.shape, generator=torch.Generator().manual_seed(0))
    first, second, *_ = batch.minibatches(rng)
    run.update(first)
    rows = second.rollouts
    s = (token_logp(run.model, rows)[0] - rows.logp).sum(1)
    groups, tau = second.valid.shape, run.config.tau
    u = (second.advantage - tau * s - kappa * (s.exp() - 1)).detach().reshape(groups)
    expected = torch.autograd.grad(-((u - u.mean(1, keepdim=True)).flatten() * s).mean(), list(run.model.parameters()))
    run.model.zero_grad()
    settings = Settings(tau, chi2_coef=kappa)
    second.backward(run.model, run.algorithm, settings, nullcontext, most_rows=3)
    assert s.detach().abs().max() > 0.01
    for weight, gradient in zip(run.model.parameters(), expected):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-6)


def test_the_gradient_norm_is_bounded(small, tmp_path):
    run = rewarded(ready(tiny(small, tmp_path, max_grad_norm=1e-3)), COIN)
    run.update(next(run.next_batch().minibatches(run.rng)))
    norm = torch.stack([p.grad.norm() for p in run.model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3)
    assert run.measured["grad_norm"][0] > 1e-2


def test_same_seed_same_bits_and_another_seed_others(small, tmp_path):
    runs = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tiny(small, tmp_path / name, seed=seed), progress=False)
        runs[name] = outcome(tmp_path / name)
    assert runs["a"] == runs["b"]
    assert runs["a"][0] != runs["c"][0] and runs["a"][1] != runs["c"][1]


def test_a_run_that_never_began_leaves_no_claim_on_its_folder(small, tmp_path):
    with pytest.raises(ValueError, match="model must be"):
        train(tiny("no/such/model", tmp_path), progress=False)
    assert train(tiny(small, tmp_path, iterations=1), progress=False)["updates"] == 2


def test_overwrite_spares_a_folder_that_holds_no_run(small, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    train(tiny(small, tmp_path, iterations=1, overwrite=True), progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_what_a_line_says(small, tmp_path):
    train(tiny(small, tmp_path, iterations=4), progress=False)
    start, *rest = lines(tmp_path)
    assert start["iteration"] == 0 and "validation/greedy" in start
    assert [line["iteration"] for line in rest] == [1, 2, 3, 4]
    assert [line["updates"] for line in rest] == [2, 4, 6, 8]
    assert [line["rollouts"] for line in rest] == [16, 32, 48, 64]
    assert all(b["tokens"] > a["tokens"] for a, b in itertools.pairwise(rest))
    assert ["validation/avg@2" in line for line in rest] == [False, True, False, True]
    assert all(line["staleness"] == 0.5 for line in rest)
    wanted = {"reward", "length", "entropy", "loss", "grad_norm", "truncated", "unparsed", "log_ratio/std", "kl/k3"}
    assert wanted <= set(rest[0])
    timings = [json.loads(line) for line in (tmp_path / "timings.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in timings] == [1, 2, 3, 4]
    assert all(line["tokens_per_second"] > 0 for line in timings)


def test_lag_makes_rollouts_older_by_whole_batches(small, tmp_path):
    train(tiny(small, tmp_path, iterations=4, rollout_lag=2), progress=False)
    assert [line["staleness"] for line in lines(tmp_path)[1:]] == [0.5, 2.5, 4.5, 4.5]


def test_an_iteration_without_groups_makes_no_update(small, tmp_path):
    config = tiny(small, tmp_path, filter_low=0.5, iterations=2)  # a random model is never right
    weights = Path(small, "model.safetensors").read_bytes()
    result = train(config, progress=False)
    assert result["updates"] == 0 and result["iteration"] == 2
    assert outcome(tmp_path)[1] == weights


def test_tau_falls_by_its_factor(small, tmp_path):
    train(tiny(small, tmp_path, tau=0.2, tau_factor=0.5), progress=False)
    assert [line["tau"] for line in lines(tmp_path)[1:]] == pytest.approx([0.2, 0.1, 0.05])


def test_target_accuracy_stops_the_run(small, tmp_path, monkeypatch):
    real = Run.validation
    monkeypatch.setattr(Run, "validation", lambda run: real(run) | {"validation/avg@2": 0.1 * run.iteration})
    result = train(tiny(small, tmp_path, iterations=9, eval_every=1, target_accuracy=0.4), progress=False)
    assert result["iteration"] == 4 and result["reached"]


def test_tensorboard_receives_the_lines(small, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tiny(small, tmp_path, report_to="tensorboard"), progress=False)
    events = next((tmp_path / "tensorboard").rglob("events*"))
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    found = [(event.step, event.value) for event in accumulator.Scalars("length")]
    expected = [(line["iteration"], line["length"]) for line in lines(tmp_path)[1:]]
    assert [step for step, _ in found] == [step for step, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_an_unknown_tracker_is_named(small, tmp_path):
    with pytest.raises(ValueError, match=r"report_to must be none or names among .*wandb.*, got 'ledger'"):
        train(tiny(small, tmp_path, report_to="ledger"), progress=False)


@pytest.mark.parametrize("missing", ["trackio", "wandb"])
def test_a_tracker_without_its_package_is_named(small, tmp_path, missing):
    with pytest.raises(ValueError, match=f"report_to {missing} needs its package: pip install {missing}"):
        train(tiny(small, tmp_path, report_to=missing), progress=False)


def test_the_shipped_base_learns(tmp_path):
    """Ten iterations of the preset raise the sampled accuracy by more than its interval allows for chance."""
    config = from_preset(
        Config, "tiny-cpu", output=str(tmp_path), iterations=10, threads=1, eval_prompts=128, test_prompts=128
    )
    result = train(config, progress=False)
    gain = result["test/avg@8"] - result["before/avg@8"]
    assert gain > 2 * (result["test/avg@8_ci"] + result["before/avg@8_ci"])


def test_the_gpu_preset_runs_when_shrunk(tmp_path):
    """Its task, its bfloat16 arithmetic and its accumulation, with a static cache as on GPU."""
    preset = from_preset(Config, "small-gpu")
    task = load(preset.task)
    tokenizer = models.character_tokenizer(task.alphabet)
    model = models.tiny(tokenizer, hidden_size=16, layers=2, heads=2, max_length=256)
    models.save(model, tokenizer, tmp_path / "base")
    config = replace(
        preset, output=str(tmp_path / "run"), model=str(tmp_path / "base"), prompts_per_batch=8, rollouts_per_prompt=4,
        updates_per_batch=2, micro_batch=5, iterations=2, eval_every=1, eval_prompts=4, test_prompts=4, eval_batch=8,
        dtype="bfloat16", threads=1, max_new_tokens=24, tau=preset.tau,
    )
    result = train(config, progress=False)
    assert result["updates"] == 4 and result["rollouts"] == 64
    assert [line["iteration"] for line in lines(tmp_path / "run")] == [0, 1, 2]


@pytest.mark.parametrize("name", ["hub-qwen2.5-0.5b-gsm8k", "hub-qwen2.5-1.5b-gsm8k"])
def test_the_hub_presets_run_when_shrunk(tmp_path, name):
    """The same settings on a tiny local model and a few lines in the schema of GSM8K; groups are never mixed."""
    rows = [{"question": f"What is {i} plus {i}?", "answer": f"It is twice {i}.\n#### {2 * i}"} for i in range(200)]
    for split in ("train", "test"):
        content = "".join(json.dumps(row) + "\n" for row in (rows[:190] if split == "train" else rows[190:]))
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text(content)
    tokenizer = models.character_tokenizer(string.printable.replace("<", ""))
    models.save(
        models.tiny(tokenizer, hidden_size=16, layers=1, heads=2, max_length=256), tokenizer, tmp_path / "base"
    )
    config = replace(
        from_preset(Config, name), output=str(tmp_path / "run"), model=str(tmp_path / "base"), threads=1, iterations=1,
        task=f"gsm8k:path={tmp_path / 'data'}", prompts_per_batch=16, rollouts_per_prompt=2, max_new_tokens=8,
        eval_prompts=2, test_prompts=2, eval_samples=2, micro_batch=4,
    )
    result = train(config, progress=False)
    (_, line) = lines(tmp_path / "run")
    assert line["reward"] == -1 and line["groups_kept"] == 0 and result["updates"] == 0
    assert 0 <= result["test/unparsed"] <= 1


class KilledError(Exception):
    pass


@pytest.mark.parametrize("every", [0, 1e9])
@pytest.mark.parametrize(
    "changes", [{}, {"rollout_lag": 1, "epochs": 2, "lr_schedule": "cosine", "target_kl": 0.01, "iterations": 4}]
)
def test_resumed_after_any_end(small, tmp_path, monkeypatch, changes, every):
    """A run cut off after some of its updates, again and again, ends with the bits of a whole one."""
    train(tiny(small, tmp_path / "whole", **changes), progress=False)
    real, left = Run.update, 0

    def until_killed(run, minibatch):
        nonlocal left
        if left == 0:
            raise KilledError
        left -= 1
        real(run, minibatch)

    monkeypatch.setattr(Run, "update", until_killed)
    config = tiny(small, tmp_path / "cut", checkpoint_seconds=every, **changes)
    cuts = 0
    for left in (0, 1, 2, 3, *[4] * 9) if every == 0 else (1, 5, 99):  # noqa: B007  counted down by each run
        try:
            train(config, progress=False)
            break
        except KilledError:
            cuts += 1
    assert cuts >= 2
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_finished_run_is_returned_and_another_configuration_refused(small, tmp_path):
    config = tiny(small, tmp_path, iterations=1)
    result = train(config, progress=False)
    before = outcome(tmp_path)
    assert train(config, progress=False) == json.loads((tmp_path / "result.json").read_text()) == result
    with pytest.raises(ValueError, match=r"other settings: tau \(0.5 there, 0.25 here\).*--overwrite"):
        train(replace(config, tau=0.25), progress=False)
    assert outcome(tmp_path) == before
    train(replace(config, tau=0.25, overwrite=True), progress=False)
    assert outcome(tmp_path) != before


def test_a_finished_run_goes_on_to_more_iterations(small, tmp_path):
    train(tiny(small, tmp_path / "whole", iterations=3), progress=False)
    for iterations in (1, 2, 3):
        train(tiny(small, tmp_path / "raised", iterations=iterations), progress=False)
    (_, weights), (_, expected) = outcome(tmp_path / "raised"), outcome(tmp_path / "whole")
    assert weights == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_iteration_and_saves(small, tmp_path, monkeypatch, number):
    train(tiny(small, tmp_path / "whole"), progress=False)
    config, real = tiny(small, tmp_path / "cut"), Run.update

    def signalled(run, minibatch):
        real(run, minibatch)
        if run.updates == 3:
            signal.raise_signal(number)

    monkeypatch.setattr(Run, "update", signalled)
    with pytest.raises(Interrupted, match=r"interrupted after iteration 2 and saved in .*cut.*at no cost") as caught:
        train(config, progress=False)
    assert caught.value.number == number and signal.getsignal(number) not in (None, signalled)
    monkeypatch.setattr(Run, "update", real)
    run = ready(config)
    assert run.iteration == 2
    run.folder.close()
    train(config, progress=False)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_a_second_signal_stops_at_once_and_says_what_is_lost(small, tmp_path, monkeypatch):
    real = Run.update

    def signalled(run, minibatch):
        real(run, minibatch)
        if run.updates == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "update", signalled)
    with pytest.raises(Interrupted, match=r"stopped at once; .* from iteration 1 in .*, so 1 iteration will be made"):
        train(tiny(small, tmp_path, checkpoint_seconds=0), progress=False)


@pytest.mark.parametrize("changes", [{"learning_rate": 1e10}, {"learning_rate": 1e5, "algorithm": "grpo"}])
def test_divergence_ends_the_run_in_one_line(small, tmp_path, changes):
    config = tiny(small, tmp_path, iterations=50, checkpoint_seconds=0, max_grad_norm=0.0, **changes)
    with pytest.raises(Diverged, match=r"diverged in iteration \d+, after \d+ updates: .* Try a smaller learning_rate"):
        rewarded_train(config)


def rewarded_train(config):
    """Train with rewards by the parity of a completion's length: a random model earns some."""
    return train(config, progress=False, reward=lambda completions, answers: [len(text) % 2 for text in completions])


def test_an_own_reward_takes_the_place_of_the_verdict(small, tmp_path):
    seen = {}

    def lengths(completions, answers):
        seen.update(zip(completions, answers, strict=True))
        return [len(text) / 4 for text in completions]

    config = tiny(small, tmp_path / "run", iterations=1)
    train(config, progress=False, reward=lengths)
    (_, line) = lines(tmp_path / "run")
    assert line["reward"] > 1 and seen and all(answer.isdecimal() for answer in seen.values())
    (tmp_path / "mine.py").write_text("def lengths(completions, answers): return [len(t) / 4 for t in completions]")
    train(tiny(small, tmp_path / "named", iterations=1, reward=f"{tmp_path}/mine.py:lengths"), progress=False)
    assert lines(tmp_path / "named")[1] == line
    with pytest.raises(ValueError, match=r"reward .*mine.py has no class or function 'widths'"):
        train(tiny(small, tmp_path / "wrong", reward=f"{tmp_path}/mine.py:widths"), progress=False)
    for wrong in (lambda c, a: [1.0], lambda c, a: [float("nan")] * len(c)):
        with pytest.raises(ValueError, match="reward must return 16 finite numbers"):
            train(tiny(small, tmp_path / "wrong"), progress=False, reward=wrong)


def test_an_own_task_is_trained_on(small, tmp_path):
    class Echo:
        """Repeat the digit."""

        spec, max_new_tokens, stop = "echo", 3, ("+",)

        def sample(self, count, rng):
            return [Problem(f"{digit}=", str(digit)) for digit in rng.integers(10, size=count)]

        def held_out(self, split, count):
            return [Problem(f"{i % 10}=", str(i % 10)) for i in range(count)]

        def judge(self, completions, answers):
            assert all("+" not in text[:-1] for text in completions)
            right = np.array([text == answer for text, answer in zip(completions, answers)])
            return Verdict(right, np.ones(len(right), dtype=bool), completions)

        def restrict(self, fits):
            assert fits(["1=", "1" * 62]) == [True, False]

    result = train(tiny(small, tmp_path, iterations=1, max_new_tokens=0), progress=False, task=Echo())
    assert result["rollouts"] == 16


def test_filter_keeps_groups_inside_the_open_interval(small, tmp_path):
    config = tiny(small, tmp_path, filter_low=0.0, filter_high=1.0)
    run = rewarded(ready(config), [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0])
    batch = run.next_batch()
    assert batch.groups == [2, 3] and batch.summary["groups_kept"] == 0.5
    minibatches = list(batch.minibatches(run.rng))
    assert [minibatch.number for minibatch in minibatches] == [0, 1]
    prompts = {tuple(row.tolist()) for m in minibatches for row in m.rollouts.prompt_ids}
    assert prompts == {tuple(batch.rollouts.prompt_ids[4 * group].tolist()) for group in (2, 3)}


def test_truncated_completions_can_be_dropped(small, tmp_path):
    config = tiny(small, tmp_path, truncated="drop", max_new_tokens=3, algorithm="pmd-mean-loo", prompts_per_batch=16)
    run = ready(config)
    batch = run.next_batch()
    ended = torch.tensor([
        bool((tokens[mask] == run.tokenizer.eos_token_id).any())
        for tokens, mask in zip(batch.rollouts.tokens, batch.rollouts.mask)
    ]).reshape(16, 4)
    enough = ended.sum(1, keepdim=True) >= 2
    assert ended.any() and not ended.all() and enough.any() and not enough.all()
    assert torch.equal(batch.valid, ended & enough)
    assert batch.groups == torch.nonzero(enough)[:, 0].tolist()
    for minibatch in batch.minibatches(run.rng):
        assert minibatch.rollouts.ended.all() and len(minibatch.advantage) == int(minibatch.valid.sum())
        run.update(minibatch)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_importance_weights_enter_the_loss(small, tmp_path):
    run = rewarded(ready(tiny(small, tmp_path, importance_weights=True)), COIN)
    rewards = torch.tensor(COIN[:16], dtype=torch.float32).reshape(4, 4)
    expected = (rewards / 0.5).exp() / (rewards / 0.5).exp().mean(1, keepdim=True)
    torch.testing.assert_close(run.next_batch().weight.reshape(4, 4), expected)


def test_optimizer_is_reset_on_time(small, tmp_path):
    run = rewarded(ready(tiny(small, tmp_path, reset_optimizer_every=2)), COIN)
    kept = []
    for _ in range(2):
        iterate(run)
        kept.append(len(run.optimizer.state))
    assert kept[0] > 0 and kept[1] == 0


def test_tau_follows_the_measured_weight(small, tmp_path):
    """With λ of each iteration's last minibatch, every τ is the one before times √(λ/target), kept in [1/2, 2]."""
    config = tiny(small, tmp_path, iterations=3, updates_per_batch=2, target_kl=1e-3, tau=0.2, learning_rate=3e-3)
    run, weights = ready(config), []
    while not run.finished:
        batch = run.next_batch()
        for minibatch in batch.minibatches(run.rng):
            run.update(minibatch)
        weights.append(run.measured["lambda/mean"][-1])
        run.close(batch)
    taus = [0.2]
    for weight in weights:
        taus.append(taus[-1] * min(max(math.sqrt(weight / 1e-3), 0.5), 2))
    assert [line["tau"] for line in lines(tmp_path)] == pytest.approx(taus[:-1])
    assert run.tau == pytest.approx(taus[-1]) and len(set(taus)) > 2


def test_learning_rate_schedule(small, tmp_path):
    """Warm-up to the full rate, cosine to 0 at the end of 12 minibatches, be they updates or left empty by a filter."""
    run = ready(tiny(small, tmp_path, iterations=6, lr_schedule="cosine", lr_warmup_updates=3))
    rates = []
    for run.iteration in range(6):
        for number in range(2):
            run.set_learning_rate(number)
            rates.append(run.optimizer.param_groups[0]["lr"])
    cosine = [1e-3 * (1 + np.cos(np.pi * i / 12)) / 2 for i in range(12)]
    assert rates == pytest.approx([cosine[i] * min(1, (i + 1) / 4) for i in range(12)])


def test_a_filter_does_not_slow_the_decay_of_the_learning_rate(small, tmp_path):
    run = rewarded(ready(tiny(small, tmp_path, iterations=2, lr_schedule="linear", filter_low=0.0)), [0] * 16 + COIN)
    assert iterate(run)["updates"] == 0
    iterate(run)
    assert run.updates == 2 and run.optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 4)


@pytest.mark.parametrize(
    "changes",
    [{"dtype": "bfloat16"}, {"gradient_checkpointing": True}, {"algorithm": "gspo"}, {"algorithm": "dr-grpo"},
     {"algorithm": "kimi-token", "length_normalization": "seq-mean-token-mean"}, {"algorithm": "pmd-part-loo"},
     {"algorithm": "pmd:log_partition"}, {"algorithm": "free-baseline"}, {"algorithm": "fixed-chi2", "chi2_coef": 0.1},
     {"algorithm": "standardised"}, {"algorithm": "quantile"}, {"algorithm": "kimi-k2.5"},
     {"algorithm": "pmd-part-loo", "baseline_tau": 2.0}],
)  # fmt: skip
def test_other_arithmetic_and_algorithms_run(small, tmp_path, changes):
    run = rewarded(ready(tiny(small, tmp_path, **changes)), COIN)
    start = [p.detach().clone() for p in run.model.parameters()]
    iterate(run)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in run.model.parameters())
    assert any((p != q).any() for p, q in zip(run.model.parameters(), start))


def test_gradient_checkpointing_changes_nothing(small, tmp_path):
    ends = []
    for name in ("plain", "checkpointed"):
        run = rewarded(ready(tiny(small, tmp_path / name, gradient_checkpointing=name != "plain")), COIN)
        for _ in range(2):
            iterate(run)
        ends.append(torch.cat([p.detach().flatten() for p in run.model.parameters()]))
    torch.testing.assert_close(*ends, atol=1e-6, rtol=1e-5)


def test_completions_that_cannot_be_judged_are_named_at_once(small, tmp_path):
    task = load("arithmetic")
    task.judge = lambda texts, answers: Verdict(*np.zeros((2, len(texts)), dtype=bool), [None] * len(texts))
    with pytest.warns(UserWarning, match="iteration 0: nearly no completion has a readable answer") as caught:
        train(tiny(small, tmp_path, iterations=2), progress=False, task=task)
    assert len(caught) == 1
