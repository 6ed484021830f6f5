"""Checkpoint and prepared task to embeddings: one pass of the backbone for all that is wanted."""


rule fetch_weights:
    """All checkpoints of the run, for compute nodes without internet."""
    input:
        expand("<scratch>/weights/{checkpoint}.json", checkpoint=requested_checkpoints()),


rule fetch_checkpoint:
    """Find a checkpoint's weights or fetch them, and say what they are (path, size, sha256)."""
    output:
        weights="<scratch>/weights/{checkpoint}.json",
    log:
        "results/logs/fetch_checkpoint/{checkpoint}.log",
    localrule: True
    conda:
        "../envs/embed.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        source=checkpoint_source,
        version=versions.FETCH,
    message:
        "Weights of {wildcards.checkpoint}"
    shell:
        "python -m workflow_scripts.fetch_checkpoint --checkpoint {wildcards.checkpoint}"
        " --local={params.source[local]:q} --output {output.weights} --log {log}"


rule embed:
    """Embed every clip of a task with one checkpoint, every wanted feature in one pass."""
    input:
        weights="<scratch>/weights/{checkpoint}.json",
        task=prepared_task("task.json"),
        clips=ancient(prepared_task("clips.json")),
        audio=ancient(prepared_task("audio.npy")),
    output:
        embeddings="<scratch>/embeddings/{checkpoint}/{task}/{parts}.npy",
        manifest="<scratch>/embeddings/{checkpoint}/{task}/{parts}.json",
        performance="results/performance/embed/{checkpoint}/{task}/{parts}.json",
    log:
        "results/logs/embed/{checkpoint}/{task}/{parts}.log",
    benchmark:
        "results/benchmarks/embed/{checkpoint}/{task}/{parts}.jsonl"
    conda:
        "../envs/embed.yaml"
    threads: gpu_job_threads
    resources:
        **SITE.gpu_job,
        mem_mb=resources.embed_memory,
        runtime=within_site(resources.embed_minutes),
    params:
        front_end=front_end,
        network=network,
        precision=precision,
        version=versions.EMBED,
    message:
        "Embedding {wildcards.task} with {wildcards.checkpoint} ({wildcards.parts})"
    shell:
        "python -m workflow_scripts.embed --checkpoint {wildcards.checkpoint}"
        " --weights {input.weights} --task {input.task} --parts {wildcards.parts}"
        " --precision {params.precision} --threads {threads} --embeddings {output.embeddings}"
        " --manifest {output.manifest} --performance {output.performance}"
        " --node-local={resources.node_local:q} --log {log}"
