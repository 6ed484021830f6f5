"""HEAR 2021 for every variant of an audio embedding model: tasks, embeddings, scores, figures.

snakemake -j4                 the mini benchmark on this machine (config/config.yaml)
snakemake --profile slurm     the published study on a cluster (config/hear2021.yaml)
"""

from snakemake.utils import min_version

min_version("9.20")


pathvars:
    scratch="results/scratch",  # or as slurm/site.yaml or the run's file says


if not {"benchmark", "variants", "tasks"} <= config.keys():

    configfile: "config/config.yaml"


if Path("slurm/site.yaml").exists():

    configfile: "slurm/site.yaml"


include: "rules/common.smk"


wildcard_constraints:
    benchmark=one_of(REPORTS),
    figure=one_of(figure_table()),
    checkpoint=one_of(checkpoints()),
    parts="[a-z0-9_]+(-[a-z0-9_]+)*",
    sample_rate="[0-9]+",
    task=one_of(task_table()),
    variant="[A-Za-z0-9_]+",


rule all:
    input:
        REPORTS[RUN.benchmark].scores,  # named, for a missing one counts whatever reports there are
        report_files,


include: "rules/tasks.smk"
include: "rules/embed.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/lifecycle.smk"
