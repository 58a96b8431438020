"""Tokenizer, tiny model, loading and saving: round trips, counts by hand, and what a user can get wrong."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pmdllm import models, tasks
from pmdllm.config import preset_values, presets
from transformers import AutoModelForCausalLM, AutoTokenizer

ALPHABET = tasks.load("arithmetic").alphabet
TOKENIZER = models.character_tokenizer(ALPHABET)
texts = st.text(ALPHABET, max_size=40)
check = settings(max_examples=60, deadline=None)


def small(seed=0):
    return models.tiny(TOKENIZER, hidden_size=16, layers=1, heads=2, max_length=32, seed=seed)


@check
@given(texts)
def test_encoding_is_one_token_per_character_and_decoding_its_inverse(text):
    ids = TOKENIZER(text).input_ids
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text
    assert TOKENIZER.decode([*ids, TOKENIZER.eos_token_id], skip_special_tokens=True) == text


@check
@given(st.lists(texts.filter(len), min_size=1, max_size=5))
def test_padding_stands_on_the_left_and_is_masked(batch):
    encoded = TOKENIZER(batch, padding=True, return_tensors="pt")
    width = max(map(len, batch))
    for text, ids, mask in zip(batch, encoded.input_ids, encoded.attention_mask):
        assert mask.tolist() == [0] * (width - len(text)) + [1] * len(text)
        assert (ids[mask == 0] == TOKENIZER.pad_token_id).all()
    assert TOKENIZER.batch_decode(encoded.input_ids, skip_special_tokens=True) == batch


@check
@given(st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_alphabet_keeps_its_text(text):
    """Spaces, line breaks, combining marks: nothing is normalised away."""
    tokenizer = models.character_tokenizer("".join(dict.fromkeys(text)))
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens_differ_from_each_other_and_from_characters():
    ids = [TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, *TOKENIZER(ALPHABET).input_ids]
    assert sorted(ids) == list(range(len(TOKENIZER)))
    assert TOKENIZER.bos_token is None


@pytest.mark.parametrize("text", ["1+a", "1 + 2", "½", "1\n"])
def test_a_character_outside_the_alphabet_is_an_error(text):
    with pytest.raises(Exception, match="UNK"):
        TOKENIZER(text)


@pytest.mark.parametrize("alphabet", ["", "0120", "012<"])
def test_alphabets_that_cannot_be(alphabet):
    with pytest.raises(ValueError, match="alphabet must hold different characters"):
        models.character_tokenizer(alphabet)


@pytest.mark.parametrize("hidden_size, layers, heads, max_length", [(16, 1, 2, 32), (24, 3, 4, 50)])
def test_the_tiny_model_is_as_described(hidden_size, layers, heads, max_length):
    """Weights counted by hand; their spread is 1/√d, less in the two that write into the residual stream."""
    model = models.tiny(TOKENIZER, hidden_size, layers, heads, max_length)
    d, vocabulary = hidden_size, len(TOKENIZER)
    attention, mlp, norms = 4 * d * d + 4 * d, 4 * d * d + 3 * d, 4 * d
    assert model.num_parameters() == (2 * vocabulary + max_length) * d + layers * (attention + mlp + norms) + 2 * d
    assert {p.dtype for p in model.parameters()} == {torch.float32} and not model.training
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            expected = (2 * layers * d) ** -0.5 if name.endswith("c_proj.weight") else d**-0.5
            assert weight.std().item() == pytest.approx(expected, rel=0.2), name


def test_the_seed_alone_decides_the_initial_weights():
    torch.manual_seed(5)
    untouched = torch.random.get_rng_state()
    first, again, other = (torch.cat([p.flatten() for p in small(seed).parameters()]) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), untouched)


def test_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="hidden_size must be a multiple of heads = 3, got 16"):
        models.tiny(TOKENIZER, hidden_size=16, heads=3)


def test_what_is_saved_is_loaded_by_us_and_by_transformers(tmp_path):
    model = small()
    models.save(model, TOKENIZER, tmp_path / "deep" / "model")
    loaded, tokenizer = models.load(tmp_path / "deep" / "model")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "model")
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight) and torch.equal(plain.state_dict()[name], weight)
    assert not loaded.training and tokenizer.padding_side == "left"
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert tokenizer.decode(tokenizer("7+3*9=").input_ids) == "7+3*9="
    with pytest.raises(Exception, match="UNK"):
        tokenizer("seven")


def test_saving_replaces_its_own_files_only(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    models.save(small(1), TOKENIZER, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    models.save(small(2), TOKENIZER, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert torch.equal(models.load(tmp_path)[0].lm_head.weight, small(2).lm_head.weight)


def test_a_save_that_fails_changes_nothing(tmp_path, monkeypatch):
    models.save(small(1), TOKENIZER, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    broken = small(2)

    def half(folder):
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(broken, "save_pretrained", half)
    with pytest.raises(OSError, match="disk full"):
        models.save(broken, TOKENIZER, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_base_is_small_and_safe_and_loads_with_transformers_alone():
    files = {path.name: path.stat().st_size for path in models.BASE.iterdir()}
    assert sum(files.values()) < 2_000_000
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= set(files)
    assert all(name.endswith((".safetensors", ".json", ".md")) for name in files)
    model, tokenizer = models.load("base")
    plain = AutoModelForCausalLM.from_pretrained(models.BASE)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters()))
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "runs/a/b", "two words", "", "empty"])
def test_a_folder_without_a_model(name, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"model must be 'base', a folder with a model, a fetched .* got {name!r}"):
        models.load(name)


def test_a_folder_with_damaged_weights(tmp_path):
    models.save(small(), TOKENIZER, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="could not be loaded"):
        models.load(tmp_path)


def test_a_hub_name_without_a_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"model 'nobody/nothing' could not be loaded.*or can be reached"):
        models.load("nobody/nothing")


def test_a_tokenizer_without_padding_pads_with_its_end_of_sequence(tmp_path):
    models.save(small(), TOKENIZER, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["pad_token"], settings["padding_side"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token is None
    tokenizer = models.load(tmp_path)[1]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id is not None
    assert tokenizer.padding_side == "left"


@pytest.mark.parametrize("preset", [name for name in presets() if preset_values(name).get("model", "")[:5] == "runs/"])
def test_the_model_of_a_preset_that_a_warm_up_makes(preset, tmp_path, monkeypatch):
    """Each names the warm-up that makes it; nobody asks the hub for a folder of runs."""
    monkeypatch.chdir(tmp_path)
    name = preset_values(preset)["model"]
    with pytest.raises(ValueError, match=rf"^model '{name}' is not made yet: pmd-llm warmup --preset {preset}$"):
        models.load(name)


def test_code_that_comes_with_a_model_runs_only_when_trusted(tmp_path):
    models.save(small(), TOKENIZER, tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"model_type": "foreign", "auto_map": {"AutoConfig": "foreign.Foreign"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Foreign: pass\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        models.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_devices():
    assert models.device("cpu") == torch.device("cpu")
    assert models.device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", ""):
        with pytest.raises(ValueError, match="device must be auto, cpu or a GPU"):
            models.device(name)
