"""Measure imgrec beside what a user would pick instead, and append a table per benchmark to RESULTS.md.

python benchmarks/run.py [NAMES…] --photos DIR --fashion DIR; README.md beside this file says what each measures.
"""

import argparse
import datetime
import os
import shlex
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import environment
import race
import trials
from race import Contestant, Result

ROOT = Path(__file__).parents[1]
BATCH = 32
OURS, CEILING = "imgrec, end to end", "imgrec's compiled step on one batch in memory"


@dataclass(frozen=True, slots=True)
class Session:
    """What the benchmarks share: options, the peers' interpreter, a folder that is removed at the end."""

    options: argparse.Namespace
    peers: str
    folder: Path
    environment: dict[str, str]

    def imgrec(self, config: Path, data: Path, *settings: str) -> list[str]:
        """Arguments of the imgrec scripts for a config and a data folder."""
        settings = (f"data.folder={data}", f"train.batch_size={BATCH}", *settings, *self.options.set)
        return [str(config), *(part for setting in settings for part in ("--set", setting))]

    def ours(self, config: Path, data: Path, *settings: str) -> list[Contestant]:
        """imgrec end to end, and its ceiling."""
        arguments = self.imgrec(config, data, *settings)
        arguments += ["--precision-file", str(self.folder / f"precision-{'-'.join([config.stem, *settings])}")]
        return [
            Contestant(CEILING, "imgrec_training.py", [*arguments, "--input", "memory"], ours=True),
            Contestant(OURS, "imgrec_training.py", [*arguments, "--input", "pack"], ours=True),
        ]

    def is_wanted(self, name: str) -> bool:
        """Whether `--only` leaves this contestant in."""
        return not self.options.only or any(word in name for word in self.options.only)

    def race(self, title: str, contestants: Sequence[Contestant], steps: int) -> None:
        """Run a race and write its table."""
        chosen = [contestant for contestant in contestants if self.is_wanted(contestant.name)]
        steps = self.options.steps or steps
        results = race.run(chosen, self.options.rounds, steps, self.peers, self.environment, self.folder)
        ours = next((result.median for result in results if result.name == OURS and result.speeds), None)
        versions = {name: number for result in results for name, number in result.versions.items()}
        counted = self.options.rounds - 1
        text = f"Medians of {counted} interleaved rounds of {steps} steps of {BATCH} images."
        if title.startswith("packing"):
            text = f"Medians of {counted} interleaved rounds."
        rows = [_speed_row(result, ours) for result in results]
        self.table(title, text, ["", "images/s", "lowest to highest", "imgrec ÷ this", ""], rows, versions)

    def table(
        self, title: str, text: str, head: Sequence[str], rows: Sequence[Sequence[str]], versions: dict[str, str]
    ) -> None:
        """Append a table to the results, and show it."""
        used = ", ".join(f"{name} {number}" for name, number in {**environment.own_versions(), **versions}.items())
        lines = [
            f"## {title}, {datetime.date.today().isoformat()}",
            "",
            text,
            "",
            f"- machine: {environment.machine()}",
            f"- versions: {used}",
            f"- command: `python benchmarks/run.py {' '.join(map(_without_folder, sys.argv[1:]))}`",
            "",
            *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)),
            "",
        ]
        table = "\n".join(lines)
        print(table)
        file: Path = self.options.results
        if not file.exists():
            file.write_text(
                "# Results\n\nWritten by run.py, the newest last; README.md says what is measured.\n", "utf-8"
            )
        with file.open("a", encoding="utf-8") as stream:
            stream.write("\n" + table)


def _without_folder(argument: str) -> str:
    """An absolute path says nothing to other machines but its name."""
    path = Path(argument)
    return f"…/{path.name}" if path.is_absolute() else shlex.quote(argument)


def _speed_row(result: Result, ours: float | None) -> list[str]:
    if not result.speeds:
        return [result.name, "–", "–", "–", result.note]
    digits = 0 if result.median >= 1000 else 1
    ratio = f"{ours / result.median:.2f}" if ours else "–"
    spread = f"{min(result.speeds):,.{digits}f} to {max(result.speeds):,.{digits}f}"
    return [result.name, f"{result.median:,.{digits}f}", spread, ratio, result.note]


def document_001(session: Session) -> None:
    photos = session.options.photos
    images = ["--images", str(photos / "train"), "--batch", str(BATCH)]
    files = [*images, "--model", "document-001"]
    session.race(
        "document-001",
        [
            Contestant("(a) ImageDataGenerator and fit, float32", "keras_generator.py", images),
            Contestant("(b) Keras augmentation layers, float32", "keras_files.py", files),
            Contestant(
                "(b) Keras augmentation layers, bfloat16", "keras_files.py", [*files, "--policy", "mixed_bfloat16"]
            ),
            Contestant("(c) PyTorch, float32", "torch_files.py", [*files, "--precision", "float32"]),
            Contestant("(c) PyTorch, bfloat16", "torch_files.py", [*files, "--precision", "bfloat16"]),
            *session.ours(ROOT / "configs/document-001.yaml", photos),
        ],
        steps=30,
    )


