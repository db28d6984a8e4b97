"""Which tokenizer a run used: enough to write it down, to compare it and to spell its words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from samtok_data.words import MaskVocabulary
from tokenizer_model.config import TokenizerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerIdentity:
    """Which tokenizer it is. Small, can be pickled.

    Attributes:
        name: a short name to show; the file's stem where the tokenizer has none.
        address: where the weights came from; empty where they come from no file.
        sha256: hex digest of the weights file's bytes; of names, shapes and values where there is no file.
        config: the architecture.
        trained: whether the weights were ever trained.
        warning: a sentence to print each time the tokenizer is used; None: nothing to say.
    """

    name: str
    address: str
    sha256: str
    config: TokenizerConfig
    trained: bool
    warning: str | None = None

    @property
    def codebook_size(self) -> int:
        """Codes of each level."""
        return self.config.codebook_size

    @property
    def depth(self) -> int:
        """Codes of a mask."""
        return self.config.depth

    @property
    def vocabulary(self) -> MaskVocabulary:
        """How the codes are spelt."""
        return self.config.vocabulary

    @property
    def json(self) -> dict[str, Any]:
        """The identity as JSON values."""
        return {
            "name": self.name,
            "address": self.address,
            "sha256": self.sha256,
            "config": self.config.json,
            "trained": self.trained,
            "warning": self.warning,
            "codebook_size": self.codebook_size,
            "depth": self.depth,
        }

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What of it changes codes, as JSON values: the weights and the architecture, not where they lay."""
        return {"sha256": self.sha256, "config": self.config.json}


UNTRAINED = (
    "The weights of tokenizer '{name}' are not trained: its mask words name no masks. "
    "Use it to try a pipeline, never to make training data."
)


def untrained_warning(name: str) -> str:
    """The sentence that a tokenizer with untrained weights carries."""
    return UNTRAINED.format(name=name)
