"""Which embedding files a variant needs: those on disk are kept, the rest comes in one pass.

An embedding file holds whole parts of one checkpoint on one task and is named after them, `e1-l`.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from hear_mn.variants import PART_FEATURES, Variant


def features_of(parts: str) -> tuple[str, ...]:
    """Return the features that the embedding file `parts`, say `e1-l`, holds, in its column order.

    Raises:
        ValueError: if a part is unknown or the parts are not in their order.
    """
    names = parts.split("-")
    if names != _ordered(names):
        raise ValueError(
            f"{parts!r} does not name an embedding file: parts of {', '.join(PART_FEATURES)}, "
            f"in this order, joined by '-'"
        )
    return tuple(dict.fromkeys(feature for part in names for feature in PART_FEATURES[part]))


def existing_files(folder: Path) -> list[str]:
    """Return the parts of the embedding files in a folder, in the order in which they were made.

    By what each manifest says was there before it, which no copy and no touch changes.
    """
    made_after = _made_after(folder)
    return sorted(made_after, key=lambda parts: (len(made_after[parts]), parts))


def files_before(parts: str, folder: Path) -> list[str]:
    """Return what the manifest of `parts` is to say was there before it.

    One that is made again keeps its place: the others that name it are still those after it.
    """
    made_after = _made_after(folder)
    return [other for other in existing_files(folder) if parts not in {other, *made_after[other]}]


def _made_after(folder: Path) -> dict[str, list[str]]:
    return {
        path.stem: json.loads(path.read_text()).get("made_after", [])
        for path in folder.glob("[!.]*.json")
    }


def embedding_files(
    variant: Variant, requested: Iterable[Variant], existing: Sequence[str]
) -> list[str]:
    """Return the embedding files, by their parts, that together hold the features of `variant`.

    Args:
        variant: the variant to evaluate.
        requested: the variants of the run. If `variant` is one of them, what is missing for all
            those of its checkpoint is embedded together, so that the backbone runs once.
        existing: `existing_files` of this checkpoint and task. They are used in this order, so that
            a request that grows or shrinks repeats no finished pass, and a newer file never takes
            the place of one that a score was made from.

    Returns:
        Names of files, existing ones first, at most one of them new.
    """
    needed = set(variant.features)
    chosen = []
    for parts in existing:
        if needed & {*features_of(parts)}:
            chosen.append(parts)
            needed -= {*features_of(parts)}
    if needed:
        chosen.append(_missing_parts(variant, requested, existing))
    return chosen


def _missing_parts(variant: Variant, requested: Iterable[Variant], existing: Sequence[str]) -> str:
    siblings = {other for other in requested if other.checkpoint == variant.checkpoint}
    wanted = siblings if variant in siblings else {variant}
    stored = {feature for name in existing for feature in features_of(name)}
    parts = {
        part
        for other in wanted
        for part in other.parts
        if not stored.issuperset(PART_FEATURES[part])
    }
    for part in sorted(parts):  # `se` is a subset of `all_se`
        larger = parts - {part}
        if any(set(PART_FEATURES[part]) <= set(PART_FEATURES[other]) for other in larger):
            parts.discard(part)
    return "-".join(_ordered(parts))


def _ordered(parts: Iterable[str]) -> list[str]:
    unique = set(parts)
    return [part for part in PART_FEATURES if part in unique]
