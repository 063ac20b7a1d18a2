"""Before a training: the images are listed and read, the backend is started, every `auto` is resolved."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgrec_cli.atomic import write_csv, write_json, write_text
from imgrec_cli.errors import InputError
from imgrec_cli.origin import refuse_other_images
from imgrec_cli.progress import Listener, Note
from imgrec_cli.rundir import RecordedExample, Run

if TYPE_CHECKING:
    from imgrec_cli.config import Config
    from imgrec_cli.dataset import Dataset, Listing, Parts
    from imgrec_cli.training.job import Job
    from imgrec_cli.training.runtime import Machine


def loaded_config(given: "Config | Path | str", overrides: Sequence[str]) -> "tuple[Config, Path | None]":
    """A config, and the path of its file where it was given as one."""
    from imgrec_cli.config import Config, load_config

    if not isinstance(given, Config):
        return load_config(Path(given), overrides), Path(given)
    if overrides:
        raise InputError("overrides belong to a config file", "give them to load_config, or give the file's path")
    return given, None


def prepared(config: "Config", on_event: Listener) -> "tuple[Dataset, Config]":
    """The images, and the config with every `auto` resolved, outside of a run, which works on one device."""
    alone = config.distribute.model_copy(update={"strategy": "none", "mesh": None, "layout": {}})
    config = config.model_copy(update={"distribute": alone})
    listing, machine, config = set_up(config, on_event)
    return loaded_images(config, listing, machine, None, on_event)


def set_up(
    config: "Config", on_event: Listener, listing: "Listing | None" = None, job: "Job | None" = None
) -> "tuple[Listing, Machine, Config]":
    """List the images, start the backend, and resolve every `auto` that the machine decides; the first thing said is
    device and precision. What was measured on several hosts is decided by the one that leads the `job`."""
    from imgrec_cli.config import BackboneModel, check_class_names, check_weights
    from imgrec_cli.dataset import scan
    from imgrec_cli.training import runtime

    listing = scan(config.data) if listing is None else listing
    check_weights(config)
    check_class_names(config, listing.class_names)
    machine = runtime.start(config.runtime)
    processes = 1 if job is None else job.count
    strategy = runtime.strategy(config, machine, processes)
    if strategy != "none":
        machine = runtime.spread(machine, processes)
    from imgrec_cli.training.families import weights_file
    from imgrec_cli.training.speed import choose_batch_size, choose_precision

    if isinstance(config.model, BackboneModel):
        weights_file(config.model, config.image)  # a download, or why there is none, comes before all else

    classes = len(listing.class_names)
    images = sum(example.split == "train" for example in listing.examples)
    precision, reason = choose_precision(config, classes, images, machine)
    config = config.model_copy(
        update={
            "train": config.train.model_copy(update={"precision": precision}),
            "runtime": config.runtime.model_copy(
                update={
                    "device": machine.device,
                    "threads": "auto" if machine.backend == "jax" else machine.threads,  # JAX has no setting
                    "backend": machine.backend,
                    "deterministic": machine.deterministic,
                }
            ),
            "distribute": config.distribute.model_copy(update={"strategy": strategy}),
        }
    )
    first_line = f"{machine.name}, {precision} ({reason}), Keras on {machine.backend}"
    on_event(Note("; ".join([first_line, *machine.warnings])))
    config = choose_batch_size(config, classes, images, on_event)
    if job is None:
        return listing, machine, config
    chosen = json.loads(job.said_by_leader(json.dumps([config.train.precision, config.train.batch_size])))
    train = config.train.model_copy(update={"precision": chosen[0], "batch_size": chosen[1]})
    return listing, machine, config.model_copy(update={"train": train})


def loaded_images(
    config: "Config",
    listing: "Listing",
    machine: "Machine",
    run: Run | None,
    on_event: Listener,
    dataset: "Dataset | None" = None,
    job: "Job | None" = None,
) -> "tuple[Dataset, Config]":
    """Read the images, resolve what they decide, and record both in the run; a run that has them recorded is held to
    them. The processes of a `job` may share the work. Raises what says before the start that parts, disk or memory will
    not do."""
    from imgrec_cli.config import Standardize, resolved_yaml
    from imgrec_cli.dataset import load_dataset
    from imgrec_cli.training.input import require_parts

    if dataset is None:
        parts = None if job is None else _parts(config, listing, job)
        dataset = load_dataset(config.data, config.image, config.seed, on_event, listing=listing, parts=parts)
    image = config.image.model_copy(update={"range": dataset.spec.range})
    if config.image.standardize == "auto":
        mean, deviation = dataset.pixel_statistics()
        image = image.model_copy(update={"standardize": Standardize(mean=mean, deviation=deviation)})
    batch_size = min(config.train.images_per_step, len(dataset.rows("train")))
    train = config.train.model_copy(update={"batch_size": batch_size})
    config = config.model_copy(update={"image": image, "train": train})
    require_parts(config, dataset)
    if run is not None:
        from imgrec_cli.training.needs import check_disk, check_memory

        check_disk(config, len(dataset.class_names), len(dataset.rows("train")), run.folder, on_event)
        if machine.device == "cpu":
            check_memory(config, len(dataset.class_names), on_event)
        if "data" in run.record:
            refuse_other_images(run, _recorded(dataset))
        else:
            write_text(run.resolved_config_file, resolved_yaml(config, run.folder))
            _record_images(run, dataset)
    return dataset, config


def _parts(config: "Config", listing: "Listing", job: "Job") -> "Parts | None":
    """The parts of the pack that this process makes; None where it makes all. Raises InputError where the processes
    were given different things: none would find its own in what the others say."""
    from imgrec_cli.training.distribute import shared_parts
    from imgrec_cli.training.job import fingerprint

    job.require_same("another config", fingerprint(config), "start the same imgrec with the same config on every host")
    parts = shared_parts(config, job)
    if parts is not None:
        listed = hashlib.blake2b()
        for example in listing.examples:
            listed.update(repr((example.path, example.label, example.split)).encode())
        hint = "every host has to see the same files, whole and unchanged"
        job.require_same("other images", listed.hexdigest(), hint)
    return parts


def _recorded(dataset: "Dataset") -> list[RecordedExample]:
    return [
        RecordedExample(e.split, dataset.class_names[e.label], e.path, e.file, dataset.digest(e))
        for e in dataset.examples
    ]


def _record_images(run: Run, dataset: "Dataset") -> None:
    run.write_examples(_recorded(dataset))
    if dataset.skipped:
        write_csv(run.skipped_file, ("path", "reason"), ((s.path, s.reason) for s in dataset.skipped))
    run.audit_file.parent.mkdir(exist_ok=True)
    write_json(run.audit_file, [finding.as_dict(dataset.found_names) for finding in dataset.findings])
    run.update_record(
        data={
            "fingerprint": dataset.fingerprint,
            "class_names": list(dataset.class_names),
            "images": {split: len(dataset.rows(split)) for split in ("train", "validation", "test")},
            "skipped": len(dataset.skipped),
        }
    )
