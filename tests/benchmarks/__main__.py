"""`python -m tests.benchmarks`: run the measurements, or some of them, and print their tables."""

import argparse
import os
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from tests.benchmarks import embedding, evaluation, gpu, inputs, machine, scaling, study
from tests.benchmarks.comparison import as_table, comparisons_table
from tests.benchmarks.evaluation import EmbeddedFiles

CHECKPOINT = "mn04_as"
WIDE_CHECKPOINT = "mn40_as_ext"
SMALL_FOLDS = {f"fold{i:02}": 80 for i in range(5)}
USUAL = ("embedding", "variants", "evaluation", "scaling", "memory", "limits", "study")
GPU = (
    *("gpu_embedding", "gpu_evaluation", "gpu_event_evaluation"),
    *("gpu_busy", "gpu_precision", "gpu_memory"),
)
OF_THE_RECORD = ("protocol", "seeds", *GPU)  # minutes each


@dataclass
class Benchmark:
    """The measurements; each method returns the text of one.

    Attributes:
        folder: for everything that is written.
        quick: small input and one repetition, for a look.
        threads: torch threads of both sides.
        repeat: how often comparisons are repeated.
        rates: rates of `study` that the command line sets.
    """

    folder: Path
    quick: bool
    threads: int
    repeat: int = 3
    rates: dict[str, float] = field(default_factory=dict)
    _folders: int = 0
    _digits: dict[int | None, inputs.InputTask] = field(default_factory=dict)

    def embedding(self) -> str:
        """heareval's embedding runner with one window a call, against our pass."""
        seconds = 20 if self.quick else 120
        with embedding.quiet():
            tasks = [
                (self.digits_name, self.digits(12 if self.quick else 120), 1.7),
                ("scene, 10 s clips", self.scenes(6 if self.quick else 60), 1.7),
                (
                    f"events, {seconds} s clips",
                    inputs.event_task(self.new_folder(), 3, float(seconds)),
                    12.0,
                ),
            ]
        return comparisons_table(
            [
                embedding.compare(
                    f"{name}: {len(given.task.clips)}",
                    given,
                    evaluation.VARIANT,
                    self.weights,
                    self.repetitions,
                    target,
                )
                for name, given, target in tasks
            ]
        )

    def variants(self) -> str:
        """What variants 2 to 10 of a checkpoint add to its pass."""
        tables = []
        clips = {CHECKPOINT: 3} if self.quick else {CHECKPOINT: 120, WIDE_CHECKPOINT: 12}
        for name, count in clips.items():
            scenes = self.scenes(count)
            weights = inputs.weights_of(name, self.folder)
            table = embedding.added_variants(scenes, name, weights, 1 if self.quick else 7)
            tables.append(f"{name}, 10 s clips (target: each adds under 10 %):\n{table}")
        of_study, passes = len(embedding.study_variants()), embedding.passes_a_task()
        return "\n\n".join(
            [*tables, f"{of_study} variants of the study cost {passes} passes a task."]
        )

    def evaluation(self) -> str:
        """The process of heareval's prediction runner, against our evaluation job."""
        quick = self.quick
        small = self.small_pair()
        short = evaluation.with_parameters(small, self.new_folder(), max_epochs=[60])
        start = evaluation.with_parameters(small, self.new_folder(), max_epochs=[3])
        clips = (
            {"train": 1, "valid": 1, "test": 1} if quick else {"train": 4, "valid": 2, "test": 2}
        )
        length = 30.0 if quick else 120.0
        made = inputs.event_embeddings(clips, evaluation.SIZE, 11, length, max_epochs=[20])
        events = evaluation.made_files(made, self.new_folder())
        cases = [
            ("start-up: 400 clips, 3 epochs", start, 1, None),
            ("400 clips, 2 grid points, 60 epochs", short, 2, 2.0)
            if quick
            else ("400 clips, 8 grid points", small, 8, 2.0),
            (f"{sum(clips.values())} event clips, 2 grid points, 20 epochs", events, 2, 1.5),
        ]
        if not quick:
            digits = self.digits_pair(max_epochs=[30])
            cases += [(f"{self.digits_name}, 2 grid points, 30 epochs", digits, 2, 1.4)]
        compared = [
            evaluation.compare(
                name,
                files,
                self.new_folder(),
                grid_points=grid_points,
                threads=self.threads,
                repetitions=self.repetitions,
                target=target,
            )
            for name, files, grid_points, target in cases
        ]
        pairs = [self.small_pair() for _ in range((1 if quick else 2) * self.cores)]
        throughput = evaluation.compare_throughput(
            f"{len(pairs)} pairs of 400 clips on {self.cores} cores",
            pairs,
            self.new_folder(),
            grid_points=1 if quick else 4,
            cores=self.cores,
            repetitions=self.repetitions,
            target=2.2,
        )
        _, files, grid_points, _ = cases[1]
        bound = evaluation.products_bound(compared[1], files, grid_points)
        return f"{comparisons_table([*compared, throughput])}\n\n{bound}"

    def protocol(self) -> str:
        """The whole protocol on all spoken digits, eight grid points and five folds, once."""
        compared = evaluation.compare(
            f"{self.digits_name}, 8 grid points",
            self.digits_pair(),
            self.new_folder(),
            grid_points=8,
            threads=self.threads,
            repetitions=1,
            target=1.4,
        )
        return comparisons_table([compared])

    def seeds(self) -> str:
        """Test scores of five seeds, predictors trained one after the other and side by side."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        files = self.digits_pair(**({"max_epochs": [30]} if device == "cpu" else {}))
        table = evaluation.seeds_table(files.embedded, device, grid_points=2 if self.quick else 4)
        return f"{self.digits_name}, on a {device}:\n{table}"

    def gpu_embedding(self) -> str:
        """On a GPU: heareval's embedding runner with one window a call, against our pass."""
        device = required_gpu()
        seconds = 20.0 if self.quick else 60.0
        with embedding.quiet():
            events = inputs.event_task(self.new_folder(), 3, seconds)
        cases = [
            (f"3 event clips of {seconds:.0f} s", events, 20.0),
            (self.digits_name, self.digits(None), None),
        ]
        compared = [
            embedding.compare(
                name, given, evaluation.VARIANT, self.weights, self.repetitions, target
            )
            for name, given, target in cases
        ]
        return f"{device}:\n{comparisons_table(compared)}"

    def gpu_evaluation(self) -> str:
        """On a GPU: the process of heareval's prediction runner, against our evaluation job."""
        device, epochs = required_gpu(), 10 if self.quick else 100
        return self.gpu_compared(
            device,
            f"{self.digits_name}, 8 grid points, {epochs} epochs",
            self.digits_pair(max_epochs=[epochs]),
        )

    def gpu_event_evaluation(self) -> str:
        """The same of an event task."""
        device, epochs = required_gpu(), 10 if self.quick else 100
        clips = {"train": 4, "valid": 2, "test": 2}
        made = inputs.event_embeddings(clips, evaluation.SIZE, 11, 120.0, max_epochs=[epochs])
        return self.gpu_compared(
            device,
            f"8 event clips of 2 min, 8 grid points, {epochs} epochs",
            evaluation.made_files(made, self.new_folder()),
        )

    def gpu_compared(self, device: str, name: str, files: EmbeddedFiles) -> str:
        """Return a comparison of evaluations, made once, on the GPU that is called `device`."""
        compared = evaluation.compare(
            name,
            files,
            self.new_folder(),
            grid_points=8,
            threads=self.threads,
            repetitions=1,
            target=10.0,
            device="gpu",
        )
        return f"{device}:\n{comparisons_table([compared])}"

    def gpu_busy(self) -> str:
        """How busy passes over scenes keep a GPU."""
        device = required_gpu()
        table = gpu.busy_table(self.gpu_scenes(), self.gpu_checkpoints(), "cuda")
        return f"{device}:\n{table}"

    def gpu_precision(self) -> str:
        """Features in half precision and in float32 on a GPU, against a CPU's."""
        device = required_gpu()
        audio = gpu.noise(8, 10.0)
        tables = [
            f"{name} on {device}:\n{gpu.precision_table(audio, name, weights, 'cuda')}"
            for name, weights in self.gpu_checkpoints().items()
        ]
        return "\n\n".join([*tables, gpu.refuse_other_bits("cuda")])

    def gpu_memory(self) -> str:
        """A pass whose first batch is too large for the GPU."""
        device = required_gpu()
        weights = inputs.weights_of(WIDE_CHECKPOINT, self.folder)
        text = gpu.short_of_memory(gpu.noise(128, 10.0), WIDE_CHECKPOINT, weights)
        return f"{WIDE_CHECKPOINT} on {device}: {text}"

    def gpu_scenes(self) -> list[tuple[str, inputs.InputTask]]:
        """Return scene tasks of 1 s, of 10 s, and of lengths as various as FSD50K's."""
        clips = 120 if self.quick else 300
        return [
            (self.digits_name, self.digits(None)),
            ("10 s clips", self.scenes(clips)),
            ("0.3 s to 30 s clips", self.scenes(clips, 0.3, 30.0)),
        ]

    def gpu_checkpoints(self) -> dict[str, Path]:
        """Return weights of a narrow and of the widest network."""
        names = (CHECKPOINT, WIDE_CHECKPOINT)
        return {name: inputs.weights_of(name, self.folder) for name in names}

    def scaling(self) -> str:
        """Time and peak memory of both stages against clips, embedding size and labels."""
        scenes, seconds, clips, epochs = (3, 2.0, 200, 3) if self.quick else (8, 20.0, 2000, 6)
        of_embedding = {
            "scene clips": scaling.embedding_series(
                "scene", self.weights, CHECKPOINT, scenes, 10.0
            ),
            "event clips": scaling.embedding_series("event", self.weights, CHECKPOINT, 3, seconds),
        }
        of_evaluation = {
            vary: scaling.evaluation_series(vary, clips, 512, 20, epochs)
            for vary in ("clips", "size", "labels")
        }
        of_evaluation["event clips"] = scaling.evaluation_series("clips", 4, 64, 10, 3, "event")
        texts = [f"Embedding, {name}:\n{scaling.table(s)}" for name, s in of_embedding.items()]
        texts += [f"Evaluation, {name}:\n{scaling.table(s)}" for name, s in of_evaluation.items()]
        return "\n\n".join(texts)

    def memory(self) -> str:
        """Peak memory on a 20 minute clip and on a task of 50 000 clips and 200 classes."""
        clips, minutes = (2000, 2) if self.quick else (50_000, 20)
        rows = [["", "s", "peak GB", "output GB", "promised GB beyond the output"]]

        def add(name: str, measured: tuple[tuple[float, int], int]) -> None:
            (seconds, output), peak = measured
            rows.append(
                [name, f"{seconds:.1f}", f"{peak / 1e9:.2f}", f"{output / 1e9:.2f}", "4.29"]
            )

        for kind in ("scene", "event"):
            arguments = (kind, self.weights, CHECKPOINT, 1, 60.0 * minutes)
            measured = machine.apart(scaling.embed_silence, *arguments)
            add(f"embed a {minutes} minute clip, {kind}", measured)
        arguments = ("scene", self.weights, CHECKPOINT, clips, 0.25)
        add(f"embed {clips} clips of 0.25 s", machine.apart(scaling.embed_silence, *arguments))
        folder = self.new_folder()
        machine.apart(scaling.write_large, folder, clips, 200)
        add(
            f"evaluate {clips} clips, {evaluation.SIZE} values, 200 classes",
            machine.apart(scaling.evaluate_large, folder),
        )
        return as_table(rows)

    def limits(self) -> str:
        """What share of the machine's matrix products and disk the stages reach."""
        products = machine.matrix_product_rate()
        disk = machine.disk_rates(self.folder).read
        with embedding.quiet():
            tasks = [
                (self.digits_name, self.digits(12 if self.quick else 120)),
                ("scene, 10 s clips", self.scenes(6 if self.quick else 60)),
                ("events, 20 s clips", inputs.event_task(self.new_folder(), 9, 20.0)),
            ]
        lines = [
            f"Matrix products {products / 1e9:.0f} G multiply-adds/s (float32, {self.threads} "
            f"threads), disk {disk / 1e6:.0f} MB/s."
        ]
        for name, given in {CHECKPOINT: tasks, WIDE_CHECKPOINT: tasks[1:2]}.items():
            weights = inputs.weights_of(name, self.folder)
            table = embedding.limits(given, name, weights, products, disk, self.repetitions)
            lines.append(f"Passes of {name}:\n{table}")
        rows = [["training on", "G multiply-adds/s", "of products"]]
        for clips, size in ((2400, evaluation.SIZE), (240, evaluation.SIZE), (2400, 8423)):
            epochs = 3 if self.quick else 12
            rate, _ = machine.apart(scaling.training_rate, clips, size, 10, epochs, self.threads)
            rows.append([f"{clips} x {size}", f"{rate / 1e9:.1f}", f"{rate / products:.0%}"])
        return "\n\n".join([*lines, f"Evaluation, one hidden layer:\n{as_table(rows)}"])

    def study(self) -> str:
        """What the whole study would cost on 1, 8 and 64 GPUs: a simulation."""
        known = study.measured_rates() | study.GIVEN
        known |= {name: study.Known(rate, "as given") for name, rate in self.rates.items()}
        return study.report(known)

    @property
    def repetitions(self) -> int:
        """How often a comparison is repeated."""
        return 1 if self.quick else self.repeat

    @property
    def cores(self) -> int:
        """How many cores there are."""
        return len(os.sched_getaffinity(0))

    @cached_property
    def weights(self) -> Path:
        """The weights of mn04_as."""
        return inputs.weights_of(CHECKPOINT, self.folder)

    @property
    def digits_name(self) -> str:
        """What stands for the real input."""
        return "spoken digits" if inputs.DIGITS_ARCHIVE.exists() else "mini vowels (no real input)"

    def digits(self, clips_a_split: int | None) -> inputs.InputTask:
        """Return the spoken digits, or a mini task; made once."""
        if clips_a_split not in self._digits:
            with embedding.quiet():
                made = inputs.real_or_mini(self.new_folder(), clips_a_split)
            self._digits[clips_a_split] = made
        return self._digits[clips_a_split]

    def digits_pair(self, **parameters: list[int]) -> EmbeddedFiles:
        """Return the embeddings of all spoken digits."""
        folder = self.new_folder()
        folder.mkdir()
        files = evaluation.embedded_files(self.digits(None), folder, self.weights)
        return evaluation.with_parameters(files, self.new_folder(), **parameters)

    def small_pair(self) -> EmbeddedFiles:
        """Return made embeddings of 400 clips in five folds."""
        made = inputs.scene_embeddings(SMALL_FOLDS, evaluation.SIZE, 10)
        return evaluation.made_files(made, self.new_folder())

    def scenes(
        self, clips: int, seconds: float = 10.0, longest: float | None = None
    ) -> inputs.InputTask:
        """Return a task of clips of one length, or of lengths up to `longest`."""
        with embedding.quiet():
            return inputs.scene_task(self.new_folder(), clips, seconds, longest)

    def new_folder(self) -> Path:
        """Return a folder that is not there yet."""
        self._folders += 1
        return self.folder / str(self._folders)


