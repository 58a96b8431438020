"""Options: bounds, one wording, presets and the command line."""

import string
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
import yaml
from pmdllm.config import Config, check, from_preset, option, parse, presets
from pmdllm.validation.declared import ValidateConfig
from pmdllm.warmup import WarmupConfig


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_survives_its_own_yaml(name, tmp_path):
    config = from_preset(Config, name)
    path = tmp_path / "again.yaml"
    path.write_text(config.to_yaml())
    assert from_preset(Config, str(path)) == config == parse(Config, ["--preset", name])


@pytest.mark.parametrize("cls", [Config, WarmupConfig, ValidateConfig])
def test_every_option_has_a_help_text_and_the_types_the_parser_knows(cls, capsys):
    with pytest.raises(SystemExit):
        parse(cls, ["--help"], kind={Config: "train", WarmupConfig: "warmup", ValidateConfig: "validate"}[cls])
    text = " ".join(capsys.readouterr().out.split())
    for declared in fields(cls):
        assert f"--{declared.name}" in text
        assert declared.metadata["help"]


def test_options_override_the_preset_and_spelling_with_hyphens_works():
    config = parse(Config, ["--tau", "0.5", "--learning-rate", "3e-4", "--filter_low", "-1", "--overwrite"])
    preset = from_preset(Config, "tiny-cpu")
    assert config == replace(preset, tau=0.5, learning_rate=3e-4, filter_low=-1.0, overwrite=True)
    assert not parse(Config, ["--overwrite", "false"]).overwrite


@pytest.mark.parametrize("text", ["-1", "-1e-3", "-.5", "-1e6", "-0.25"])
def test_negative_numbers_are_values(text):
    assert parse(Config, ["--wrong_reward", text]).wrong_reward == float(text)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("learning_rate: 5e-4\n")
    assert isinstance(yaml.safe_load(path.read_text())["learning_rate"], str)
    assert from_preset(Config, str(path)).learning_rate == 5e-4 == parse(Config, ["--preset", str(path)]).learning_rate


def test_numbers_of_numpy_are_numbers(tmp_path):
    config = Config(tau=np.float32(0.5), seed=np.int64(3), overwrite=np.True_)
    assert (config.tau, config.seed, config.overwrite) == (0.5, 3, True)
    (tmp_path / "p.yaml").write_text(config.to_yaml())
    assert from_preset(Config, tmp_path / "p.yaml") == config


@dataclass(frozen=True)
class Bounded:
    both: float = option(0.5, "", at_least=0, below=1)
    open: float = option(0.5, "", above=0)
    count: int = option(1, "", at_least=1, at_most=3)
    any: float | None = option(None, "")
    name: str = option("a", "", choices=("a", "b"))
    flag: bool = option(False, "")

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"both": 1}, "both must be a number in [0, 1), got 1."),
        ({"both": -1e-300}, "both must be a number in [0, 1), got -1e-300."),
        ({"both": "0.5"}, "both must be a number in [0, 1), got '0.5'."),
        ({"both": float("nan")}, "both must be a number in [0, 1), got nan."),
        ({"both": True}, "both must be a number in [0, 1), got True."),
        ({"both": None}, "both must be a number in [0, 1), got None."),
        ({"open": 0.0}, "open must be a number in (0, inf), got 0.0."),
        ({"open": float("inf")}, "open must be a number in (0, inf), got inf."),
        ({"any": -float("inf")}, "any must be a number in (-inf, inf), got -inf."),
        ({"count": 0}, "count must be an integer in [1, 3], got 0."),
        ({"count": 4}, "count must be an integer in [1, 3], got 4."),
        ({"count": 2.0}, "count must be an integer in [1, 3], got 2.0."),
        ({"count": True}, "count must be an integer in [1, 3], got True."),
        ({"name": "c"}, "name must be one of a, b, got 'c'."),
        ({"name": None}, "name must be one of a, b, got None."),
        ({"flag": 1}, "flag must be true or false, got 1."),
        ({"flag": "yes"}, "flag must be true or false, got 'yes'."),
    ],
)
def test_one_wording(change, said):
    with pytest.raises(ValueError) as caught:
        Bounded(**change)
    assert str(caught.value) == said


