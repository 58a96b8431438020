"""Warm-up: its loss against Transformers' own, reproducibility, and the shipped base against its model card."""

import re
import shlex
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from pmdllm import cli, models, tasks
from pmdllm.config import Config, from_preset, parse, presets
from pmdllm.evaluate import evaluate
from pmdllm.rollout import sample
from pmdllm.run.signals import Interrupted
from pmdllm.warmup import Warmup, WarmupConfig, fit, warmup
from tokenizers import processors
from transformers import AutoModelForCausalLM, LlamaConfig

MINI = WarmupConfig(
    hidden_size=32, layers=1, heads=2, steps=60, batch=32, lr_warmup_steps=10, eval_prompts=20, device="cpu"
)  # fmt: skip
TASK = tasks.load("arithmetic")
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '-' if m.role == 'system' else '+' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}({% endif %}"
)
STAGES = "before/", "test/"
CARD = "---\nlicense: apache-2.0\nbase_model: someone/something\n---\n\n# A pretrained model\n"


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def card(folder):
    """Text of a model card, and its accuracies: {name: (value, half-width)}."""
    text = (folder / "README.md").read_text()
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ± ([\d.]+) \|$", text, re.MULTILINE)
    return text, {name: (float(value), float(width)) for name, value, width in rows}


def recipe(text):
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def mini():
    return fit(MINI, TASK)


def test_the_loss_falls(mini):
    losses = mini[2]
    assert len(losses) == MINI.steps
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_the_same_seed_gives_the_same_bits_whoever_prepares_the_batches(mini):
    model, _, losses = fit(replace(MINI, workers=1), TASK)
    assert torch.equal(weights(model), weights(mini[0])) and losses == mini[2]


def test_another_seed_gives_another_model(mini):
    _, _, losses = fit(replace(MINI, seed=1, steps=2), TASK)
    assert losses[0] != mini[2][0]


