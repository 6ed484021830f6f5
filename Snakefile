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
    benchmark=f"{re.escape(RUN.benchmark)}|published",
    figure="|".join(map(re.escape, figure_table())),
    checkpoint="|".join(map(re.escape, checkpoints())),
    parts="[a-z0-9_]+(-[a-z0-9_]+)*",
    sample_rate="[0-9]+",
    task="|".join(map(re.escape, task_table())),
    variant="[A-Za-z0-9_]+",


rule all:
    input:
        all_scores,  # named, for a missing one counts whatever reports there are
        benchmark_report,


include: "rules/tasks.smk"
include: "rules/embed.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/lifecycle.smk"
