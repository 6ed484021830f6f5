"""Variants: which checkpoint, and which of its features make up the embedding.

A variant is named `<checkpoint>_<part>[_<part>...]`, for example `mn40_as_ext_e1_l_all_se`.
This module imports no torch: the workflow reads names and sizes without loading it.
"""

from __future__ import annotations

import csv
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hear_mn.checkpoints import Checkpoint, checkpoint, checkpoints

PART_FEATURES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # in the order of the embedding vector, whatever the order in the name: the reference's
        "l": ("logits",),
        "e1": ("e1",),
        "mels": ("mels",),
        "clf": ("clf",),
        # The reference's block 16, pooled, equals e1 bit for bit.
        "block": ("block0", "block5", "block10", "e1"),
        "se": ("se12", "se13", "se14", "se15"),
        "all_se": ("se4", "se5", "se6", "se11", "se12", "se13", "se14", "se15"),
        # the only part of a model that is not ours
        "embedding": ("embedding",),
    }
)
MODULE_PART = "embedding"


class UnknownVariant(ValueError):  # noqa: N818
    """A name that is no variant; the message lists what exists."""


@dataclass(frozen=True)
class Variant:
    """A checkpoint and the parts of its features, in the order in which the name has them."""

    name: str
    checkpoint: str
    parts: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The features in the order of the vector; `e1` comes twice where `block` repeats it."""
        return tuple(
            feature
            for part, features in PART_FEATURES.items()
            if part in self.parts
            for feature in features
        )

    @property
    def size(self) -> int:
        """The number of values of the embedding.

        Raises ValueError for a module that is not ours, whose size only the loaded model knows.
        """
        row = checkpoint(self.checkpoint)
        if row.module:
            raise ValueError(f"{self.name}: only the loaded module {row.module} knows its size")
        return sum(row.feature_sizes[feature] for feature in self.features)


@functools.cache
def named_variants() -> Mapping[str, str]:
    """Return the variants of variants.csv: name to alias (the reference's module name)."""
    with (Path(__file__).parent / "variants.csv").open(newline="", encoding="utf-8-sig") as file:
        return MappingProxyType({row["variant"]: row["alias"] for row in csv.DictReader(file)})


def parse_variant(name: str) -> Variant:
    """Return the variant of this name or alias.

    The checkpoint is the longest one that the name begins with, so `mn10_as_mels_256_e1` is
    checkpoint `mn10_as_mels_256`, not part `mels` of `mn10_as`. Raises UnknownVariant.
    """
    aliases = {alias: variant for variant, alias in named_variants().items() if alias}
    full_name = aliases.get(name, name)
    known = checkpoints()
    found = max(
        (key for key in known if f"{full_name}_".startswith(f"{key}_")), key=len, default=None
    )
    if found is None:
        raise UnknownVariant(_message(name, "begins with no checkpoint"))
    rest = full_name[len(found) + 1 :]
    if known[found].module:
        if rest:
            raise UnknownVariant(_message(name, f"{found} is a module, which has no parts"))
        return Variant(full_name, found, (MODULE_PART,))
    if "-" in rest:
        raise UnknownVariant(_message(name, "has a '-' in its parts"))
    parts = tuple(rest.replace("all_se", "all-se").split("_")) if rest else ()
    parts = tuple(part.replace("-", "_") for part in parts)
    problem = _problem(known[found], parts)
    if problem:
        raise UnknownVariant(_message(name, problem))
    return Variant(full_name, found, parts)


def _problem(row: Checkpoint, parts: tuple[str, ...]) -> str | None:
    if not parts:
        return f"names no part after the checkpoint {row.checkpoint}"
    for part in parts:
        if part not in PART_FEATURES or part == MODULE_PART:
            return f"has {part!r} after the checkpoint {row.checkpoint}, which is no part"
        if missing := set(PART_FEATURES[part]) - set(row.feature_sizes):
            return f"asks {row.checkpoint}, whose head is {row.head}, for {', '.join(missing)}"
    if len(set(parts)) < len(parts):
        return "names a part twice"
    if {"se", "all_se"} <= set(parts):
        return "has se and all_se, which contains it"
    return None


def _message(name: str, problem: str) -> str:
    parts = [part for part in PART_FEATURES if part != MODULE_PART]
    ours = [key for key, row in checkpoints().items() if row.module is None]
    modules = [key for key, row in checkpoints().items() if row.module]
    names = [word for pair in named_variants().items() for word in pair if word]
    near = difflib.get_close_matches(name, [*names, *modules], n=3)
    return (
        f"variant {name!r} {problem}."
        + (f" Did you mean {' or '.join(near)}?" if near else "")
        + " A variant is <checkpoint>_<part>[_<part>...]."
        + f"\nParts: {' '.join(parts)}"
        + f"\nCheckpoints: {' '.join(ours)}"
        + f"\nModules, which are variants by themselves: {' '.join(modules)}"
    )
