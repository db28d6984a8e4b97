"""The run fingerprint: everything that changes a byte of the output. Same fingerprint, same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from samtok_data.errors import SetupError

_ABSENT = "nothing"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Settings and content hashes of a run.

    Attributes:
        parts: nested mappings of JSON values; the names are the ones that a user knows.
    """

    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 (hex) of the parts in canonical JSON."""
        text = json.dumps(self.parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differences(self, earlier: Fingerprint) -> list[str]:
        """What changed since an earlier run, one short sentence each, by name."""
        before, now = dict(_flat(earlier.parts)), dict(_flat(self.parts))
        changed = (name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))
        return [f"{name} was {_short(before.get(name))}, is {_short(now.get(name))}" for name in changed]

    def require_same(self, earlier: Fingerprint, where: str) -> None:
        """Refuses to continue a run that was started under other settings.

        Raises:
            SetupError: names everything that differs and the two ways out.
        """
        if self.digest != earlier.digest:
            changes = "; ".join(self.differences(earlier))
            raise SetupError(
                f"{where} holds a run with other settings: {changes}. "
                "Give the earlier settings to resume it, choose another --out, or --overwrite to delete it"
            )


def _flat(parts: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(parts, Mapping) and (parts or not prefix):
        for name, value in parts.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, json.dumps(parts, ensure_ascii=False, sort_keys=True)


def _short(text: str | None) -> str:
    if text is None:
        return _ABSENT
    return text if len(text) <= 80 else text[:77] + "..."
