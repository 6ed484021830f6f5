"""The checked configuration, and the functions by which rules find their input and resources."""

import re
from pathlib import Path

# The process of every job reads this again: nothing here imports torch, pandas or matplotlib.
from hear_mn.checkpoints import checkpoint, checkpoints
from hear_mn.variants import parse_variant
from workflow_scripts.hear2021.embedding.planning import embedding_files, existing_files
from workflow_scripts.hear2021.report.figure_table import figure_table
from workflow_scripts.hear2021.report.reports import reports
from workflow_scripts.hear2021.run import resources, versions
from workflow_scripts.hear2021.run.config_tables import CONFIG, ConfigurationError
from workflow_scripts.hear2021.run.configuration import read_run, task_table
from workflow_scripts.hear2021.run.fingerprints import fingerprint, module_fingerprint
from workflow_scripts.hear2021.run.groups import group_of, members_at_most, trains_on_gpu
from workflow_scripts.hear2021.run.interpreter import prefer_this_python
from workflow_scripts.hear2021.run.site import read_site

prefer_this_python()

try:
    RUN = read_run(config)
    SITE = read_site(config.get("site", {}))
    REPORTS = reports(RUN)
except ConfigurationError as error:
    raise WorkflowError(str(error))

SITE.set_caches()

SCRATCH = Path(workflow.pathvars.apply("<scratch>"))


def embedding_manifests(wildcards):
    """The embedding files that together hold what a variant is made of."""
    variant = parse_variant(wildcards.variant)
    folder = SCRATCH / "embeddings" / variant.checkpoint / wildcards.task
    existing = existing_files(folder)
    return [
        f"<scratch>/embeddings/{variant.checkpoint}/{wildcards.task}/{parts}.json"
        for parts in embedding_files(variant, RUN.variants, existing)
    ]


def embedding_matrices(wildcards):
    """The matrices beside `embedding_manifests`."""
    return [path.removesuffix("json") + "npy" for path in embedding_manifests(wildcards)]


def prepared_task(file):
    """An input function: `file` of a task at the sample rate that a checkpoint wants."""

    def path(wildcards):
        name = getattr(wildcards, "checkpoint", None) or parse_variant(wildcards.variant).checkpoint
        return f"<scratch>/tasks/{wildcards.task}/{checkpoint(name).sample_rate}/{file}"

    return path


def requested_checkpoints():
    """The checkpoints of the run's variants."""
    return sorted({variant.checkpoint for variant in RUN.variants})


def checkpoint_source(wildcards):
    """Where a checkpoint's weights come from: its row of the table, or the run's own file."""
    row = checkpoint(wildcards.checkpoint)
    local = RUN.weights.get(wildcards.checkpoint, "")
    return {
        "source": row.source,
        "module": row.module,
        "module_content": module_fingerprint(row.module) if row.module else "",
        "url": row.url,
        "sha256": row.sha256,
        "local": local,
        "local_content": fingerprint(local) if local else "",
    }


def within_site(minutes, members=lambda wildcards: 1):
    """A time limit that the cluster's partitions take, for all `members` of a job in turn."""

    def limited(wildcards, attempt):
        return SITE.time_limit(minutes(wildcards, attempt), members(wildcards))

    return limited


def group_members(wildcards):
    """How many evaluations share a job at most, by the profile's group-components and the run."""
    limit = workflow.group_settings.group_components.get("evaluate", 1)
    row = task_table()[wildcards.task]
    return members_at_most(wildcards.variant, row, RUN.variants, limit)


def one_of(names):
    """The constraint of a wildcard that is one of these names; of none, it matches nothing."""
    return "|".join(map(re.escape, sorted(names))) or "(?!)"


def evaluated_on_gpu():
    """The tasks whose predictors are trained on a GPU: those long enough to be worth one."""
    rows = task_table().values()
    return [row.task for row in rows if trains_on_gpu(row, RUN.evaluation_device)]


def evaluation_group(wildcards):
    """The SLURM job that a short evaluation shares.

    Snakemake is told that it is one of "evaluate", which the profile's group-components limit.
    """
    group = group_of(wildcards.variant, task_table()[wildcards.task])
    if group is not None:
        workflow.parent_groupids[group] = "evaluate"
    return group


def front_end(wildcards):
    """The front-end settings of a checkpoint."""
    return checkpoint(wildcards.checkpoint).front_end


def network(wildcards):
    """The shape of a checkpoint's network."""
    return checkpoint(wildcards.checkpoint).network


def precision(wildcards):
    """How the network runs on CUDA. A module decides that itself, so the setting is not its."""
    return "float32" if checkpoint(wildcards.checkpoint).module else RUN.precision


def protocol(device):
    """How a pair is evaluated.

    One parameter, for Snakemake compares the set of a rule's values and not which parameter has
    which: 8 grid points and 1 seed would be 8 seeds and 1 grid point.
    """
    return {
        "device": device,
        "grid_points": RUN.grid_points,
        "seeds": RUN.seeds,
        "version": versions.EVALUATE,
    }


def report_numbers():
    """What the scores of a report were made with, and its version: as of `protocol`, one parameter."""
    return {"grid_points": RUN.grid_points, "seeds": RUN.seeds, "version": versions.REPORT}


def gpu_job_threads(wildcards):
    """An even share of the cores a GPU; without a GPU one job on all cores.

    A job more than there are GPUs, which uneven shares have room for, waits for one
    (`devices.claimed_device`).
    """
    return max(1, workflow.cores // max(1, resources.gpus_here()))


def synthetic_archive(wildcards):
    """The archive that rule synthesise_task makes, for a task of the mini benchmark."""
    if task_table()[wildcards.task].benchmark == "mini":
        return "<scratch>/archives/{task}.tar.gz"
    return []


def task_kind(wildcards):
    """What the table says that the data of a task must be, for it is checked when prepared."""
    return list(task_table()[wildcards.task].kind)


def task_source(wildcards):
    """Where a task's data comes from: its row of the table, or the run's own archive or folder."""
    row = task_table()[wildcards.task]
    local = RUN.task_sources.get(row.task, "")
    return {
        "url": row.url,
        "md5": row.md5,
        "local": local,
        "local_content": fingerprint(local) if local else "",
    }


def report_files(wildcards):
    """Tables, figures and claims of the run, and of the published scores.

    All files of their jobs, for Snakemake misses only those that are asked for.
    """
    return [
        file
        for benchmark, report in REPORTS.items()
        for file in [
            *expand(rules.claims.output, benchmark=benchmark),
            *expand(rules.aggregate.output, benchmark=benchmark),
            *expand(rules.plot.output, benchmark=benchmark, figure=report.figures),
        ]
    ]


def report_content(wildcards):
    """The content of the tables that a report is made of, so that an edit makes it again."""
    published = ["published_scores", "published_boxes", "published_means", "published_systems"]
    tables = ["tasks", "checkpoints", "figures", *published]
    return [f"{name}.csv {fingerprint(CONFIG / f'{name}.csv')[:12]}" for name in tables]
