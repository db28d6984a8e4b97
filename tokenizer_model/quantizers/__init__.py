"""Quantisers by configuration, with one interface: vectors to codes and back, and the steps of their training.

build_quantizer     the one that a configuration asks for
Quantizer           what each of them does
"""

from tokenizer_model.quantizers.base import CodebookUse, Quantized, Quantizer
from tokenizer_model.quantizers.residual import Codebook, ResidualQuantizer

__all__ = ["Codebook", "CodebookUse", "Quantized", "Quantizer", "ResidualQuantizer"]
