"""Models and their tokenizers: a tiny one from scratch, the shipped base, and any causal language model by name.

The tiny model is a GPT-2 of the Transformers library: pre-norm layers with learned positions, an MLP twice as wide as
the residual stream, and an output layer of its own. At 10⁵ parameters the number of operations decides the speed, not
their size, and GPT-2 has the fewest: it samples and trains about a quarter faster than architectures with rotary
positions. Weights start with standard deviation 1/√d, d the hidden size. The customary 0.02 is meant for d in the
thousands, and a model of d = 64 that starts there has learned little when its warm-up ends.

The tokenizer has one token per character, a padding token and an end-of-sequence token. Decoding joins the characters,
so that ``decode(encode(text)) == text``; a character outside the alphabet is an error and never an unknown token.

All weights are float32, whatever the arithmetic of a run.
"""

import contextlib
import ctypes
import functools
import re
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as algorithms
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, PreTrainedTokenizerFast
from transformers.utils import logging

from ..config import preset_values, presets
from . import fetch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["BASE", "arithmetic", "character_tokenizer", "device", "is_large", "load", "save", "tiny"]

BASE = Path(__file__).parent / "base"
PAD, EOS = "<pad>", "<eos>"
LARGE = 10_000_000
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def character_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per character, left padding, and padding and end-of-sequence tokens.

    The alphabet's characters differ, and ``<``, which opens the special tokens, is none of them. The tokenizer adds no
    tokens of its own, and raises an exception on a character outside the alphabet.

    Examples
    --------
    >>> tokenizer = character_tokenizer("0123456789+=")
    >>> tokenizer(["1+2=", "7="], padding=True).input_ids
    [[3, 12, 4, 13], [0, 0, 9, 13]]
    >>> tokenizer.decode([3, 12, 4, 13])
    '1+2='
    """
    if not alphabet or len(set(alphabet)) < len(alphabet) or "<" in alphabet:
        raise ValueError(f"alphabet must hold different characters other than '<', at least one, got {alphabet!r}.")
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, *alphabet])}
    tokenizer = Tokenizer(algorithms.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny(
    tokenizer: "PreTrainedTokenizerBase",
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    max_length: int = 64,
    seed: int = 0,
) -> "LlamaForCausalLM":
    """Make an untrained model for a tokenizer, in evaluation mode, of about ``8 · layers · hidden_size²`` parameters.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a padding and an end-of-sequence token.
    hidden_size, layers, heads : int
        Width of the residual stream, a multiple of `heads`; number of layers; attention heads per layer.
    max_length : int
        Longest sequence, prompt and completion together, in tokens.
    seed : int
        Seed of the initial weights.

    Examples
    --------
    >>> tiny(character_tokenizer("0123456789+=")).num_parameters()
    72960
    """
    if hidden_size % heads:
        raise ValueError(f"hidden_size must be a multiple of heads = {heads}, got {hidden_size}.")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=max_length, n_embd=hidden_size, n_layer=layers, n_head=heads,
        n_inner=2 * hidden_size, initializer_range=hidden_size**-0.5, tie_word_embeddings=False,
        activation_function="gelu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def device(name: str) -> torch.device:
    """Return the device of a name: auto (the GPU where there is one), cpu, cuda, cuda:1, ...

    Raises
    ------
    ValueError
        There is no such device here, or it holds no numbers.

    Examples
    --------
    >>> device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).cpu().to(name).device
    except Exception as error:  # the backends raise whatever they like
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device must be auto, cpu or a GPU of this machine, got {name!r} ({reason}).") from None


def is_large(model: "PreTrainedModel") -> bool:
    """Whether products, not the number of operations, take a model's time: from ten million parameters on.

    Examples
    --------
    >>> is_large(tiny(character_tokenizer("01")))
    False
    """
    return model.num_parameters() >= LARGE


