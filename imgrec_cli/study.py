"""A search as a study of Optuna that any number of processes and hosts work on: which trial is next, what became of it.

The study lies in a run's folder: `journal.log` is Optuna's, `study.json` says what is searched, `trials/<n>/` are runs.
"""

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imgrec_cli.atomic import write_json
from imgrec_cli.config import SearchRange, Space, path_from
from imgrec_cli.errors import InputError, MissingExtraError, install_command
from imgrec_cli.rundir import Run

SECONDS_BETWEEN_BEATS = 10.0
SILENT_SECONDS = 60.0  # of a process on another host, after which it is taken for dead
TRIALS = 20
_STUDY = "search"


class Pruned(Exception):
    """The trial is hopeless: its training ends here."""


@dataclass
class Trial:
    """One training of a search: what it sets, the run that it is written to, and how Optuna knows it."""

    number: int
    settings: dict[str, Any]
    run: Run
    handle: Any = field(repr=False)
    reported: int = 0

    def report(self, values: Sequence[float]) -> None:
        """Tell the metric after every epoch so far, those that another process trained among them. Raises Pruned where
        the trial is worse than most others at that point."""
        for epoch in range(self.reported + 1, len(values) + 1):
            self.handle.report(values[epoch - 1], epoch)
        self.reported = len(values)
        if self.handle.should_prune():
            raise Pruned


@dataclass(frozen=True, slots=True)
class Tried:
    """One line of the table: a trial that is over, or under way. `value` is the metric of its best epoch."""

    number: int
    state: str
    value: float | None
    seconds: float | None
    settings: dict[str, Any]