def document_004(session: Session) -> None:
    arrays = session.folder / "fashion.npz"
    trials.arrays_file(session.options.fashion, 28, "L", arrays)
    memory = ["--arrays", str(arrays), "--batch", str(BATCH)]
    session.race(
        "document-004 on Fashion-MNIST",
        [
            Contestant("Keras fit on arrays in memory, float32", "keras_arrays.py", memory),
            Contestant("(c) PyTorch, float32", "torch_arrays.py", [*memory, "--precision", "float32"]),
            Contestant("(c) PyTorch, bfloat16", "torch_arrays.py", [*memory, "--precision", "bfloat16"]),
            *session.ours(ROOT / "configs/document-004.yaml", session.options.fashion),
        ],
        steps=1000,
    )


def backbones(session: Session) -> None:
    photos = session.options.photos
    for name, steps in (("mobilenet_v2", 20), ("resnet50", 10)):
        files = ["--images", str(photos / "train"), "--batch", str(BATCH), "--model", name]
        config = ROOT / "benchmarks/backbone.yaml"
        session.race(
            f"{name} from scratch at 160×160",
            [
                Contestant("Keras, float32", "keras_files.py", files),
                Contestant("Keras, bfloat16", "keras_files.py", [*files, "--policy", "mixed_bfloat16"]),
                Contestant("PyTorch, float32", "torch_files.py", [*files, "--precision", "float32"]),
                Contestant("PyTorch, bfloat16", "torch_files.py", [*files, "--precision", "bfloat16"]),
                *session.ours(config, photos, f"model.name={name}"),
            ],
            steps=steps,
        )


def packing(session: Session) -> None:
    folder = session.folder / "photographs"
    trials.photographs(session.options.photos / "train", 1000, folder)
    arguments = session.imgrec(ROOT / "configs/document-001.yaml", folder)
    session.race(
        "packing 1000 photographs of 500×375 to 150×150",
        [
            Contestant(
                "Pillow alone: a thread per core decodes and resizes", "pillow_threads.py", ["--images", str(folder)]
            ),
            Contestant(OURS, "imgrec_packing.py", arguments, ours=True),
        ],
        steps=1,
    )


def growth(session: Session) -> None:
    config, rows = ROOT / "configs/document-004.yaml", []
    for images in session.options.images:
        cost = trials.growth(config, session.options.set, session.options.fashion, images, session.environment)
        seconds = cost["pack_seconds"], cost["train_seconds"]
        row = [f"{images:,}", *(f"{s:.1f}" for s in seconds), f"{sum(seconds) / images * 1e6:.0f}"]
        rows.append([*row, f"{cost['pack_megabytes']:.0f}", f"{cost['train_megabytes']:.0f}"])
    head = [
        "images",
        "scan and pack, s",
        "one epoch, s",
        "both, µs an image",
        "peak memory after pack, MB",
        "after epoch, MB",
    ]
    text = "One new process and one empty cache per row; the epoch contains validation and checkpoints."
    session.table("growth of cost, document-004 on Fashion-MNIST", text, head, rows, {})


def time_to_accuracy(session: Session) -> None:
    limit, target, epochs = session.options.seeds, session.options.target, 10
    fashion = session.options.fashion
    arrays = session.folder / "fashion.npz"
    trials.arrays_file(fashion, 28, "L", arrays)
    names = ("the article's code: Keras fit on arrays", OURS)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(limit):
        for name in names:
            contestant = _epochs_of(session, name, fashion, arrays, seed, epochs)
            python = sys.executable if contestant.ours else session.peers
            reached = trials.epochs(contestant, epochs, python, session.environment, enough=target)
            seconds[name].append(reached[-1][0] if reached[-1][1] >= target else float("inf"))
            print(f"seed {seed}: {name}: {seconds[name][-1]:.0f} s", file=sys.stderr)
    ours = statistics.median(seconds[OURS])
    rows = [
        [
            name,
            f"{(median := statistics.median(times)):.0f}",
            ", ".join(f"{t:.0f}" for t in times),
            f"{median / ours:.2f}",
        ]
        for name, times in seconds.items()
    ]
    text = f"Process start to {target:.0%} test accuracy, import and packing counted; inf: not in {epochs} epochs."
    head = ["", "median, s", "by seed, s", "this ÷ imgrec"]
    session.table("time to accuracy, document-004 on Fashion-MNIST", text, head, rows, {})


def _epochs_of(
    session: Session, name: str, data: Path, arrays: Path, seed: int, epochs: int, *settings: str
) -> Contestant:
    """The article's program, or imgrec with the test images as validation images, so that both report on the same."""
    if name.startswith("imgrec"):
        folders = [f"data.train={data / 'train'}", f"data.validation={data / 'test'}", "data.split.test=0%"]
        own = [*folders, f"seed={seed}", f"train.epochs={epochs}", *settings]
        arguments = session.imgrec(ROOT / "configs/document-004.yaml", data, "data.folder=null", *own)
        return Contestant(name, "imgrec_epochs.py", arguments, ours=True)
    peer = ["--arrays", str(arrays), "--batch", str(BATCH), "--epochs", str(epochs), "--seed", str(seed)]
    return Contestant(name, "keras_arrays.py", peer)


