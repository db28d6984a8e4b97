"""Quantisers by configuration, with one interface: vectors to codes and back, and the steps of their training.

build_quantizer         the one that a configuration asks for
Quantizer               what each of them does
ResidualQuantizer       residual and plain vector quantisation
FiniteScalarQuantizer   finite scalar quantisation
"""

from tokenizer_model.config import TokenizerConfig
from tokenizer_model.quantizers.base import CodebookUse, Quantized, Quantizer
from tokenizer_model.quantizers.fsq import FiniteScalarQuantizer
from tokenizer_model.quantizers.residual import Codebook, ResidualQuantizer

__all__ = [
    "Codebook",
    "CodebookUse",
    "FiniteScalarQuantizer",
    "Quantized",
    "Quantizer",
    "ResidualQuantizer",
    "build_quantizer",
]


def build_quantizer(config: TokenizerConfig) -> Quantizer:
    """The quantiser that a configuration asks for, with torch's initial weights.

    Args:
        config: of it ``quantizer``, ``codebook_size``, ``depth``, ``hidden_size``, ``shared`` and ``fsq_levels``.

    Raises:
        SetupError: it asks for ``fsq``, and vector-quantize-pytorch is not installed.
    """
    if config.quantizer == "fsq":
        return FiniteScalarQuantizer(config.fsq_levels, config.hidden_size)
    return ResidualQuantizer(config.codebook_size, config.depth, config.hidden_size, shared=config.shared)
