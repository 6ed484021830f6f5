"""Scores to tables, figures and claims: of the run, and of published scores alone.

{benchmark} is the run's own, or `published`, which needs no model; REPORTS says what each is of.
"""


rule aggregate:
    """Put the scores of a run, and the published ones of its tasks, into tables."""
    input:
        lambda wildcards: REPORTS[wildcards.benchmark].scores,
    output:
        scores=report(
            "results/{benchmark}/tables/scores.csv",
            caption="report/scores.rst",
            category="Tables",
            subcategory="{benchmark}",
            labels={"table": "scores"},
        ),
        normalised=report(
            "results/{benchmark}/tables/normalised.csv",
            caption="report/normalised.rst",
            category="Tables",
            subcategory="{benchmark}",
            labels={"table": "normalised scores"},
        ),
        means=report(
            "results/{benchmark}/tables/means.csv",
            caption="report/means.rst",
            category="Tables",
            subcategory="{benchmark}",
            labels={"table": "means"},
        ),
        leaderboard_row=report(
            "results/{benchmark}/tables/leaderboard_row.csv",
            caption="report/leaderboard_row.rst",
            category="Tables",
            subcategory="{benchmark}",
            labels={"table": "leaderboard row"},
        ),
        missing="results/{benchmark}/tables/missing.csv",
    log:
        "results/logs/aggregate/{benchmark}.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        variants=lambda wildcards: REPORTS[wildcards.benchmark].variants,
        tasks=lambda wildcards: REPORTS[wildcards.benchmark].tasks,
        numbers=report_numbers(),
        content=report_content,
    message:
        "Tables of {wildcards.benchmark}"
    shell:
        "python -m workflow_scripts.aggregate --variants {params.variants:q} --tasks {params.tasks}"
        " --grid-points {params.numbers[grid_points]} --seeds {params.numbers[seeds]}"
        " --score-folder results/scores --scores {output.scores} --normalised {output.normalised}"
        " --means {output.means} --leaderboard-row {output.leaderboard_row}"
        " --missing {output.missing} --log {log}"


rule plot:
    """Draw one figure of config/figures.csv."""
    input:
        scores="results/{benchmark}/tables/scores.csv",
    output:
        png="results/{benchmark}/figures/{figure}.png",
        svg=report(
            "results/{benchmark}/figures/{figure}.svg",
            caption="report/figure.rst",
            category="Figures",
            subcategory="{benchmark}",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/logs/plot/{benchmark}/{figure}.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        caption=lambda wildcards: figure_table()[wildcards.figure].caption,
        tasks=lambda wildcards: REPORTS[wildcards.benchmark].tasks,
        notice=lambda wildcards: REPORTS[wildcards.benchmark].notice,
        content=report_content,
        version=versions.REPORT,
    message:
        "Figure {wildcards.figure} of {wildcards.benchmark}"
    shell:
        "python -m workflow_scripts.plot --figure {wildcards.figure} --tasks {params.tasks}"
        " --notice={params.notice:q} --scores {input.scores} --png {output.png}"
        " --svg {output.svg} --log {log}"


rule claims:
    """Write what the scores say: wins and losses, new bests, means, what was not compared."""
    input:
        scores="results/{benchmark}/tables/scores.csv",
        missing="results/{benchmark}/tables/missing.csv",
    output:
        report(
            "results/{benchmark}/claims.md",
            caption="report/claims.rst",
            category="Claims",
            labels={"benchmark": "{benchmark}"},
        ),
    log:
        "results/logs/claims/{benchmark}.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        tasks=lambda wildcards: REPORTS[wildcards.benchmark].tasks,
        notice=lambda wildcards: REPORTS[wildcards.benchmark].notice,
        content=report_content,
        version=versions.REPORT,
    message:
        "Claims of {wildcards.benchmark}"
    shell:
        "python -m workflow_scripts.claims --tasks {params.tasks} --notice={params.notice:q}"
        " --scores {input.scores} --missing {input.missing} --text {output} --log {log}"


rule estimate:
    """Say what the run will download, keep on disk and compute, before it starts."""
    log:
        "results/logs/estimate.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        variants=[variant.name for variant in RUN.variants],
        tasks=[row.task for row in RUN.tasks],
        grid_points=RUN.grid_points,
        seeds=RUN.seeds,
        evaluation_device=RUN.evaluation_device,
        local_tasks=list(RUN.task_sources),
        local_weights=list(RUN.weights),
    message:
        "What the run will cost"
    shell:
        "python -m workflow_scripts.estimate --variants {params.variants} --tasks {params.tasks}"
        " --grid-points {params.grid_points} --seeds {params.seeds}"
        " --evaluation-device {params.evaluation_device}"
        " --local-tasks {params.local_tasks} --local-weights {params.local_weights}"
        " --log {log} && cat {log}"
