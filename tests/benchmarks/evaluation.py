"""Evaluation: the process of heareval's prediction runner against ours, on the same embeddings."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hear_mn.checkpoints import checkpoint
from hear_mn.embedding import load_embedder
from hear_mn.variants import parse_variant
from tests.benchmarks.comparison import Comparison, in_turn
from tests.benchmarks.embedding import DisagreementError, quiet
from tests.benchmarks.inputs import (
    REPOSITORY,
    EmbeddedFiles,
    InputTask,
    MadeEmbeddings,
    on_disk,
)
from tests.benchmarks.stock_runner import STOCK_RUNNER
from workflow_scripts.hear2021.embeddings import EmbeddedTask, embed_task
from workflow_scripts.hear2021.export import export
from workflow_scripts.hear2021.tables import test_score
from workflow_scripts.hear2021.tasks import Task

VARIANT = "mn04_as_e1_l"
SIZE = parse_variant(VARIANT).size  # 911


def embedded_files(given: InputTask, folder: Path, weights: Path) -> EmbeddedFiles:
    """Embed a task as an embedding job does."""
    variant = parse_variant(VARIANT)
    manifest = folder / "embeddings.json"
    embedder = load_embedder(variant.checkpoint, weights, variant.features, "cpu")
    identity = {"task_sha256": given.task.sha256}
    with quiet():
        embed_task(given.task, embedder, manifest.with_suffix(".npy"), manifest, identity)
    embedded = EmbeddedTask(given.task, [manifest], variant.features)
    return EmbeddedFiles(given.prepared / "task.json", manifest, VARIANT, embedded)


def made_files(made: MadeEmbeddings, folder: Path) -> EmbeddedFiles:
    """Write made embeddings of 911 values as if `VARIANT` had given them."""
    features = parse_variant(VARIANT).features
    sizes = checkpoint(parse_variant(VARIANT).checkpoint).feature_sizes
    return on_disk(made, folder, VARIANT, {name: sizes[name] for name in features})


def with_parameters(files: EmbeddedFiles, folder: Path, **parameters: Any) -> EmbeddedFiles:
    """Return the same embeddings with other values in heareval's grid, say `max_epochs=[30]`."""
    task = files.embedded.task
    shutil.copytree(files.task_json.parent, folder)
    described = json.loads((folder / "task.json").read_text())
    described["metadata"] |= {"evaluation_params": {"task_specific_param_grid": parameters}}
    (folder / "task.json").write_text(json.dumps(described))
    changed = Task.load(folder)
    assert changed.sha256 == task.sha256  # which the embeddings were made from
    features = parse_variant(files.variant).features
    embedded = EmbeddedTask(changed, [files.manifest], features)
    return EmbeddedFiles(folder / "task.json", files.manifest, files.variant, embedded)


def compare(
    name: str,
    files: EmbeddedFiles,
    folder: Path,
    *,
    grid_points: int,
    threads: int,
    repetitions: int,
    target: float | None = None,
) -> Comparison:
    """Evaluate by both processes in turn, from their start to their end, and compare the scores.

    Raises DisagreementError unless grid point, epochs and all scores are equal.
    """
    exported = folder / "export"
    export(files.embedded, exported)
    results: dict[str, Any] = {}

    def stock() -> None:
        (results["stock"],) = run_stock([exported], grid_points, threads)

    def ours() -> None:
        results["ours"] = run_ours(files, folder / "scores.json", grid_points, threads)

    seconds = in_turn(stock, ours, repetitions)
    if comparable(results["stock"]) != comparable(results["ours"]):
        raise DisagreementError(f"{name}: the scores differ: {results}")
    return Comparison(name, *seconds, "scores, epochs and grid point equal", target)


def compare_throughput(
    name: str,
    pairs: Sequence[EmbeddedFiles],
    folder: Path,
    *,
    grid_points: int,
    cores: int,
    repetitions: int,
    target: float | None = None,
) -> Comparison:
    """Evaluate many pairs: one stock process with all threads, ours with one thread a core."""
    exports = [folder / f"export{i}" for i in range(len(pairs))]
    for files, exported in zip(pairs, exports, strict=True):
        export(files.embedded, exported)
    results: dict[str, list[Any]] = {}

    def stock() -> None:
        results["stock"] = run_stock(exports, grid_points, cores)

    def ours() -> None:
        def run(numbered: tuple[int, EmbeddedFiles]) -> Any:
            number, files = numbered
            return run_ours(files, folder / f"scores{number}.json", grid_points, threads=1)

        with ThreadPoolExecutor(cores) as pool:
            results["ours"] = list(pool.map(run, enumerate(pairs)))

    seconds = in_turn(stock, ours, repetitions)
    difference = max(
        abs(test_score(a) - test_score(b))
        for a, b in zip(results["stock"], results["ours"], strict=True)
    )
    equality = f"test scores within {difference:.3f} (1 thread and {cores})"
    return Comparison(name, *seconds, equality, target)


def run_stock(exports: Sequence[Path], grid_points: int, threads: int) -> list[dict[str, Any]]:
    """Run heareval's prediction runner on exported embeddings and return its results."""
    for exported in exports:
        for made in ("prediction-done.json", "test.predicted-scores.json"):
            (exported / made).unlink(missing_ok=True)
    arguments = ["-c", STOCK_RUNNER, *map(str, exports), "--grid-points", str(grid_points)]
    run_python(arguments, threads, exports[0].parent)
    return [json.loads((e / "test.predicted-scores.json").read_text()) for e in exports]


def run_ours(files: EmbeddedFiles, scores: Path, grid_points: int, threads: int) -> dict[str, Any]:
    """Run our evaluation job and return its result."""
    for kept in files.manifest.parent.glob(".*.scores"):  # of the repetition before
        kept.unlink()
    arguments = {
        "variant": files.variant,
        "task": files.task_json,
        "manifests": files.manifest,
        "grid-points": grid_points,
        "seeds": 1,
        "device": "cpu",
        "threads": threads,
        "scores": scores,
        "log": scores.with_suffix(".log"),
    }
    options = [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
    run_python(["-m", "workflow_scripts.evaluate", *options], threads)
    return json.loads(scores.read_text())


def run_python(arguments: list[str], threads: int = 1, folder: Path = REPOSITORY) -> None:
    """Run a Python process to its end; raises RuntimeError with what it said if it fails."""
    environment = {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(threads),
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    }
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(f"{' '.join(arguments[:2])} failed:\n{run.stderr[-3000:]}")


def comparable(results: Any) -> Any:
    """Return results without what tells one run from another: times, paths, addresses."""
    if isinstance(results, dict):
        return {
            key: comparable(value)
            for key, value in results.items()
            if key not in ("embedding_path", "provenance") and "time_in_min" not in key
        }
    if isinstance(results, float) and math.isnan(results):
        return "NaN"
    return results.split(" at 0x")[0] if isinstance(results, str) else results
