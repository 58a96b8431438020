"""Configurations, preset files and command lines: what comes out is valid, or one line says what is wrong."""

import argparse
import contextlib
import io
import math
import tempfile
import warnings
from dataclasses import fields
from pathlib import Path

import yaml
from pmdllm.config import Config, from_preset, parse
from pmdllm.losses import ALGORITHMS
from pmdllm.validation.declared import ValidateConfig
from pmdllm.warmup import WarmupConfig

CLASSES = {"train": Config, "warmup": WarmupConfig, "validate": ValidateConfig}
NUMBERS = (0, 1, -1, 2, 3, 7, 16, 1000, 10**6, 10**6 + 1, 10**12, 2**31, 2**32, 2**63, 2**70, 10**400)
REALS = (0.0, -0.0, 0.1, 0.5, 1.0, 2.0, 1e-6, 1e-300, 5e-324, 1e10, 1e300, -1e-3, math.inf, -math.inf, math.nan)
WORDS = (
    *("", " ", "auto", "none", "base", "arithmetic", "cpu", "true", "no", "1e-3", "nan", "-inf", "0x10", "1_000"),
    *("1:30", "0-2", "a\0b", "a\nb", "\udc80", "ü", "../x", "/", "~", "x" * 5000, "9" * 5000, "%s", "{}", "--", "-1"),
)
PIECES = (
    *("tau", "seed: 3", "tau: 1", ":", "- ", "[", "]", "{", "}", "\n", "  ", "'", '"', "&a ", "*a", "!!int ", "|", "#"),
    *("\t", "null", "2020-01-01", "? ", "1: ", "learning_rate: 5e-4", "\ufeff", "%YAML 9.9", "---", "\x07"),
)


def check(rng):
    """Draw one configuration, one preset's text or one command line, and hold it to the promise.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws everything.

    Raises
    ------
    AssertionError
        Something else came out than a valid configuration or a ``ValueError`` of one line.
    """
    kind = str(rng.choice(list(CLASSES)))
    cls = CLASSES[kind]
    _promise(*(_values, _text, _line)[rng.integers(3)](cls, kind, rng))


def _promise(shown, make):
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            config = make()
    except ValueError as error:
        assert str(error).strip(), f"an empty message for {shown}"
        assert "\n" not in str(error), f"more than a line for {shown}: {error}"
    except SystemExit as end:
        assert end.code == 0 and printed.getvalue().startswith("usage:"), f"exit code {end.code} for {shown}"
    except (Exception, argparse.ArgumentError) as error:
        raise AssertionError(f"{type(error).__name__} for {shown}: {error}") from error
    else:
        for declared in fields(config):
            value = getattr(config, declared.name)
            assert value is None or type(value) in (bool, int, float, str), f"{declared.name} is {value!r} for {shown}"
            assert not isinstance(value, float) or math.isfinite(value), f"{declared.name} is {value!r} for {shown}"
        if isinstance(config, Config):
            assert config.output, f"no output for {shown}"
            again = {declared.name: getattr(config, declared.name) for declared in fields(config)}
            assert yaml.safe_load(config.to_yaml()) == again, f"other YAML for {shown}"


def _value(declared, rng):
    """A value of an option: often one of its own kind, sometimes anything."""
    if declared.name == "algorithm" and rng.random() < 0.8:
        return str(rng.choice([*ALGORITHMS, "pmd:mean", "pmd:"]))
    if declared.metadata["choices"] and rng.random() < 0.7:
        return str(rng.choice(declared.metadata["choices"]))
    pool = [NUMBERS, REALS, WORDS, (None, True, False, [], {}, [1], b"x")][rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])]
    return pool[rng.integers(len(pool))]


def _changes(cls, rng):
    names = rng.choice(fields(cls), size=rng.integers(1, 5), replace=False)
    return {declared.name: _value(declared, rng) for declared in names}


def _values(cls, kind, rng):
    changes = _changes(cls, rng)
    return f"{cls.__name__}({changes!r:.500})", lambda: cls(**changes)


def _text(cls, kind, rng):
    if rng.random() < 0.5:
        text = yaml.safe_dump({**_changes(cls, rng), **({3: 1} if rng.random() < 0.1 else {})}, allow_unicode=True)
        text = text.encode(errors="surrogatepass")
    else:
        text = "".join(rng.choice(PIECES, size=rng.integers(1, 12))).encode()
    if rng.random() < 0.3:
        text = bytearray(text)
        text[rng.integers(len(text))] = rng.integers(256)

    def make():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "preset.yaml"
            path.write_bytes(text)
            return from_preset(cls, str(path), kind=kind)

    return f"the {kind} preset {bytes(text)!r:.500}", make


def _line(cls, kind, rng):
    words = []
    for name, value in _changes(cls, rng).items():
        spelled = name.replace("_", "-") if rng.random() < 0.3 else name
        words += [f"--{spelled}={value}"] if rng.random() < 0.5 else [f"--{spelled}", str(value)]
    if rng.random() < 0.2:
        words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(WORDS)))
    if rng.random() < 0.2:
        words += ["--preset", str(rng.choice(["tiny-cpu", "pretrained", "nonsense", "/", "x.yaml", ""]))]
    return f"pmd-llm {kind} {words!r:.500}", lambda: parse(cls, words, kind=kind)