def required_gpu() -> str:
    """Return the name of this machine's GPU; ends the program if there is none."""
    if not torch.cuda.is_available():
        raise SystemExit("parts gpu_*: torch finds no CUDA device here")
    return torch.cuda.get_device_name()


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    width = max(map(len, OF_THE_RECORD)) + 2
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure the pipeline beside the stock tools; see docs/benchmarks.md.",
        epilog="\n".join(
            f"  {name:{width}}{getattr(Benchmark, name).__doc__}"
            for name in (*USUAL, *OF_THE_RECORD)
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"what to measure; default: all but {', '.join(OF_THE_RECORD)}",
    )
    parser.add_argument("--quick", action="store_true", help="small input, one repetition")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: 3)")
    parser.add_argument("--threads", type=int, default=cores, help="torch threads (default: cores)")
    parser.add_argument(
        "--rate",
        action="append",
        default=[],
        type=_rate,
        metavar="NAME=VALUE",
        help="a rate of the simulated study, say gpu_multiply_adds=2e12",
    )
    options = parser.parse_args(arguments)
    parts = options.parts or USUAL
    if unknown := set(parts) - {*USUAL, *OF_THE_RECORD}:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(USUAL + OF_THE_RECORD)}")
    if unknown := {name for name, _ in options.rate} - set(study.rate_names()):
        parser.error(f"no rate {', '.join(unknown)}; there are {', '.join(study.rate_names())}")
    os.environ |= {"PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
    torch.set_num_threads(options.threads)
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory(prefix="hear-benchmarks-") as folder:
        benchmark = Benchmark(
            Path(folder), options.quick, options.threads, options.repeat, dict(options.rate)
        )
        failed = False
        for part in parts:
            measure = getattr(benchmark, part)
            started, load = time.perf_counter(), os.getloadavg()[0]
            try:
                text = measure()
            except Exception:  # the parts after it are worth their time all the same
                failed = True
                text = traceback.format_exc()
            seconds, after = time.perf_counter() - started, os.getloadavg()[0]
            took = f"{seconds:.0f} s, load {load:.1f} before and {after:.1f} after"
            print(f"\n## {part}\n\n{measure.__doc__} ({took})\n\n{text}", flush=True)
    sys.exit(failed)


def _rate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    return name, float(value)


if __name__ == "__main__":
    main()
