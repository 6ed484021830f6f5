"""Scores that a finished evaluation keeps beside the embeddings until the run is over.

If a member of a SLURM job that evaluations share dies, Snakemake deletes what the others have
written and starts the whole job again; they then take their scores from here.
"""

import json
from pathlib import Path
from typing import Any

from hear_mn.whole import write_json_whole


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