def arithmetic(model: "PreTrainedModel", dtype: str = "auto") -> AbstractContextManager[Any]:
    """Return the context in which a model computes: float32, bfloat16, or auto.

    auto is bfloat16 on GPU, and on a processor that multiplies it faster (AMX, AVX512-BF16) if the model is large;
    float32 otherwise.

    Examples
    --------
    >>> with arithmetic(tiny(character_tokenizer("01")), "bfloat16"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    kind = model.device.type
    fast = kind == "cuda" or (kind == "cpu" and is_large(model) and _multiplies_bfloat16())
    return torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16" or (dtype == "auto" and fast))


@functools.cache
def _multiplies_bfloat16():
    units = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(units.get(name) for name in ("amx_bf16", "avx512_bf16"))


def load(name: str | Path, device: str | torch.device = "cpu", trust_remote_code: bool = False) -> tuple[Any, Any]:
    """Load a causal language model, in evaluation mode and float32, and its tokenizer, which pads on the left.

    On a GPU this process no longer uses cuDNN's attention: of prompts that are padded to 64 or 192 tokens its gradient
    is not a number, on H100 and H200 with PyTorch 2.11 (PyTorch issue 196678; seen here in training on word problems).

    Parameters
    ----------
    name : str or path
        In this order: ``"base"`` for the shipped model, a folder that `save` or Transformers wrote, a model that
        `pmdllm.models.fetch.fetch` has put into the cache, or a name on the Hugging Face hub.
    device : str or torch.device
        Where the model is put.
    trust_remote_code : bool
        Run the code that comes with a hub model; it can do anything.

    Raises
    ------
    ValueError
        There is no model in the folder or it is damaged, it is not fetched or made yet, or none of that name is on the
        hub or there is no way to reach it.

    Examples
    --------
    >>> model, tokenizer = load("base")
    >>> tokenizer.decode(tokenizer("7+3*9-9=").input_ids)
    '7+3*9-9='
    """
    source = BASE if name == "base" else Path(name)
    if not (source / "config.json").is_file():
        source = fetch.folder(name)
    if source is None and str(name) in fetch.MODELS:
        raise ValueError(f"model {str(name)!r} is not fetched yet: pmd-llm fetch {name}")
    if source is None and (preset := _warmups().get(str(name))):
        raise ValueError(f"model {str(name)!r} is not made yet: pmd-llm warmup --preset {preset}")
    if source is None and (Path(name).exists() or not HUB_NAME.fullmatch(str(name))):
        raise ValueError(
            "model must be 'base', a folder with a model, a fetched model (pmd-llm fetch lists them) or a name on the "
            f"hub, got {str(name)!r}."
        )
    source = source or name
    if torch.device(device).type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        with _without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
    except Exception as error:  # a damaged folder can make Transformers raise anything
        reason = " ".join(str(error).split())[:1000] or type(error).__name__
        raise ValueError(
            f"model {str(name)!r} could not be loaded ({reason}): give 'base', the folder of a saved model, a "
            "fetched model, or a hub model that is downloaded already or can be reached."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if is_large(model):
        _return_memory()
    return model.to(device), tokenizer


def _return_memory():
    """Have glibc give freed blocks from 1 MiB on back to the system, where they would fragment its heap."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").mallopt(-3, 2**20)  # M_MMAP_THRESHOLD


def save(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: str | Path) -> None:
    """Write a model (as safetensors) and its tokenizer so that `load` and Transformers can read them.

    All files are written elsewhere and then moved one by one, ``config.json`` last: a new folder that has it is whole.
    The folder is made if absent, and files of other names in it stay.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        with _without_progress_bars():
            tokenizer.save_pretrained(part)
            model.save_pretrained(part)
        for path in Path(part).glob("*.safetensors"):
            path.chmod(0o644)
        for path in sorted(Path(part).iterdir(), key=lambda path: path.name == "config.json"):
            path.replace(folder / path.name)


def _warmups():
    """Preset of the warm-up that puts a model into a folder, by folder."""
    return {preset_values(name, "warmup")["output"]: name for name in presets("warmup")}


@contextlib.contextmanager
def _without_progress_bars():
    """Keep Transformers from drawing bars for work of milliseconds; a download from the hub still shows its own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
