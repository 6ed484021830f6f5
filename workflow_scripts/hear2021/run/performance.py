"""What the jobs of a run took: time, memory and device, one row each."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hear_mn.whole import write_whole

PERFORMANCE_COLUMNS = [
    "rule",
    "model",
    "task",
    "parts",
    "seconds",
    "cpu_seconds",
    "peak_memory_mb",
    "threads",
    "device",
    "peak_gpu_memory_mb",
    "clips",
    "clips_per_second",
    "audio_seconds_per_second",
    "host",
    "slurm_job_id",
    "cuda_visible_devices",
]


def gather_performance(
    results: Path, models: Collection[str], tasks: Collection[str]
) -> list[dict[str, Any]]:
    """Return one row of `PERFORMANCE_COLUMNS` for each finished job that left its measures.

    Args:
        results: holds benchmarks/<rule>/**.jsonl as Snakemake writes them, performance/ beside the
            embedding jobs and scores/ with a provenance.
        models: the variants and checkpoints whose jobs are wanted.
        tasks: the tasks whose jobs are wanted.
    """
    rows = []
    for file in sorted(results.glob("benchmarks/*/**/*.jsonl")):
        measures = file.relative_to(results / "benchmarks").with_suffix(".json")
        rule, *names = measures.with_suffix("").parts
        lines = [line for line in file.read_text().splitlines() if line]
        if not lines:
            continue
        benchmark = json.loads(lines[-1])
        row: dict[str, Any] = dict.fromkeys(PERFORMANCE_COLUMNS, "") | {
            "rule": rule,
            "seconds": benchmark["s"],
            "cpu_seconds": _number(benchmark.get("cpu_time")),
            "peak_memory_mb": _number(benchmark.get("max_rss")),
        }
        measured: dict[str, Any] = {}
        if rule == "embed":
            row |= dict(zip(("model", "task", "parts"), names, strict=True))
            measured = _read(results / "performance" / measures)
        elif rule == "evaluate":  # on a GPU too
            row |= dict(zip(("model", "task"), names, strict=True))
            scored = _read(results / "scores" / measures.relative_to(rule))
            measured = scored.get("provenance", {})
        else:
            row["task"] = names[0]
        measured.pop("seconds", None)  # Snakemake's are of the whole job
        row |= {key: measured[key] for key in PERFORMANCE_COLUMNS if measured.get(key) is not None}
        if "peak_gpu_memory_bytes" in measured:
            row["peak_gpu_memory_mb"] = round(measured["peak_gpu_memory_bytes"] / 1e6, 1)
        if row["task"] in tasks and (not row["model"] or row["model"] in models):
            rows.append(row)
    return rows


def on_gpu(row: Mapping[str, Any]) -> bool:
    """Return whether a row of `gather_performance` held a GPU."""
    return row["device"] not in {"", "cpu"}


def write_performance(rows: Iterable[Mapping[str, Any]], table: Path) -> None:
    """Write the rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, PERFORMANCE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(table, text.getvalue().encode())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _number(value: Any) -> float | str:
    try:
        return float(value)
    except (TypeError, ValueError):
        return ""
