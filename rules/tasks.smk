"""Archive or folder to prepared task: found, fetched or made; checked, resampled and packed."""


rule fetch_tasks:
    """The archives of all tasks of the run, for compute nodes without internet."""
    input:
        expand("<scratch>/archives/{task}.json", task=[row.task for row in RUN.tasks]),


rule synthesise_task:
    """Make a task of the mini benchmark."""
    output:
        archive="<scratch>/archives/{task}.tar.gz",
    log:
        "results/logs/synthesise_task/{task}.log",
    localrule: True
    conda:
        "../envs/tasks.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        version=versions.SYNTHESISE,
    message:
        "Synthesising {wildcards.task}"
    shell:
        "python -m workflow_scripts.synthesise_task --task {wildcards.task}"
        " --archive {output.archive} --log {log}"


rule fetch_task:
    """Find a task's archive or folder, or fetch it, and say what it is (path, md5 or fingerprint)."""
    input:
        synthetic=synthetic_archive,
    output:
        source="<scratch>/archives/{task}.json",
    log:
        "results/logs/fetch_task/{task}.log",
    localrule: True
    conda:
        "../envs/tasks.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        source=task_source,
        version=versions.FETCH,
    message:
        "Data of {wildcards.task}"
    shell:
        "python -m workflow_scripts.fetch_task --task {wildcards.task}"
        " --local={params.source[local]:q} --synthetic {input.synthetic} --source {output.source}"
        " --log {log}"


rule prepare_task:
    """Check a task, resample it to what a model wants and pack it in three files."""
    input:
        source="<scratch>/archives/{task}.json",
    output:
        task="<scratch>/tasks/{task}/{sample_rate}/task.json",
        clips="<scratch>/tasks/{task}/{sample_rate}/clips.json",
        audio="<scratch>/tasks/{task}/{sample_rate}/audio.npy",
    log:
        "results/logs/prepare_task/{task}/{sample_rate}.log",
    benchmark:
        "results/benchmarks/prepare_task/{task}/{sample_rate}.jsonl"
    conda:
        "../envs/tasks.yaml"
    threads: 2
    resources:
        **SITE.cpu_job,
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=within_site(resources.prepare_minutes),
    params:
        kind=task_kind,
        version=versions.PREPARE,
    message:
        "Preparing {wildcards.task} at {wildcards.sample_rate} Hz"
    shell:
        "python -m workflow_scripts.prepare_task --task {wildcards.task} --source {input.source}"
        " --sample-rate {wildcards.sample_rate} --threads {threads} --prepared {output.task}"
        " --log {log}"