@pytest.mark.parametrize("spec", ["arithmetic", "arithmetic:terms=5-6,parentheses=true"])
def test_the_loss_is_the_cross_entropy_of_completions_and_their_end(spec):
    """Transformers' own loss on each demonstration alone, unpadded, with the prompt's labels ignored."""
    task, config = tasks.load(spec), replace(MINI, steps=1, seed=3, max_length=128)
    _, tokenizer, losses = fit(config, task)
    model = models.tiny(tokenizer, config.hidden_size, config.layers, config.heads, config.max_length, config.seed)
    total = count = 0
    for prompt, completion in task.demonstrations(config.batch, np.random.default_rng((config.seed, 0))):
        ids = torch.tensor([[*tokenizer(prompt + completion).input_ids, tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.no_grad():
            total += model(ids, labels=labels).loss.item() * (len(completion) + 1)
        count += len(completion) + 1
    assert losses[0] == pytest.approx(total / count, rel=1e-5)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A folder with an untrained Llama; its tokenizer begins every text, and has a chat template."""
    folder = tmp_path_factory.mktemp("pretrained")
    tokenizer = models.character_tokenizer(TASK.alphabet)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    models.save(AutoModelForCausalLM.from_config(config), tokenizer, folder)
    (folder / "README.md").write_text(CARD)
    return folder


def started(pretrained, output=None, **changes):
    """A warm-up of the untrained Llama."""
    options = {"steps": 4, "batch": 8, "lr_warmup_steps": 2, "eval_prompts": 10, "eval_samples": 2, "device": "cpu"}
    place = {} if output is None else {"output": str(output)}
    return WarmupConfig(model=str(pretrained), **options | place | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"micro_batch": 3}, {"memory_gb": 1e-6, "dtype": "float32"}, {"gradient_checkpointing": True},
        {"system_prompt": "77"}, {"chat": "off", "micro_batch": 1},
    ],
    ids=str,
)  # fmt: skip
def test_loss_and_gradient_of_a_pretrained_model_however_it_is_cut(pretrained, monkeypatch, changes):
    """Transformers' own of each conversation alone, written out by hand, with its labels masked up to the answer."""
    monkeypatch.setattr(models, "LARGE", 0 if "memory_gb" in changes else models.LARGE)
    config = started(pretrained, seed=5, steps=1, max_grad_norm=1e9, **changes)
    task = tasks.load("arithmetic:terms=4-7")
    model, tokenizer = models.load(pretrained)
    run = Warmup(config, task)
    ((line, _),) = run.updates()
    pairs = task.demonstrations(config.batch, np.random.default_rng((config.seed, 0)))
    before = {"off": "<bos>{}"}.get(config.chat, f"<bos>{'-77' if config.system_prompt else ''}+{{}}(")
    lengths, losses = [], []
    for prompt, completion in pairs:
        asked, answered = (tokenizer(text, add_special_tokens=False).input_ids
                           for text in (before.format(prompt), f"{completion}<eos>"))  # fmt: skip
        labels = torch.tensor([[-100] * len(asked) + answered])
        losses.append(model(torch.tensor([asked + answered]), labels=labels).loss * len(answered))
        lengths.append(len(answered))
    loss = sum(losses) / sum(lengths)
    loss.backward()
    assert len(set(lengths)) > 2 and line["tokens"] == sum(lengths)
    assert line["loss"] == pytest.approx(loss.item(), rel=1e-5)
    for own, other in zip(run.model.parameters(), model.parameters()):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-6)


def outcome(folder):
    """Weights, losses and model card of a warm-up."""
    return [(folder / name).read_bytes() for name in ("model.safetensors", "metrics.jsonl", "README.md")]


class KilledError(Exception):
    pass


@pytest.mark.parametrize("place", ["update", "measured"])
@pytest.mark.parametrize("begun", ["from scratch", "by Muon", "from a model"])
def test_resumed_after_any_end(pretrained, tmp_path, monkeypatch, begun, place):
    """A warm-up cut off again and again ends with the bits of a whole one, and leaves no checkpoint."""
    whole = started(pretrained, micro_batch=3) if begun == "from a model" else replace(MINI, steps=4)
    whole = replace(whole, optimizer="muon") if begun == "by Muon" else whole
    whole = replace(whole, output=str(tmp_path / "whole"), checkpoint_seconds=0)
    cut, real, left = replace(whole, output=str(tmp_path / "cut")), getattr(Warmup, place), 0

    def until_killed(run, *arguments):
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return real(run, *arguments)

    result = warmup(whole, progress=False)
    monkeypatch.setattr(Warmup, place, until_killed)
    for left in (0, 1, 2):
        if place == "update" or left == 0:
            with pytest.raises(KilledError):
                warmup(cut, progress=False)
    left = 9
    again = warmup(cut, progress=False)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert not (tmp_path / "cut" / "checkpoints").exists()


@pytest.fixture(scope="module")
def undisturbed(pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    warmup(started(pretrained, folder), progress=False)
    return outcome(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_update_and_saves(pretrained, undisturbed, tmp_path, monkeypatch, number):
    config, real = started(pretrained, tmp_path / "cut"), Warmup.update

    def signalled(run, batch):
        line = real(run, batch)
        for _ in range(signals if run.step == 2 else 0):
            signal.raise_signal(number)
        return line

    monkeypatch.setattr(Warmup, "update", signalled)
    signals = 1
    with pytest.raises(Interrupted, match=r"after update 2 and saved in .*cut.*at no cost") as caught:
        warmup(config, progress=False)
    assert caught.value.number == number
    monkeypatch.setattr(Warmup, "update", real)
    warmup(config, progress=False)
    assert outcome(tmp_path / "cut") == undisturbed
    monkeypatch.setattr(Warmup, "update", signalled)
    signals = 2
    with pytest.raises(Interrupted, match=r"stopped at once; .* from update 0 in .*lost, and 2 will be made again"):
        warmup(replace(config, output=str(tmp_path / "lost")), progress=False)


def test_a_finished_warm_up_is_kept_and_another_configuration_refused(pretrained, tmp_path):
    config = started(pretrained, tmp_path / "base")
    result = warmup(config, progress=False)
    before = outcome(tmp_path / "base")
    with pytest.warns(UserWarning, match="holds this warm-up, finished: it is not made again"):
        assert warmup(config, progress=False) == result
    with pytest.raises(ValueError, match=r"other settings: steps \(4 there, 5 here, .*\), batch \(8 there, 9 here\)"):
        warmup(replace(config, steps=5, batch=9), progress=False)
    assert outcome(tmp_path / "base") == before
    warmup(replace(config, seed=1, overwrite=True), progress=False)
    assert outcome(tmp_path / "base") != before


def test_a_model_that_no_warm_up_made_is_left_alone(pretrained, tmp_path):
    models.save(*models.load("base"), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"config.json but no run's config.yaml. Choose another output"):
            warmup(started(pretrained, tmp_path, overwrite=overwrite), progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="output must be another folder than that of model"):
        started(pretrained, pretrained)


def test_a_pretrained_model_learns_answers_and_where_they_end(pretrained, tmp_path):
    warmup(started(pretrained, tmp_path / "new", steps=120, batch=32, learning_rate=1e-2), progress=False)
    prompts, formed = [problem.prompt for problem in TASK.held_out("test", 40)], {}
    for folder in (pretrained, tmp_path / "new"):
        model, tokenizer = models.load(folder)
        rollouts = sample(model, tokenizer, prompts, 1, TASK.max_new_tokens)
        texts = zip(rollouts.texts(tokenizer), rollouts.ended.tolist())
        form = re.compile(r"\d([-+*]\d)+=\d[-+*]\d=\d")
        formed[folder] = np.mean([end and form.fullmatch(text) is not None for text, end in texts])
    assert formed[pretrained] == 0 and formed[tmp_path / "new"] > 0.9


def test_the_card_of_a_pretrained_model_has_both_accuracies_and_its_licence(pretrained, tmp_path):
    result = warmup(started(pretrained, tmp_path / "new"), progress=False)
    text = (tmp_path / "new" / "README.md").read_text()
    for name in ("greedy", "avg@2", "pass@2", "maj@2"):
        before, after = (f"{result[stage + name]:.3f} | ± {result[f'{stage}{name}_ci']:.3f}" for stage in STAGES)
        assert f"| {name} | {before} | {after} |" in text
    model, tokenizer = models.load(pretrained)
    before = evaluate(model, tokenizer, TASK, "test", 10, 2, TASK.max_new_tokens)
    assert {name.removeprefix("before/"): value for name, value in result.items() if "before/" in name} == before
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["base_model"]) == ("apache-2.0", "someone/something")
    assert "4 updates" in text and "from scratch" not in text
    assert recipe(text)["model"] == str(pretrained) and "hidden_size" not in recipe(text)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(text)))
    again = from_preset(WarmupConfig, tmp_path / "recipe.yaml", output=str(tmp_path / "again"))
    warmup(again, progress=False)
    assert outcome(tmp_path / "again") == outcome(tmp_path / "new")


def test_the_command_prints_where_it_stands_and_how_to_go_on(pretrained, tmp_path, capsys):
    options = ["--task", "arithmetic", "--steps", "2", "--batch", "4", "--eval-prompts", "4", "--device", "cpu"]
    options += ["--output", str(tmp_path / "my base"), "--model", str(pretrained)]
    assert cli.main(["warmup", "--preset", "pretrained", "--chat", "off", *options]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +before +after$", shown, re.MULTILINE) and re.search(r"^greedy .*±.*±", shown, re.MULTILINE)
    name, command, *words = shlex.split(shown.splitlines()[-1])
    expected = {"model": str(tmp_path / "my base"), "task": "arithmetic", "chat": "off"}
    assert (name, command) == ("pmd-llm", "train")
    assert parse(Config, words) == from_preset(Config, "pretrained", **expected)


def test_what_a_pretrained_model_cannot_start_from(pretrained, tmp_path):
    with pytest.raises(ValueError, match=r"hidden_size must be left out with model = .*, which is what it is, got 128"):
        started(pretrained, hidden_size=128)
    with pytest.raises(ValueError, match="arithmetic:terms=4-12 has no prompt that fits the model"):
        fit(started(pretrained), tasks.load("arithmetic:terms=4-12"))
    verbose = tasks.load("arithmetic")
    verbose.demonstrations = lambda count, rng: [("1+1=", "1" * 80)] * count
    with pytest.raises(ValueError, match=r"the longest sequence of model .* must be at least 88, .* got 64"):
        fit(started(pretrained), verbose)
    with pytest.raises(ValueError, match="system_prompt needs a chat template"):
        fit(started(pretrained, chat="off", system_prompt="1"), TASK)
    with pytest.raises(FloatingPointError, match=r"diverged in update \d+: .* smaller learning_rate \(now 1e\+10"):
        fit(started(pretrained, learning_rate=1e10, steps=20, lr_warmup_steps=0), TASK)


def test_a_warm_up_writes_a_model_with_the_card_of_its_accuracies(tmp_path):
    config = replace(MINI, output=str(tmp_path / "new" / "base"), steps=5)
    warmup(config, progress=False)
    folder = tmp_path / "new" / "base"
    model, tokenizer = models.load(folder)
    assert torch.equal(weights(model), weights(fit(config, TASK)[0]))
    text, found = card(folder)
    again = evaluate(model, tokenizer, TASK, "test", 20, 8, TASK.max_new_tokens)
    assert set(found) == {"greedy", "avg@8", "pass@8", "maj@8"}
    assert all(found[name] == pytest.approx((again[name], again[f"{name}_ci"]), abs=6e-4) for name in found)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(text)))
    assert from_preset(WarmupConfig, tmp_path / "recipe.yaml", output=config.output) == config
    assert str(tmp_path) not in text