def require_optuna() -> None:
    """Raise MissingExtraError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise MissingExtraError("searching needs optuna, which is not installed", install_command("tune"))


class Study:
    """The study in the folder of a run. `metric` is what a trial is judged by (`config.learning.MonitoredMetric`)."""

    def __init__(self, run: Run) -> None:
        import optuna
        from optuna.storages import journal

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.run = run
        told = json.loads(_study_file(run).read_text(encoding="utf-8"))
        base = Path(os.path.abspath(run.folder / told["base"]))  # noqa: PTH100 - a link stays a link
        text = run.config_file.read_text(encoding="utf-8")
        self.space = Space(text, told["name"], base, tuple(told["overrides"]))
        config = self.space.config
        self.metric: str = config.train.early_stopping.metric if config.train.early_stopping else "val/accuracy"
        self.seed = config.seed
        self.epochs = config.train.epochs
        file = str(run.folder / "journal.log")
        # links need a privilege on Windows, and exclusive opening is unsafe on old network file systems
        lock = (journal.JournalFileOpenLock if os.name == "nt" else journal.JournalFileSymlinkLock)(file)
        with self._alone():
            self._study = optuna.create_study(
                study_name=_STUDY,
                storage=optuna.storages.JournalStorage(journal.JournalFileBackend(file, lock)),
                direction="minimize" if self.metric == "val/loss" else "maximize",
                # the first fifth of the epochs says little
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1 + max(1, self.epochs // 5)),
                load_if_exists=True,
            )
            if not self._study.get_trials(deepcopy=False):
                self._queue_the_config_itself()

    @classmethod
    def begun(cls, run: Run, space: Space, trials: int | None) -> "Study":
        """The study of this space in the run's folder, made where there is none; with `trials` it is to have as many.

        Raises InputError where the folder holds another search.
        """
        told = {"name": space.name, "base": path_from(run.folder, space.base), "overrides": list(space.overrides)}
        with _lock(run):
            if not _study_file(run).exists():
                run.config_file.write_text(space.text, encoding="utf-8", newline="\n")
                write_json(_study_file(run), {**told, "trials": trials or TRIALS})
        found = json.loads(_study_file(run).read_text(encoding="utf-8"))
        asked = [space.text, told["base"], told["overrides"]]
        if asked != [run.config_file.read_text(encoding="utf-8"), found["base"], found["overrides"]]:
            raise InputError(
                f"{run.folder}: searches with another config or other --set",
                "name another folder with --study, or go on with this search: imgrec tune --study "
                f"{run.folder} without a config",
            )
        return cls(run)

    @property
    def trials(self) -> int:
        """How many trials the search is to have."""
        return int(json.loads(_study_file(self.run).read_text(encoding="utf-8"))["trials"])

    def extend(self, trials: int) -> None:
        """Let the search have this many trials."""
        with self._alone():
            told = json.loads(_study_file(self.run).read_text(encoding="utf-8"))
            write_json(_study_file(self.run), {**told, "trials": trials})

    def settle(self, key: str, value: str) -> None:
        """Let all trials have what an `auto` was found to be, where the search does not decide it."""
        if key not in self.space.ranges:
            self.space = Space(
                self.space.text, self.space.name, self.space.base, (*self.space.overrides, f"{key}={value}")
            )

    @contextmanager
    def next_trial(self) -> Iterator["Trial | None"]:
        """The next trial, held by this process in the block; None where all are over or in other hands.

        Trials of processes that died are queued again first; they go on from their checkpoints.
        """
        import optuna

        with ExitStack() as stack:
            with self._alone():
                self._queue_orphans()
                states = [trial.state for trial in self._study.get_trials(deepcopy=False)]
                wanted = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
                taken = sum(state in (*wanted, optuna.trial.TrialState.RUNNING) for state in states)
                if taken >= self.trials:
                    trial = None
                else:
                    trial = self._asked(len(states))
                    stack.enter_context(trial.run.held())
                    stack.enter_context(_beating(trial.run))
            yield trial

    def others_at_work(self) -> int:
        """Trials that are under way in other processes."""
        return sum(one.state == "running" for one in self.table())

    def _asked(self, known: int) -> Trial:
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # seeded by the trial, or processes that start together would draw the same values
            self._study.sampler = optuna.samplers.TPESampler(
                seed=(self.seed * 100_003 + known) % 2**32,
                n_startup_trials=min(10, max(2, self.trials // 3)),
                constant_liar=True,
            )
        handle = self._study.ask()
        handle.set_user_attr("host", socket.gethostname())
        settings = {}
        for key, values in self.space.ranges.items():
            if not isinstance(values, SearchRange):
                # by number: Optuna takes plain values only, and a choice may be a section
                chosen = handle.suggest_categorical(key, [str(number) for number in range(len(values.choices))])
                settings[key] = values.choices[int(chosen)]
            elif isinstance(values.low, int) and isinstance(values.high, int):
                settings[key] = handle.suggest_int(key, values.low, values.high, log=values.log)
            else:
                settings[key] = handle.suggest_float(key, float(values.low), float(values.high), log=values.log)
        run = self.run_of(handle.number)
        before = handle.user_attrs.get("instead_of")
        if before is not None and self.run_of(before).folder.is_dir() and not run.folder.exists():
            self.run_of(before).folder.rename(run.folder)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "checkpoints").mkdir(exist_ok=True)
        return Trial(handle.number, settings, run, handle)

    def run_of(self, number: int) -> Run:
        """The run of a trial."""
        return Run(self.run.folder / "trials" / str(number))

    def end(self, trial: Trial, value: float | None, state: str, why: str = "") -> None:
        """Tell what became of a trial: `tried`, `pruned`, or `failed` where its training could not go on or its values
        do not go together. Of all trials that are over, the best alone keeps its weights."""
        import optuna

        states = optuna.trial.TrialState
        if why:
            trial.handle.set_user_attr("error", why)
        with self._alone():
            if state == "tried" and value is not None:
                self._study.tell(trial.handle, value)
            else:
                trial.handle.set_user_attr("failed", state == "failed")
                self._study.tell(trial.handle, state=states.PRUNED)
            best = self.best
            for one in self.table():
                if one.state != "running" and (best is None or one.number != best.number):
                    _drop_weights(self.run_of(one.number))

    @property
    def best(self) -> Tried | None:
        """The best trial so far; None while none is over."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[Tried]:
        """The trials that were trained to their end, best first."""
        tried = [one for one in self.table() if one.state == "tried" and one.value is not None]
        sign = 1 if self.metric == "val/loss" else -1
        return sorted(tried, key=lambda one: (sign * (one.value or 0.0), one.number))

    def table(self) -> list[Tried]:
        """All trials in the order in which they began, without those that a later one stands in for."""
        import optuna

        names = {
            optuna.trial.TrialState.COMPLETE: "tried",
            optuna.trial.TrialState.PRUNED: "pruned",
            optuna.trial.TrialState.RUNNING: "running",
        }
        rows = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state in names:
                state = "failed" if trial.user_attrs.get("failed") else names[trial.state]
                value = trial.value if state == "tried" else _best(trial.intermediate_values.values(), self.metric)
                duration = trial.duration.total_seconds() if trial.duration else None
                rows.append(Tried(trial.number, state, value, duration, self._settings(trial.params)))
        return rows

    def courses(self) -> dict[int, dict[int, float]]:
        """Metric by epoch of every trial."""
        return {trial.number: dict(trial.intermediate_values) for trial in self._study.get_trials(deepcopy=False)}

    def importances(self) -> dict[str, float]:
        """How much of the metric's variance over the trials each key explains; empty where too few are over."""
        import optuna

        with suppress(ValueError, RuntimeError, ImportError):  # ImportError: it takes scikit-learn
            found: dict[str, float] = optuna.importance.get_param_importances(self._study)
            return found
        return {}

    def _settings(self, parameters: dict[str, Any]) -> dict[str, Any]:
        ranges = self.space.ranges
        return {
            key: value if isinstance(ranges[key], SearchRange) else ranges[key].choices[int(value)]  # type: ignore[union-attr]
            for key, value in parameters.items()
        }

    def _queue_the_config_itself(self) -> None:
        """Let the first trial be the config as it is written, as far as its values can be searched."""
        found: dict[str, Any] = {}
        for key, values in self.space.ranges.items():
            written = self.space.written_value(key)
            if not isinstance(values, SearchRange):
                places = [n for n, choice in enumerate(values.choices) if choice == written]
                found |= {key: str(places[0])} if places else {}
            elif isinstance(written, int | float) and values.low <= written <= values.high:
                found[key] = written
        if found:
            self._study.enqueue_trial(found)

    def _queue_orphans(self) -> None:
        """Queue the trials again whose processes died."""
        import optuna

        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is optuna.trial.TrialState.RUNNING and self._is_orphan(trial):
                # told through the storage: the process that asked for the trial is gone
                self._study._storage.set_trial_state_values(trial._trial_id, optuna.trial.TrialState.FAIL)
                self._study.enqueue_trial(trial.params, user_attrs={"instead_of": trial.number})

    def _is_orphan(self, trial: Any) -> bool:
        run = self.run_of(trial.number)
        if run.is_held():  # locks of other hosts are seen on some network file systems, on others not
            return False
        if trial.user_attrs.get("host", socket.gethostname()) == socket.gethostname():
            return True
        beat = _beat_file(run)
        return not beat.exists() or self._now() - beat.stat().st_mtime > SILENT_SECONDS

    def _now(self) -> float:
        """The time by the clock of the file system, which hosts share; their own may differ."""
        clock = self.run.folder / ".clock"
        clock.touch()
        return clock.stat().st_mtime

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with _lock(self.run):
            yield


