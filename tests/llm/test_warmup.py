"""Warm-up: its loss against Transformers' own, reproducibility, and the shipped base against its model card."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from pmdllm import models, tasks
from pmdllm.config import from_preset, presets
from pmdllm.evaluate import evaluate
from pmdllm.warmup import WarmupConfig, fit, warmup

MINI = WarmupConfig(
    hidden_size=32, layers=1, heads=2, steps=60, batch=32, lr_warmup_steps=10, eval_prompts=20, device="cpu"
)  # fmt: skip
TASK = tasks.load("arithmetic")


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


def test_a_task_without_demonstrations(tmp_path):
    rows = [{"question": f"{i}+1", "answer": str(i + 1)} for i in range(50)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="task must have demonstrations"):
        warmup(replace(MINI, task=f"file:{tmp_path / 'rows.jsonl'}"))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("pmdllm.warmup.fit", None)
    for output in (tmp_path / "file", tmp_path / "file" / "base"):
        with pytest.raises(ValueError, match="output must be a folder that can be written"):
            warmup(replace(MINI, output=str(output)))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"] and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("preset", presets("warmup"))
def test_every_preset_runs_when_shrunk_to_a_cpu(preset):
    tiny = {"hidden_size": 16, "layers": 1, "heads": 2, "steps": 2, "batch": 4, "device": "cpu", "workers": 0}
    config = from_preset(WarmupConfig, preset, kind="warmup", **tiny)
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