def test_a_length_that_the_task_does_not_fit():
    with pytest.raises(ValueError, match=r"max_length must be at least 22, .* got 20"):
        fit(replace(MINI, max_length=20), TASK)


def test_a_task_without_demonstrations():
    with pytest.raises(ValueError, match=r"task must have demonstrations, as 'arithmetic'.* have, got 'reasoning_gym:"):
        warmup(replace(MINI, task="reasoning_gym:chain_sum"))


def test_a_task_without_an_alphabet_needs_a_model():
    with pytest.raises(ValueError, match=r"task must have an alphabet for a model from scratch, .* got 'sums': give"):
        fit(replace(MINI, task="sums"), tasks.load("sums"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("pmdllm.warmup.fit", None)
    for output in (tmp_path / "file", tmp_path / "file" / "base"):
        with pytest.raises(ValueError, match="output must be a folder that can be written"):
            warmup(replace(MINI, output=str(output)))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("preset", presets("warmup"))
def test_every_preset_runs_when_shrunk_to_a_cpu(preset, pretrained):
    scratch = from_preset(WarmupConfig, preset, kind="warmup").model is None
    tiny = {"hidden_size": 16, "layers": 1, "heads": 2} if scratch else {"model": str(pretrained), "task": "arithmetic"}
    config = from_preset(WarmupConfig, preset, kind="warmup", **tiny, steps=2, batch=4, device="cpu", workers=0)
    model, _, losses = fit(config, tasks.load(config.task))
    assert len(losses) == 2 and weights(model).isfinite().all()


def test_the_base_was_made_by_the_default_preset():
    made = recipe(card(models.BASE)[0])
    assert from_preset(WarmupConfig, "tiny-cpu", kind="warmup", **made) == from_preset(
        WarmupConfig, "tiny-cpu", kind="warmup"
    )


def test_the_base_is_as_accurate_as_its_card_says_and_leaves_room_to_learn():
    stated = card(models.BASE)[1]
    model, tokenizer = models.load("base")
    found = evaluate(model, tokenizer, TASK, "test", 300, 8, TASK.max_new_tokens, seed=1)
    for name, (value, _) in stated.items():
        assert abs(found[name] - value) <= found[f"{name}_ci"], name
    assert stated["greedy"][0] < 0.4 and stated["avg@8"][0] < 0.4 < 0.8 < stated["pass@8"][0]
