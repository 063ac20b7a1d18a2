"""The verb tune: trials, one after another, and the winner judged."""

import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.api.preparing import loaded_images, set_up
from imgrec_cli.api.running import machine_facts, record_begin, resumed, stoppable, utc
from imgrec_cli.atomic import write_csv, write_text
from imgrec_cli.errors import ConfigError, InputError, Interrupted, ParityError, TrainingError
from imgrec_cli.origin import check_earlier_runs, git_record, without_home
from imgrec_cli.progress import Advance, EpochEnd, Event, Listener, Note, Step, Warn, ignore
from imgrec_cli.rundir import RUNS_FOLDER, Run

if TYPE_CHECKING:
    from imgrec_cli.config import Space
    from imgrec_cli.dataset import Dataset, Listing
    from imgrec_cli.study import Study, Trial
    from imgrec_cli.training.runtime import Machine
    from imgrec_cli.training.stop import Stop


def tune(
    config: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    study: Path | str | None = None,
    trials: int | None = None,
    runs: Path = Path(RUNS_FOLDER),
    on_event: Listener = ignore,
) -> Run:
    """Train with other values of the keys in the config's `search` section, and return the run of the whole search.

    `study` is its folder, a new one below `runs` by default; a search that lies there is gone on with, by any number of
    processes at once, and then needs no config. `trials` are how many there are to be in all. Trials are trained and
    judged on validation images; the winner alone is exported and judged on test images. Raises the kinds of
    imgrec_cli.errors; what is over when it stops stays.
    """
    from imgrec_cli.config import Space
    from imgrec_cli.study import Study, require_optuna

    require_optuna()
    if config is None and study is None:
        raise InputError("no config is given", "name a YAML file with a search section, or a search: --study DIR")
    with stoppable() as stop:
        space = None if config is None else Space.read(Path(config), overrides)
        if space is None and overrides:
            raise InputError("a search goes on as it began", "leave --set out, or name the config again")
        run = _folder_of_search(space, None if study is None else Path(study), runs)
        try:
            found = Study(run) if space is None else Study.begun(run, space, trials)
            if trials is not None and trials != found.trials:
                found.extend(trials)
            if not run.record_file.exists():
                run.update_record(
                    name=run.name,
                    status="running",
                    started=utc(time.time()),
                    command=without_home(shlex.join(["imgrec", "tune", str(config), "--study", str(run.folder)])),
                    git=git_record(None if config is None else Path(config)),
                    seed=found.seed,
                    search={"trials": found.trials, "metric": found.metric},
                )
            on_event(Note(f"search {run.folder}: {found.trials} trials by {found.metric}"))
            with run.searched():
                _search(found, stop, on_event)
                _judge_the_winner(found, stop, on_event)
        except InputError:
            if study is None and not run.trials():
                shutil.rmtree(run.folder, ignore_errors=True)  # nothing has begun
            raise
        except (Interrupted, KeyboardInterrupt) as error:
            if not stop.is_asked or stop.at_once:
                raise
            told = error.message if isinstance(error, Interrupted) else stop.error().message
            raise Interrupted(told, f"to go on: imgrec tune --study {run.folder}") from None
    return run


def _folder_of_search(space: "Space | None", folder: Path | None, runs: Path) -> Run:
    if folder is None:
        run = Run.create(runs, Path(space.name).stem if space else "search")
        (run.folder / "checkpoints").rmdir()
        return run
    if space is None and not (folder / "study.json").is_file():
        raise InputError(f"{folder}: holds no search", "begin one: imgrec tune CONFIG --study DIR")
    if (folder / "run.json").is_file() and not (folder / "study.json").is_file():
        raise InputError(f"{folder}: a run that is no search", "name another folder with --study")
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder)


def _search(study: "Study", stop: "Stop", on_event: Listener) -> None:
    """Take one trial after another until there are as many as wanted, those of other processes among them."""
    from imgrec_cli.config import check_class_names, check_weights
    from imgrec_cli.dataset import scan
    from imgrec_cli.study import wait_for_others
    from imgrec_cli.training.runtime import forget_models

    config = study.space.config
    listing = scan(config.data)
    check_weights(config)
    check_class_names(config, listing.class_names)
    check_earlier_runs(config, listing.class_names)
    _, machine, decided = set_up(config, on_event, listing)
    study.settle("train.precision", decided.train.precision)
    study.settle("train.batch_size", str(decided.train.batch_size))
    images: dict[str, Dataset] = {}
    told = 0
    while True:
        with study.next_trial() as trial:
            if trial is not None:
                _try(study, trial, listing, machine, images, stop, on_event)
                forget_models()
                continue
        others = study.others_at_work()
        if not others:
            return
        if others != told:
            on_event(Note(f"waiting for {others} trials of other processes"))
            told = others
        wait_for_others()


