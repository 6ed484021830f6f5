"""Evaluation: the process of heareval's prediction runner against ours, on the same embeddings."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch

from hear_mn.checkpoints import checkpoint
from hear_mn.embedding import load_embedder
from hear_mn.variants import parse_variant
from tests.benchmarks.comparison import Comparison, as_table, in_turn
from tests.benchmarks.embedding import DisagreementError, quiet
from tests.benchmarks.inputs import (
    REPOSITORY,
    EmbeddedFiles,
    InputTask,
    MadeEmbeddings,
    on_disk,
)
from tests.benchmarks.stock_runner import STOCK_RUNNER, comparable
from workflow_scripts.hear2021.embedding.embed_task import embed_task
from workflow_scripts.hear2021.embedding.embedded_task import EmbeddedTask
from workflow_scripts.hear2021.evaluation.export import export
from workflow_scripts.hear2021.evaluation.protocol import evaluate
from workflow_scripts.hear2021.evaluation.results import test_score
from workflow_scripts.hear2021.tasks.task import Task

Device = Literal["cpu", "gpu"]

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
    device: Device = "cpu",
) -> Comparison:
    """Evaluate by both processes in turn, from their start to their end, and compare the scores.

    On a CPU, raises DisagreementError unless grid point, epochs and all scores are equal. On a GPU
    ours trains side by side, so that they are equal in distribution (`seeds_table`) only.
    """
    exported = folder / "export"
    export(files.embedded, exported)
    results: dict[str, Any] = {}

    def stock() -> None:
        (results["stock"],) = run_stock([exported], grid_points, threads, device)

    def ours() -> None:
        scores = folder / "scores.json"
        results["ours"] = run_ours(files, scores, grid_points, threads, device)

    seconds = in_turn(stock, ours, repetitions)
    if device == "gpu":
        stock_score, our_score = (test_score(results[side]) for side in ("stock", "ours"))
        return Comparison(name, *seconds, f"{stock_score:.3f} and {our_score:.3f}", target)
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


def products_bound(compared: Comparison, files: EmbeddedFiles, grid_points: int) -> str:
    """Say what matrix products take of our evaluation, and which ratio they leave at best.

    For equal digits they have to be the stock runner's. What torch's profiler finds of them in ours
    is a bound where they run at the machine's full rate, which part `limits` shows.
    """
    with torch.profiler.profile(acc_events=True) as profiler:
        evaluate(files.embedded, grid_points=grid_points)
    products = [
        call.self_cpu_time_total / 1e6
        for call in profiler.key_averages()
        if call.key in ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise")
    ]
    bound = statistics.median(compared.stock) / sum(products)
    return (
        f"{compared.name}: {sum(products):.1f} s of ours are matrix products, which equal digits "
        f"need: with nothing else, the ratio would be {bound:.2f}."
    )


def seeds_table(embedded: Any, device: str, grid_points: int, seeds: int = 5) -> str:
    """Return the test scores of seeds, predictors trained one after the other and side by side.

    The difference of the two means is to be within the spread between seeds.
    """
    scores = {}
    for side_by_side in (False, True):
        results = [
            evaluate(
                embedded,
                grid_points=grid_points,
                seed=42 + i,
                device=device,
                side_by_side=side_by_side,
            )
            for i in range(seeds)
        ]
        scores[side_by_side] = [test_score(result) for result in results]
    rows = [["", *(f"seed {42 + i}" for i in range(seeds)), "mean", "std"]]
    for side_by_side, values in scores.items():
        name = "side by side" if side_by_side else "one after the other"
        spread = [f"{statistics.fmean(values):.4f}", f"{statistics.stdev(values):.4f}"]
        rows.append([name, *(f"{value:.4f}" for value in values), *spread])
    difference = abs(statistics.fmean(scores[True]) - statistics.fmean(scores[False]))
    spread_in_turn = max(scores[False]) - min(scores[False])
    verdict = "within" if difference <= spread_in_turn else "NOT WITHIN"
    return (
        f"{as_table(rows)}\n\nThe means differ by {difference:.4f}, {verdict} the spread between "
        f"seeds of {spread_in_turn:.4f}."
    )


def run_stock(
    exports: Sequence[Path], grid_points: int, threads: int, device: Device = "cpu"
) -> list[dict[str, Any]]:
    """Run heareval's prediction runner on exported embeddings and return its results."""
    for exported in exports:
        for made in ("prediction-done.json", "test.predicted-scores.json"):
            (exported / made).unlink(missing_ok=True)
    arguments = ["-c", STOCK_RUNNER, *map(str, exports), "--grid-points", str(grid_points)]
    run_python(arguments, threads, exports[0].parent, device)
    return [json.loads((e / "test.predicted-scores.json").read_text()) for e in exports]


def run_ours(
    files: EmbeddedFiles, scores: Path, grid_points: int, threads: int, device: Device = "cpu"
) -> dict[str, Any]:
    """Run our evaluation job and return its result."""
    for kept in files.manifest.parent.glob(".*.scores"):  # of the repetition before
        kept.unlink()
    arguments = {
        "variant": files.variant,
        "task": files.task_json,
        "manifests": files.manifest,
        "grid-points": grid_points,
        "seeds": 1,
        "device": device,
        "threads": threads,
        "scores": scores,
        "log": scores.with_suffix(".log"),
    }
    options = [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
    run_python(["-m", "workflow_scripts.evaluate", *options], threads, device=device)
    return json.loads(scores.read_text())


def run_python(
    arguments: list[str], threads: int = 1, folder: Path = REPOSITORY, device: Device = "cpu"
) -> None:
    """Run a Python process to its end; raises RuntimeError with what it said if it fails."""
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # the stock runner wants determinism
    }
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
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