def accuracy(session: Session) -> None:
    options = session.options
    color = ("image.size=[64,64]", "image.color=rgb")
    sets = (
        ("Fashion-MNIST", options.fashion, 28, "L", (), options.epochs),
        ("photographs at 64×64", options.photos, 64, "RGB", color, 4 * options.epochs),
    )
    variants = {"reference Keras, float32": ()} | {
        f"imgrec, {precision}": (f"train.precision={precision}",) for precision in ("float32", "bfloat16", "auto")
    }
    variants = {name: precision for name, precision in variants.items() if session.is_wanted(name)}
    rows = []
    for title, data, size, mode, settings, epochs in sets:
        arrays = session.folder / f"{size}.npz"
        trials.arrays_file(data, size, mode, arrays)
        final: dict[str, list[float]] = {name: [] for name in variants}
        for seed in range(options.seeds):
            for name, precision in variants.items():
                contestant = _epochs_of(session, name, data, arrays, seed, epochs, *settings, *precision)
                python = sys.executable if contestant.ours else session.peers
                final[name].append(100 * trials.epochs(contestant, epochs, python, session.environment)[-1][1])
                print(f"{title}, seed {seed}: {name}: {final[name][-1]:.2f} %", file=sys.stderr)
        reference = statistics.mean(next(iter(final.values())))
        for name, shares in final.items():
            mean, deviation = statistics.mean(shares), statistics.stdev(shares) if len(shares) > 1 else 0.0
            by_seed = ", ".join(f"{share:.2f}" for share in shares)
            rows.append(
                [title, name, str(epochs), f"{mean:.2f}", f"{deviation:.2f}", f"{mean - reference:+.2f}", by_seed]
            )
    head = ["images", "", "epochs", "mean, %", "deviation", "difference", "by seed"]
    text = f"Test accuracy after the last epoch of the stack of document-004, over {options.seeds} seeds."
    session.table("accuracy", text, head, rows, {})


BENCHMARKS: dict[str, Callable[[Session], None]] = {
    "document-001": document_001,
    "document-004": document_004,
    "backbones": backbones,
    "packing": packing,
    "growth": growth,
    "time-to-accuracy": time_to_accuracy,
    "accuracy": accuracy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure imgrec beside its peers.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(BENCHMARKS)}; without: all"
    )
    parser.add_argument("--photos", type=Path, help="folder with train/ and test/ of class folders of JPEG photographs")
    parser.add_argument("--fashion", type=Path, help="folder with train/ and test/ of Fashion-MNIST in class folders")
    parser.add_argument("--env", type=Path, default=environment.default_folder(), help="the peers' environment")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of a race; the first is not counted")
    parser.add_argument("--steps", type=int, help="steps of a round, instead of the benchmark's own number")
    parser.add_argument("--only", action="append", help="contestants whose name contains this; may be repeated")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 10000, 50000], help="sizes for growth")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of time-to-accuracy and accuracy")
    parser.add_argument(
        "--epochs", type=int, default=5, help="epochs of accuracy; the photographs get four times as many"
    )
    parser.add_argument("--target", type=float, default=0.9, help="accuracy of time-to-accuracy, 0 to 1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="setting for imgrec's configs")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("RESULTS.md"), help="where tables go")
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name}; there are {', '.join(BENCHMARKS)}")
        needed = {"document-001": "p", "document-004": "f", "backbones": "p", "packing": "p", "accuracy": "pf"}
        for letter, option in (("p", "photos"), ("f", "fashion")):
            if letter in needed.get(name, "f") and not getattr(options, option):
                parser.error(f"{name} needs --{option} DIR")
    for option in ("photos", "fashion"):
        folder = getattr(options, option)
        if folder and not all((folder / split).is_dir() for split in ("train", "test")):
            parser.error(f"--{option} {folder}: needs train/ and test/ below it")
        setattr(options, option, folder and folder.absolute())
    if options.rounds < 2:
        parser.error("--rounds: at least 2, because the first is not counted")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that contestants are ended, which may be stopped
    sys.path.insert(0, str(ROOT))  # imgrec is measured as it is in this checkout
    peers = str(environment.peers_python(options.env.absolute(), environment.requirements()))
    with tempfile.TemporaryDirectory(prefix="imgrec-benchmark-", ignore_cleanup_errors=True) as folder:
        shared = {**os.environ, "PYTHONPATH": str(ROOT), "IMGREC_CACHE": str(Path(folder) / "cache")}
        for name in names:
            BENCHMARKS[name](Session(options, peers, Path(folder), shared))


if __name__ == "__main__":
    main()
