"""Masks to codes and back: SAMTok's mask tokenizer on the modules of sam2, its weights and their files.

identify_tokenizer   which tokenizer a name or address means
open_tokenizer       the tokenizer, ready to encode and decode
save_tokenizer       writes one as a file that open_tokenizer reads
save_published       writes one in the published layout
load_sam2_weights    fills what SAM 2.1 has, where training starts
Prepared             an image and its masks on their way to the network

torch is imported with the first name that needs it: processes that only prepare images do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tokenizer_model.config import SAMTOK_256X2, SMALL, Hiera, TokenizerConfig
from tokenizer_model.identity import TokenizerIdentity
from tokenizer_model.inputs import Prepared

if TYPE_CHECKING:
    from tokenizer_model.loading import (
        EMBEDDED,
        NAMES,
        PUBLISHED,
        identify_tokenizer,
        load_sam2_weights,
        open_tokenizer,
        save_published,
        save_tokenizer,
    )
    from tokenizer_model.tokenizer import LOGIT_THRESHOLD, MaskTokenizer

__all__ = [
    "EMBEDDED",
    "LOGIT_THRESHOLD",
    "NAMES",
    "PUBLISHED",
    "SAMTOK_256X2",
    "SMALL",
    "Hiera",
    "MaskTokenizer",
    "Prepared",
    "TokenizerConfig",
    "TokenizerIdentity",
    "identify_tokenizer",
    "load_sam2_weights",
    "open_tokenizer",
    "save_published",
    "save_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "tokenizer" if name in ("LOGIT_THRESHOLD", "MaskTokenizer") else "loading"
    return getattr(importlib.import_module(f"tokenizer_model.{module}"), name)
