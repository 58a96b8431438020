"""One dataclass, its presets and the command line."""

from dataclasses import fields, replace

import pytest
import yaml
from pmdllm.config import Config, from_preset, parse, presets


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_survives_its_own_yaml(name, tmp_path):
    config = from_preset(Config, name)
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml())
    assert from_preset(Config, str(path)) == config == parse(Config, ["--preset", name])


def test_every_option_has_a_help_text_and_the_types_the_parser_knows(capsys):
    with pytest.raises(SystemExit):
        parse(Config, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for declared in fields(Config):
        assert f"--{declared.name}" in text
        assert declared.metadata["help"]


def test_options_override_the_preset_and_spelling_with_hyphens_works():
    config = parse(Config, ["--tau", "0.5", "--learning-rate", "3e-4", "--filter_low", "-1", "--overwrite"])
    preset = from_preset(Config, "tiny-cpu")
    assert config == replace(preset, tau=0.5, learning_rate=3e-4, filter_low=-1.0, overwrite=True)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("learning_rate: 5e-4\n")
    assert isinstance(yaml.safe_load(path.read_text())["learning_rate"], str)
    assert from_preset(Config, str(path)).learning_rate == 5e-4 == parse(Config, ["--preset", str(path)]).learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 0.0}, "tau must be positive, got 0.0"),
        ({"tau": float("nan")}, "tau must be a finite number"),
        ({"iterations": -3}, "iterations must be a nonnegative integer, got -3"),
        ({"prompts_per_batch": 2.5}, "prompts_per_batch must be a nonnegative integer, got 2.5"),
        ({"algorithm": "ppo"}, "algorithm must be one of pmd-mean, .*grpo.*, got 'ppo'"),
        ({"length_normalization": "mean"}, "length_normalization must be one of auto, none"),
        ({"updates_per_batch": 64}, "updates_per_batch must be at most prompts_per_batch = 32"),
        ({"algorithm": "rloo", "rollouts_per_prompt": 1}, "rollouts_per_prompt must be at least 2 for rloo"),
        ({"filter_low": 0.9, "filter_high": 0.1}, "filter_low must be below filter_high = 0.1"),
        ({"wrong_reward": 1.0}, "wrong_reward must be below 1"),
        ({"adam_beta2": 1.0}, "adam_beta2 must be in"),
        ({"dtype": "float16"}, "dtype must be auto, float32 or bfloat16"),
        ({"truncated": "ignore"}, "truncated must be keep or drop"),
        ({"lr_schedule": "step"}, "lr_schedule must be constant, linear or cosine"),
        ({"target_accuracy": 90.0}, r"target_accuracy must be in \[0, 1\]"),
        ({"eval_top_p": 0.0}, "eval_top_p must be in"),
        ({"clip_low": 1.0}, "clip_low must be below 1"),
        ({"target_kl": -1.0}, "target_kl must be at least 0"),
        ({"algorithm": "pmd-target"}, "target_kl must be positive for pmd-target"),
        ({"algorithm": "grpo", "target_kl": 0.1}, "target_kl must be 0 for grpo"),
        ({"tau_factor": -0.5}, "tau_factor must be at least 0"),
        ({"target_kl": 0.1, "tau_factor": 0.9}, "tau_factor must be 0 where target_kl moves τ already"),
        ({"algorithm": "grpo", "tau_factor": 0.9}, "tau_factor must be 0 for grpo"),
        ({"target_kl": 0.1, "updates_per_batch": 1}, "target_kl must be 0 with one update per rollout batch"),
    ],
)
def test_what_cannot_be_meant_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match=r"'--leaning-rate' is no option: is it 'learning_rate'?"):
        parse(Config, ["--leaning-rate", "1e-3"])
    with pytest.raises(ValueError, match=r"'3' is no option; --help lists them"):
        parse(Config, ["--tau", "0.5", "3"])


def test_unknown_preset_and_unknown_field(tmp_path):
    with pytest.raises(ValueError, match=r"preset must be one of .*tiny-cpu.*, got 'tiny'"):
        from_preset(Config, "tiny")
    path = tmp_path / "p.yaml"
    path.write_text("lerning_rate: 1.0e-3\n")
    with pytest.raises(ValueError, match=r"sets 'lerning_rate', which is no option: is it 'learning_rate'?"):
        from_preset(Config, str(path))
    path.write_text("tau: small\n")
    with pytest.raises(ValueError, match=r"tau must be a number, got .small."):
        from_preset(Config, str(path))
    path.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match=r"name: value"):
        from_preset(Config, str(path))


@pytest.mark.parametrize("algorithm", ["pmd-mean", "pmd-mean-loo", "kimi-token"])
def test_a_tau_without_effect_is_warned_about(algorithm):
    with pytest.warns(UserWarning, match=r"tau has no effect"):
        config = Config(algorithm=algorithm, updates_per_batch=1)
    assert config.tau_is_without_effect


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [{}, {"updates_per_batch": 2}, {"epochs": 2}, {"algorithm": "pmd-part"}, {"algorithm": "grpo"},
     {"importance_weights": True}, {"rollout_lag": 1}],
)
def test_and_only_then(change):
    assert not Config(**{"updates_per_batch": 1} | (change or {"updates_per_batch": 8})).tau_is_without_effect