def _try(
    study: "Study",
    trial: "Trial",
    listing: "Listing",
    machine: "Machine",
    images: "dict[str, Dataset]",
    stop: "Stop",
    on_event: Listener,
) -> None:
    """One trial: trained and judged on validation images; `images` keeps those that the next ones may need too."""
    from imgrec_cli.config import written
    from imgrec_cli.study import Pruned
    from imgrec_cli.training.fit import fit
    from imgrec_cli.training.runtime import out_of_memory_errors

    started, run = time.time(), trial.run
    value, state, why, best_epoch = None, "pruned", "", 0

    def listen(event: Event) -> None:
        if isinstance(event, EpochEnd):
            trial.report([line[study.metric] for line in run.read_metrics()])
        elif isinstance(event, Step | Advance) or (isinstance(event, Warn) and trial.number == 0):
            on_event(event)

    try:
        config = study.space.of_trial(trial.settings)
        _, machine, config = set_up(config, ignore, listing)
        if not run.record_file.exists():
            facts = {"precision": config.train.precision, **machine_facts(machine)}
            record_begin(run, config, None, (), started, facts)
        size = repr(config.image)
        dataset, config = loaded_images(config, listing, machine, run, listen, images.get(size))
        images[size] = dataset
        best_epoch = fit(config, dataset, run, stop, listen).best_epoch
        value, state = run.read_metrics()[best_epoch - 1][study.metric], "tried"
    except Pruned:
        pass
    except (ConfigError, TrainingError) as error:
        state, why = "failed", error.message.splitlines()[0]
    except out_of_memory_errors():
        state, why = "failed", "a batch does not fit into the memory of this device"
    seconds = round(time.time() - started, 1)
    run.update_record(status=state, error=why or None, resumable=False, seconds=seconds, best_epoch=best_epoch)
    study.end(trial, value, state, why)
    shown = ", ".join(f"{key}: {written(value)}" for key, value in trial.settings.items())
    result = f"{study.metric} {value:.4f}" if value is not None else state + (f" ({why})" if why else "")
    on_event(Note(f"trial {trial.number}: {result}, {seconds:.1f} s; {shown}"))


def _judge_the_winner(study: "Study", stop: "Stop", on_event: Listener) -> None:
    """Export the best trial, judge it on the test images, and write what was found; one process does."""
    from imgrec_cli.config import resolved_yaml
    from imgrec_cli.reporting.search import write_search_report
    from imgrec_cli.study import as_rows, finishing

    run = study.run
    with finishing(run):
        ranked, table = study.ranked(), study.table()
        if not ranked:
            reasons = {study.run_of(one.number).record.get("error") for one in table if one.state == "failed"}
            told = "; ".join(sorted(str(reason) for reason in reasons if reason)[:3])
            raise TrainingError(f"{run.folder}: none of {len(table)} trials ended well" + (f": {told}" if told else ""))
        for best in ranked:
            winner = study.run_of(best.number)
            if winner.record["status"] == "finished":
                break
            on_event(Note(f"trial {best.number} is the best; it alone is judged on test images"))
            try:
                resumed(winner, None, (), stop, on_event)
            except ParityError as error:  # such as weights grown so large that rounding shows
                on_event(Warn(f"trial {best.number} cannot be shipped, the next best is taken: {error.message}"))
            else:
                break
        else:
            raise ParityError(f"{run.folder}: none of {len(ranked)} trials can be shipped")
        write_text(run.folder / "best.yaml", resolved_yaml(study.space.of_trial(best.settings), run.folder))
        keys = list(study.space.ranges)
        write_csv(
            run.folder / "trials.csv",
            ["trial", "state", study.metric, "seconds", *keys],
            (
                [one.number, one.state, one.value, one.seconds, *(one.settings.get(key) for key in keys)]
                for one in table
            ),
        )
        found = {
            "trials": len(table),
            "metric": study.metric,
            "best": best.number,
            "value": best.value,
            "settings": best.settings,
        }
        run.update_record(status="finished", scores=winner.record["scores"], search=found)
        write_search_report(run, keys, as_rows(table), study.courses(), study.importances(), study.metric)
