"""What a run will cost before it starts: download, disk and hours, from the tables alone."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace

from hear_mn.checkpoints import checkpoint
from hear_mn.variants import Variant
from workflow_scripts.hear2021.embedding.planning import embedding_files, features_of
from workflow_scripts.hear2021.run import resources
from workflow_scripts.hear2021.run.configuration import TaskRow
from workflow_scripts.hear2021.run.groups import trains_on_gpu

PUBLISHED_RATE = 48_000
BYTES_PER_SAMPLE = 2
BYTES_PER_VALUE = 4
COMPRESSION = 0.85  # of 16 bit audio by gzip


@dataclass(frozen=True)
class Estimate:
    """What a task or a checkpoint adds to a run; bytes and hours."""

    name: str
    download: float = 0.0
    audio: float = 0.0
    embeddings: float = 0.0
    embedding_gpu_hours: float = 0.0
    evaluation_gpu_hours: float = 0.0
    evaluation_core_hours: float = 0.0


def assumed(tasks: Iterable[TaskRow]) -> str:
    """Return a line on the tasks of which the table does not say how large they are, or nothing."""
    names = [row.task for row in tasks if None in (row.clips, row.hours)]
    if not names:
        return ""
    return (
        f"Assumed to have {resources.UNKNOWN_CLIPS} clips and {resources.UNKNOWN_HOURS:g} hours, "
        f"since config/tasks.csv does not say (clips, hours): {', '.join(names)}\n"
    )


def estimate_run(
    variants: Sequence[Variant],
    tasks: Iterable[TaskRow],
    *,
    grid_points: int,
    seeds: int,
    evaluation_device: str,
    local_tasks: Iterable[str] = (),
    local_weights: Iterable[str] = (),
) -> list[Estimate]:
    """Estimate a run from nothing: a row a checkpoint, a row a task.

    Where a size is not in the tables it follows from the hours of audio: 16 bit samples at 48 kHz,
    compressed to 85 %.

    Args:
        variants: the variants of the run.
        tasks: its tasks.
        grid_points: its grid points.
        seeds: its seeds.
        evaluation_device: where it evaluates tasks that are not short, "cpu" or "gpu".
        local_tasks: tasks whose archive is on this machine.
        local_weights: checkpoints whose weights are.
    """
    names = sorted({variant.checkpoint for variant in variants})
    estimates = [Estimate(name, download=_weights_size(name, local_weights)) for name in names]
    for row in tasks:
        multiply_adds = sum(
            resources.evaluation_multiply_adds(variant.name, row, grid_points, seeds)
            for variant in variants
        )
        estimate = _until_embedded(row, variants, names, row.task in set(local_tasks))
        if trains_on_gpu(row, evaluation_device):
            hours = multiply_adds / resources.GPU_EVALUATION_MULTIPLY_ADDS_PER_SECOND / 3600
            estimates.append(replace(estimate, evaluation_gpu_hours=hours))
        else:
            hours = multiply_adds / resources.EVALUATION_MULTIPLY_ADDS_PER_SECOND / 3600
            estimates.append(replace(estimate, evaluation_core_hours=hours))
    return estimates


def _weights_size(name: str, local: Iterable[str]) -> float:
    row = checkpoint(name)
    if row.source != "url" or name in set(local):
        return 0.0
    return row.size or (row.parameters or 0) * BYTES_PER_VALUE


def _until_embedded(
    row: TaskRow, variants: Sequence[Variant], checkpoints: Sequence[str], local: bool
) -> Estimate:
    seconds = (row.hours or resources.UNKNOWN_HOURS) * 3600
    archive = row.size or seconds * PUBLISHED_RATE * BYTES_PER_SAMPLE * COMPRESSION
    rates = {checkpoint(name).sample_rate for name in checkpoints}
    return Estimate(
        row.task,
        download=archive if row.url and not local else 0.0,
        audio=sum(seconds * rate * BYTES_PER_SAMPLE for rate in rates),
        embeddings=sum(
            _values(name, variants) * resources.embedding_rows(row) * BYTES_PER_VALUE
            for name in checkpoints
        ),
        embedding_gpu_hours=sum(resources.embed_seconds(row, name) for name in checkpoints) / 3600,
    )


def _values(name: str, variants: Sequence[Variant]) -> int:
    """Return how many values a clip's row has: those of every part that the variants want."""
    row = checkpoint(name)
    if row.module:
        return resources.UNKNOWN_SIZE
    variant = next(variant for variant in variants if variant.checkpoint == name)
    (parts,) = embedding_files(variant, variants, [])
    return sum(row.feature_sizes[feature] for feature in features_of(parts))


def as_text(estimates: Sequence[Estimate]) -> str:
    """Return the estimates as a table with their sum; sizes in GB of 10^9 bytes."""
    sums = (sum(column) for column in list(zip(*map(astuple, estimates), strict=True))[1:])
    total = Estimate("in all", *sums)
    heads = [("download", "audio", "embeddings", "embedding", "evaluation", "evaluation")]
    heads += [("GB", "GB", "GB", "GPU h", "GPU h", "core h")]
    lines = [" " * 36 + "".join(f"{head:>12}" for head in row) for row in heads]
    for row in [*estimates, total]:
        _, download, audio, embeddings, *hours = astuple(row)
        numbers = [*(size / 1e9 for size in (download, audio, embeddings)), *hours]
        lines.append(f"{row.name:36}" + "".join(f"{number:12.2f}" for number in numbers))
    disk = total.download + total.audio + total.embeddings
    lines += [
        "",
        f"Disk in all: {disk / 1e9:.1f} GB. Archives can be deleted once prepared, audio once",
        "embedded, embeddings once evaluated; scores and figures take a few MB. To add a variant",
        "to a checkpoint without embeddings, all its variants are embedded and evaluated again.",
        "Hours are upper bounds, whichever the machine, by multiply-adds a second (T = 1e12):",
        f"{resources.GPU_MULTIPLY_ADDS_PER_SECOND / 1e12:g} T, and {resources.CLIPS_PER_SECOND} "
        "clips a second, to embed; to evaluate, "
        f"{resources.GPU_EVALUATION_MULTIPLY_ADDS_PER_SECOND / 1e12:g} T on a GPU and "
        f"{resources.EVALUATION_MULTIPLY_ADDS_PER_SECOND / 1e12:g} T",
        f"on a core, with {resources.EPOCHS} epochs a training.",
    ]
    return "\n".join(lines) + "\n"
