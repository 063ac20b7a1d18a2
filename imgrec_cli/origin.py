"""Where a run comes from and what has changed since: versions, machine, command, git state, config, images."""

import math
import os
import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgrec_cli import __version__
from imgrec_cli.errors import ConfigError, DataError
from imgrec_cli.machine import cpu_name, git_state
from imgrec_cli.rundir import RecordedExample, Run

if TYPE_CHECKING:
    from imgrec_cli.config import Config

TOLERANCE = 0.05  # of a metric, on another machine: rounding differs there, and training amplifies it
_NOTHING = object()
_NAMED = 5  # changed images in a message
_MACHINE = ("device", "backend", "threads", "cpu", "onednn", "deterministic", "versions")


def machine_record(backend: str, device: str, threads: int, deterministic: bool) -> dict[str, object]:
    """What the bits of a training depend on beside its config and images: two equal ones give the same bits."""
    packages = ("keras", "jax" if backend == "jax" else "tensorflow", "numpy", "pillow", "ai-edge-litert")
    versions = {"imgrec": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in packages:
        try:
            versions[package] = version(package)
        except ImportError:  # TensorFlow for CPUs is a distribution of another name
            versions[package] = version(f"{package}-cpu")
    return {
        "device": device,
        "backend": backend,
        "threads": threads,
        "cpu": cpu_name(),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        "deterministic": deterministic,
        "versions": versions,
    }


def machine_part(record: Mapping[str, Any]) -> dict[str, Any]:
    """What `machine_record` wrote into the record of a run."""
    return {key: record[key] for key in _MACHINE if key in record}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: before → now` for every value that is not the same in two machine records, names of systems aside."""
    found = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, Mapping):
            found += differences(old if isinstance(old, Mapping) else {}, value)
        elif key not in ("system", "imgrec") and old != value:
            found.append(f"{key}: {old} → {value}")
    return found


def command(config: Path | None, overrides: Sequence[str], options: Sequence[str] = ()) -> str:
    """What was typed, or would have been, with the home folder as `~`; `options` are words such as `--seeds`, `3`."""
    words = ["imgrec", "train", *([str(config)] if config else []), *options]
    words += [part for setting in overrides for part in ("--set", setting)]
    return without_home(shlex.join(words))


def without_home(text: str) -> str:
    """A text with the home folder as `~`: its path holds a user's name."""
    home = os.path.expanduser("~")  # noqa: PTH111 - a text is searched, not a path
    # as a whole path: of /home/bobby and /mnt/home/bob nothing belongs to /home/bob
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text) if len(home) > 1 else text


def git_record(config: Path | None) -> dict[str, object] | None:
    """The state of the git repository that the config lies in."""
    return git_state((config.parent if config else Path()).absolute())


def refuse_another_config(run: Run, stored: "Config", asked: "Config", images: int | None) -> None:
    """Raise ConfigError where a run would go on with another config than it began with; `train.epochs` may grow, and
    `distribute` may change, but for its shards and the parts of the pack.

    `asked` may leave open, by `auto`, what `stored` has resolved. `images` is the number of training images, which a
    resolved batch size does not exceed.
    """
    problems = []
    for key, before, now in _different(stored.model_dump(mode="json"), asked.model_dump(mode="json")):
        if key == "train.batch_size" and before == images and isinstance(now, int) and now > before:
            continue
        # on how many devices it goes on changes nothing but rounding
        if key.startswith("distribute.") and key not in ("distribute.shards", "distribute.pack_parts"):
            continue
        if key != "train.epochs":
            problems.append(f"{key}: the run has {before}, asked for is {now}")
        elif getattr(stored.model, "unfreeze", None) is not None:
            problems.append(f"{key}: the run has {before}, asked for is {now}; a run in two phases keeps their lengths")
        elif now < before:
            problems.append(f"{key}: the run has {before}, asked for is {now}; it can only grow")
    if problems:
        raise ConfigError(
            "\n".join([f"{run.folder}: cannot go on with another config", *(f"  {text}" for text in problems)]),
            "a run is one experiment: leave these keys as they were, or start a new one without --resume",
        )


def _different(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if now == "auto" or before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from _different(before.get(name), now.get(name), f"{key}.{name}".removeprefix("."))
    else:
        yield key, before, now


def earlier_run(key: str, folder: str) -> Run:
    """The finished run with a network that a config names under `key`. Raises ConfigError where there is none."""
    run = Run(Path(folder))
    if not run.record_file.is_file():
        raise ConfigError(f"{key}: {folder}: not a run folder, it has no run.json", "imgrec runs lists them")
    status = run.record.get("status")
    if status != "finished":
        raise ConfigError(
            f"{key}: {folder}: did not finish, its status is {status}", "choose another run, or train it to the end"
        )
    if not run.best_checkpoint.is_file():
        raise ConfigError(f"{key}: {folder}: has no network of its own", "name one of its trainings")
    return run


def check_earlier_runs(config: "Config", class_names: Sequence[str]) -> None:
    """Raise ConfigError where a run that a config begins with or learns from is none, or its classes are not those that
    it shall teach."""
    if config.model.start_from is not None:
        earlier_run("model.start_from", config.model.start_from)
    if config.teacher is not None:
        known = earlier_run("teacher.run", config.teacher.run).record["data"]["class_names"]
        lines = [f"teacher.run: {config.teacher.run}: its classes are not those of these images"]
        for text, names, others in (("not known to it", class_names, known), ("only there", known, class_names)):
            found = [name for name in names if name not in others]
            more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
            lines += [f"  {text}: {', '.join(found[:_NAMED])}{more}"] if found else []
        if len(lines) > 1:
            raise ConfigError(
                "\n".join(lines), "a teacher answers with its own classes: data.classes merges, renames and leaves out"
            )


def config_differences(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """Key, first and second value of every key that the configs of two runs do not share, as YAML; `-` for none.

    Lists of unequal length, such as layers, are told by what was put in and what was taken out.
    """
    from imgrec_cli.config import load_config, written

    def shown(value: Any) -> str:
        return "-" if value is _NOTHING else written(value)

    found = [load_config(run.resolved_config_file).model_dump(mode="json") for run in (first, second)]
    return [(key, shown(before), shown(now)) for key, before, now in _leaves(found[0], found[1], "")]


def _leaves(before: Any, now: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type"):
        for name in dict.fromkeys([*before, *now]):
            yield from _leaves(before.get(name, _NOTHING), now.get(name, _NOTHING), f"{key}.{name}".removeprefix("."))
    elif isinstance(before, list) and isinstance(now, list) and any(isinstance(one, dict) for one in [*before, *now]):
        texts = [[repr(one) for one in many] for many in (before, now)]
        for kind, i, i_end, j, j_end in SequenceMatcher(a=texts[0], b=texts[1], autojunk=False).get_opcodes():
            if kind != "equal" and i_end - i == j_end - j:
                for number in range(i_end - i):
                    yield from _leaves(before[i + number], now[j + number], f"{key}.{i + number}")
            elif kind != "equal":
                taken, put = before[i:i_end], now[j:j_end]
                yield f"{key}.{i}", taken or _NOTHING, put or _NOTHING
    else:
        yield key, before, now


def changed_images(run: Run, now: Sequence[RecordedExample]) -> list[str]:
    """What is not as it was when the run recorded its images, a line each; empty where all is."""
    before = {(e.split, e.label, e.path): e.digest for e in run.read_all_examples()}
    after = {(e.split, e.label, e.path): e.digest for e in now}
    lines = []
    for text, found in (
        ("gone", [key for key in before if key not in after]),
        ("new", [key for key in after if key not in before]),
        ("changed", [key for key in after if key in before and before[key] != after[key]]),
    ):
        if found:
            named = ", ".join(f"{path} ({split})" for split, _, path in found[:_NAMED])
            more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
            lines.append(f"{text}: {named}{more}")
    return lines


def refuse_other_images(run: Run, now: Sequence[RecordedExample]) -> None:
    """Raise DataError where the images are not those that the run began with."""
    lines = changed_images(run, now)
    if lines:
        raise DataError(
            "\n".join([f"{run.folder}: its images are not those it began with", *(f"  {line}" for line in lines)]),
            "put them back as they were, then resume; or train on the images as they are now without --resume",
        )


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How a second training of a run compares with the first; `second` is its folder.

    `images`: what changed of them, a line each. `metrics`: largest difference of any metric of any epoch, 0 for equal
    ones. `weights`, `state`: whether the best weights and all state at the end are equal to the bit. `machine`: what
    differs between the machines, where the bits may differ for that.
    """

    first: Path
    second: Path
    images: list[str]
    metrics: float
    weights: bool
    state: bool
    machine: list[str]

    @property
    def exact(self) -> bool:
        return not self.images and self.metrics == 0 and self.weights and self.state

    @property
    def good(self) -> bool:
        """Exact, or on another machine within the spread that rounding has there."""
        return self.exact or (bool(self.machine) and not self.images and self.metrics < TOLERANCE)


def compared(first: Run, second: Run) -> Reproduction:
    """Compare two finished runs of one config."""
    before, after = first.record, second.record
    gaps = [0.0]
    lines = [run.read_metrics() for run in (first, second)]
    for one, other in zip(*lines, strict=False):
        gaps += [abs(one[key] - other[key]) for key in one.keys() & other.keys() if key.startswith(("train/", "val/"))]
    if len(lines[0]) != len(lines[1]):
        gaps.append(math.inf)
    return Reproduction(
        first.folder,
        second.folder,
        changed_images(first, second.read_all_examples()),
        max(gaps),
        before["sha256"]["best"] == after["sha256"]["best"],
        before["sha256"]["last_state"] == after["sha256"]["last_state"],
        differences(before, machine_part(after)),
    )