def _study_file(run: Run) -> Path:
    return run.folder / "study.json"


def _beat_file(run: Run) -> Path:
    return run.folder / ".beat"


def _lock(run: Run) -> Any:
    from filelock import FileLock

    return FileLock(run.folder / ".study.lock")


def finishing(run: Run) -> Any:
    """A lock for the one process that judges the winner."""
    from filelock import FileLock

    return FileLock(run.folder / ".finish.lock")


@contextmanager
def _beating(run: Run) -> Iterator[None]:
    """Touch a file again and again, so that processes on other hosts see that this one lives."""
    over = threading.Event()

    def beat() -> None:
        with suppress(OSError):
            _beat_file(run).touch()

    def go_on() -> None:
        while not over.wait(SECONDS_BETWEEN_BEATS):
            beat()

    beat()  # at once: a thread may begin later, and until then this process would look dead
    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(OSError):
            _beat_file(run).unlink(missing_ok=True)


def _best(values: Any, metric: str) -> float | None:
    found: Sequence[float] = list(values)
    return None if not found else min(found) if metric == "val/loss" else max(found)


def _drop_weights(run: Run) -> None:
    """Of a trial that is not the best, keep config, metrics and record."""
    run.drop_checkpoints()
    run.best_checkpoint.unlink(missing_ok=True)
    run.forget_images()


def wait_for_others() -> None:
    """Let a moment pass while other processes end their trials."""
    time.sleep(1.0)


def as_rows(table: Sequence[Tried]) -> list[dict[str, Any]]:
    """The table as plain values."""
    return [asdict(one) for one in table]
