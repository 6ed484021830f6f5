"""Short evaluations go to SLURM several to a job, and what one has finished is not lost with it.

A pack is a Snakemake group: the evaluations of one checkpoint's variants on one task, one after the
other. If a member dies, Snakemake deletes what the others of its job have written and starts the
whole job again; so each finished result is also kept beside the embeddings until the run is over.
"""

import json
from pathlib import Path
from typing import Any

from hear_mn.variants import parse_variant
from hear_mn.whole import write_json_whole
from workflow_scripts.hear2021.run.configuration import TaskRow

# Evaluations of tasks with fewer clips take seconds, as long as a job's start or less. Clips of
# event tasks count by their length.
SHORT_CLIPS = 600
CLIP_SECONDS = 10.0


def is_short(task: TaskRow) -> bool:
    """Return whether evaluating a variant on this task takes about as long as a job's start."""
    if task.clips is None:
        return False
    length = (task.sample_duration or 0) / CLIP_SECONDS if task.embedding_type == "event" else 1
    return task.clips * max(1, length) < SHORT_CLIPS


def pack_of(variant: str, task: TaskRow) -> str | None:
    """Return the pack of an evaluation, or None if it is long enough to be a job of its own."""
    if not is_short(task):
        return None
    return f"evaluate_{parse_variant(variant).checkpoint}_{task.task}"


def kept_scores(
    variant: str, manifests: list[Path], request: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the scores that an earlier attempt of the same request kept, if there are any.

    Args:
        variant: the variant.
        manifests: the manifests of its embeddings.
        request: everything that the scores depend on.
    """
    kept = _kept(variant, manifests)
    if not kept.exists():
        return None
    content = json.loads(kept.read_text())
    # Through JSON, as the kept request went.
    return content["scores"] if content["request"] == json.loads(json.dumps(request)) else None


def keep_scores(
    variant: str, manifests: list[Path], request: dict[str, Any], scores: dict[str, Any]
) -> None:
    """Keep the scores until the run is over."""
    write_json_whole(_kept(variant, manifests), {"request": request, "scores": scores})


def forget_scores_of(manifest: Path) -> None:
    """Delete what was kept of scores of embeddings beside `manifest`, which are made anew."""
    for kept in manifest.parent.glob(".*.scores"):
        kept.unlink()


def forget_kept_scores(scratch: Path, results: Path) -> None:
    """Delete what was kept of pairs that are finished.

    Args:
        scratch: the folder with embeddings/<checkpoint>/<task>/.
        results: the folder with scores/<variant>/<task>.json.
    """
    for kept in scratch.glob("embeddings/*/*/.*.scores"):
        task, variant = kept.parent.name, kept.name.removeprefix(".").removesuffix(".scores")
        if (results / "scores" / variant / f"{task}.json").exists():
            kept.unlink()


def _kept(variant: str, manifests: list[Path]) -> Path:
    return manifests[0].with_name(f".{variant}.scores")