def test_bounds_that_belong_to_it():
    for change in ({"both": 0}, {"both": 0.999}, {"open": 5e-324}, {"count": 3}, {"any": -1e300}, {"any": 10**300}):
        assert Bounded(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": 0.0}, r"tau must be a number in \[1e-06, 1000000.0\], got 0.0"),
        ({"tau": 1e-300}, r"tau must be a number in \[1e-06, "),
        ({"seed": -1}, r"seed must be an integer in \[0, 4294967295\], got -1"),
        ({"seed": 2**70}, "seed must be an integer in"),
        ({"threads": 100_000}, r"threads must be an integer in \[0, 1024\]"),
        ({"prompts_per_batch": 10**12}, "prompts_per_batch must be an integer in"),
        ({"prompts_per_batch": 10**6, "rollouts_per_prompt": 16}, "rollouts_per_prompt must be at most 10 with"),
        ({"task": 3}, "task must be text, got 3"),
        ({"task": "a\udc80"}, "task must be text"),
        ({"model": "a\0"}, "model must be text"),
        ({"report_to": None}, "report_to must be text, got None"),
        ({"algorithm": "ppo"}, "algorithm must be one of pmd-mean, .*grpo.*, got 'ppo'"),
        ({"updates_per_batch": 64}, "updates_per_batch must be at most prompts_per_batch = 32"),
        ({"algorithm": "rloo", "rollouts_per_prompt": 1}, "at least 2 for rloo: its baseline leaves one rollout out"),
        ({"algorithm": "grpo", "rollouts_per_prompt": 1}, "at least 2 for grpo: a single one has advantage 0"),
        ({"filter_low": 0.9, "filter_high": 0.1}, "filter_low must be below filter_high = 0.1"),
        ({"algorithm": "pmd-target"}, "target_kl must be positive for pmd-target"),
        ({"algorithm": "grpo", "target_kl": 0.1}, "target_kl must be 0 for grpo"),
        ({"target_kl": 0.1, "tau_factor": 0.9}, "tau_factor must be 0 where target_kl moves τ already"),
        ({"algorithm": "grpo", "tau_factor": 0.9}, "tau_factor must be 0 for grpo"),
        ({"target_kl": 0.1, "updates_per_batch": 1}, "target_kl must be 0 with one update per rollout batch"),
    ],
)
def test_what_cannot_be_meant_is_named(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        Config(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["grpo", "dr-grpo", "gspo", "kimi-token", "pmd-mean", "pmd-part"])
def test_a_group_of_one_teaches_nothing(algorithm):
    """The advantage of the only rollout of a group is 0 whatever its reward, so there is nothing to train on."""
    method = Config(algorithm=algorithm).method
    assert not method.advantage(torch.tensor([[0.0], [1.0]]), 0.1).any()
    with pytest.raises(ValueError, match="rollouts_per_prompt must be at least 2"):
        Config(algorithm=algorithm, rollouts_per_prompt=1)


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match=r"'--leaning-rate' is no option: is it 'learning_rate'?"):
        parse(Config, ["--leaning-rate", "1e-3"])
    with pytest.raises(ValueError, match=r"'3' is no option; --help lists them"):
        parse(Config, ["--tau", "0.5", "3"])
    with pytest.raises(ValueError, match="argument --tau: expected one argument"):
        parse(Config, ["--tau"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lerning_rate: 1.0e-3", r"sets 'lerning_rate', which is no option: is it 'learning_rate'?"),
        ("1: 2", "sets 1, which is no option"),
        ("tau: small", r"tau must be a number in .*, got 'small'"),
        ("tau: null", r"tau must be a number in .*, got None"),
        ("tau: true", r"tau must be a number in .*, got True"),
        ("tau: [1]", r"tau must be a number in .*, got \[1\]"),
        ("task: 3", "task must be text, got 3"),
        ("report_to: null", "report_to must be text, got None"),
        ("seed: 2020-01-01", "seed must be an integer in .*, got datetime.date"),
        ("- a\n- b", "name: value"),
        ("a: [", "cannot be read: .*line"),
        ("a: 1\n b: 2", "cannot be read: .*line"),
        ("[" * 5000, "cannot be read"),
        ("!!python/object:os.system {}", "cannot be read"),
        (b"\x00\xff\xfe", "cannot be read"),
    ],
)
def test_a_preset_that_cannot_be_meant(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        from_preset(Config, str(path))
    assert "\n" not in str(caught.value)


def test_a_preset_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"preset must be one of .*tiny-cpu.*, got 'tiny'"):
        from_preset(Config, "tiny")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        from_preset(Config, tmp_path / "folder.yaml")
    with pytest.raises(ValueError, match="cannot be read: File name too long"):
        from_preset(Config, "a" * 300)


def test_an_empty_preset_is_the_defaults(tmp_path):
    (tmp_path / "p.yaml").write_text("# nothing\n")
    assert from_preset(Config, tmp_path / "p.yaml") == Config()


def test_the_tiny_models_settings_are_not_inherited_by_another_model():
    with pytest.raises(ValueError, match=r"needs its own task and learning_rate.*--preset pretrained") as caught:
        parse(Config, ["--model", "other"])
    assert "arithmetic, 0.0005" in str(caught.value)
    with pytest.raises(ValueError, match="needs its own learning_rate"):
        parse(Config, ["--model", "other", "--task", "gsm8k"])
    config = parse(Config, ["--model", "other", "--task", "gsm8k", "--learning_rate", "1e-5"])
    assert (config.model, config.task, config.learning_rate) == ("other", "gsm8k", 1e-5)
    config = parse(Config, ["--model", "other", "--preset", "pretrained"])
    assert config.model == "other" and config.learning_rate < from_preset(Config, "tiny-cpu").learning_rate
    assert parse(Config, ["--model", "other", "--preset", "tiny-cpu"]).learning_rate == 5e-4
    assert parse(Config, ["--model", "base"]).model == "base"


def test_the_default_folder_tells_experiments_apart():
    configs = [
        Config(), Config(seed=1), Config(algorithm="grpo"), Config(task="gsm8k"), Config(model="runs/a/model"),
        Config(task="arithmetic:terms=5"), Config(task="file:" + "x" * 300), Config(task="file:" + "x" * 301),
    ]  # fmt: skip
    outputs = [config.output for config in configs]
    assert outputs[0] == "runs/arithmetic-base-pmd-mean-s0" and len(set(outputs)) == len(outputs)
    for output in outputs:
        assert output.startswith("runs/") and len(output) < 200
        assert set(output[5:]) <= set(string.ascii_letters + string.digits + "_.+=-")
    assert Config(output="mine").output == "mine"
    assert Config(output="").output == Config().output


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
)  # fmt: skip
def test_and_only_then(change):
    assert not Config(**{"updates_per_batch": 1} | (change or {"updates_per_batch": 8})).tau_is_without_effect
