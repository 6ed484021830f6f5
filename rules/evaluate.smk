"""Embeddings to scores: heareval's protocol for each (variant, task)."""


rule evaluate:
    """Train and test heareval's classifiers on the embeddings of one variant."""
    input:
        manifests=embedding_manifests,
        matrices=ancient(embedding_matrices),
        task=prepared_task("task.json"),
        clips=ancient(prepared_task("clips.json")),
    output:
        scores="results/scores/{variant}/{task}.json",
    log:
        "results/logs/evaluate/{variant}/{task}.log",
    benchmark:
        "results/benchmarks/evaluate/{variant}/{task}.jsonl"
    wildcard_constraints:
        task=one_of(set(task_table()) - set(evaluated_on_gpu())),
    group:
        evaluation_group
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **SITE.cpu_job,
        group_slot=1,
        mem_mb=resources.evaluate_memory,
        runtime=within_site(resources.evaluate_minutes(RUN), group_members),
    params:
        protocol=protocol(device="cpu"),
    message:
        "Evaluating {wildcards.variant} on {wildcards.task}"
    shell:
        "python -m workflow_scripts.evaluate --variant {wildcards.variant} --task {input.task}"
        " --manifests {input.manifests} --grid-points {params.protocol[grid_points]}"
        " --seeds {params.protocol[seeds]} --device {params.protocol[device]} --threads {threads}"
        " --scores {output.scores} --log {log}"


use rule evaluate as evaluate_on_gpu with:
    wildcard_constraints:
        task=one_of(evaluated_on_gpu()),
    threads: gpu_job_threads
    resources:
        **SITE.gpu_job,
        mem_mb=resources.evaluate_memory,
        runtime=within_site(resources.evaluate_on_gpu_minutes(RUN)),
    params:
        protocol=protocol(device="gpu"),


rule export:
    """Write a pair in heareval's own layout, for `python -m heareval.predictions.runner`."""
    input:
        manifests=embedding_manifests,
        matrices=ancient(embedding_matrices),
        task=prepared_task("task.json"),
        clips=ancient(prepared_task("clips.json")),
    output:
        directory("results/exports/{variant}/{task}"),
    log:
        "results/logs/export/{variant}/{task}.log",
    conda:
        "../envs/evaluate.yaml"
    threads: 1
    resources:
        **SITE.cpu_job,
        mem_mb=resources.evaluate_memory,
        runtime=60,
    params:
        version=versions.EXPORT,
    message:
        "Exporting {wildcards.variant} on {wildcards.task}"
    shell:
        "python -m workflow_scripts.export --variant {wildcards.variant} --task {input.task}"
        " --manifests {input.manifests} --directory {output} --log {log}"
