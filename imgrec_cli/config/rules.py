"""What no single key can see: combinations that cannot work. What is merely unwise is not refused."""

import re
from collections.abc import Callable, Iterator

from imgrec_cli.config.augmentation import Cutmix, Erase, Fill, Mixup, RandAugment, Rotate, Shear, Shift, Zoom
from imgrec_cli.config.document import KeyPath
from imgrec_cli.config.images import Standardize
from imgrec_cli.config.learning import CosineSchedule, LearningRate, PlateauSchedule
from imgrec_cli.config.networks import BackboneModel, LayersModel, Residual
from imgrec_cli.config.sections import Config, SearchRange
from imgrec_cli.config.shapes import BACKBONES, DoesNotFitError, Shape, after
from imgrec_cli.storage import is_url
from imgrec_cli.wording import count

NOT_SEARCHED = ("version", "seed", "data", "decision", "runtime", "distribute", "export", "search")

LARGEST_SIDE = 4096  # of an image
Found = Iterator[tuple[KeyPath, str]]


def images_are_named(config: Config) -> Found:
    """Training images come from `folder`, `train` or `manifest`."""
    data = config.data
    if data.folder is None and data.train is None and data.manifest is None:
        given = [key for key in ("validation", "test") if getattr(data, key) is not None]
        for key in given:
            yield ("data", key), "needs data.train beside it"
        if not given:
            yield ("data",), "names no images; set data.folder to a folder with one folder per class"


def folder_stands_alone(config: Config) -> Found:
    """`folder` is the whole tree; `train`, `validation` and `test` are its parts."""
    for key in ("train", "validation", "test"):
        if config.data.folder is not None and getattr(config.data, key) is not None:
            yield (
                ("data", key),
                "cannot stand beside data.folder; keep either folder, or train with validation and test",
            )


def urls_hold_images_and_no_secrets(config: Config) -> Found:
    """Images may lie behind a URL, which goes into runs and messages: it holds nothing that opens a door."""
    data = config.data
    places = {"folder": data.folders, "train": (data.train,), "validation": (data.validation,), "test": (data.test,)}
    for key, named in places.items():
        for place in named:
            if place is not None and is_url(place) and ("?" in place or "@" in place.split("/")[2]):
                yield (
                    ("data", key),
                    "must hold no password, key or signature; who may read is settled by the environment, such as "
                    "AWS_PROFILE for s3://",
                )
    for key in ("manifest", "corrections"):
        if is_url(getattr(data, key) or ""):
            yield ("data", key), "must lie on this machine; images alone may lie behind a URL"


def split_leaves_training_images(config: Config) -> Found:
    """Shares that are cut off must leave something; those of given folders are not cut."""
    data = config.data
    validation = data.split.validation if data.validation is None else 0
    test = data.split.test if data.test is None and data.split.fold is None else 0
    if validation + test > 1 - 1e-9:
        yield ("data", "split"), f"validation and test take {validation + test:.0%}, which leaves nothing to train on"


def fold_is_one_of_the_parts(config: Config) -> Found:
    """A fold is cut from the training images, and is one of as many as there are."""
    fold = config.data.split.fold
    if fold is None:
        return
    if fold.number > fold.of:
        yield ("data", "split", "fold", "number"), f"must be at most the {fold.of} of `of`, got {fold.number}"
    if config.data.test is not None:
        yield ("data", "split", "fold"), "cannot stand beside data.test: a fold is cut from the training images"


def validation_chooses_the_model(config: Config) -> Found:
    """The best weights are those with the best validation score, so there must be one."""
    data = config.data
    if data.train is not None and data.validation is None and data.split.validation == 0:
        yield (
            ("data", "split", "validation"),
            "must be above 0% unless data.validation is given; validation images choose the best weights",
        )


def classes_are_used_once(config: Config) -> Found:
    """A class is merged, included or excluded, not two of these; a list names it once."""
    classes = config.data.classes
    where: dict[str, str] = {}
    for target, members in classes.merge.items():
        for index, name in enumerate(members):
            if name in where:
                yield ("data", "classes", "merge", target, index), f"{name} is merged into {where[name]} already"
            where.setdefault(name, target)
    for key, names in (("include", classes.include or ()), ("exclude", classes.exclude), ("other", classes.other)):
        for index, name in enumerate(names):
            if name in where and name not in classes.merge:
                yield ("data", "classes", key, index), f"{name} is merged; name the class it becomes, {where[name]}"
            if name in names[:index]:
                yield ("data", "classes", key, index), f"{name} stands here twice"
            if key == "exclude" and name in (classes.include or ()):
                yield ("data", "classes", key, index), f"{name} is included as well; keep one of them"


def fill_has_a_use(config: Config) -> Found:
    """There is one `fill`, beside a step that looks past the edge."""
    fills = [index for index, step in enumerate(config.augment) if isinstance(step, Fill)]
    for index in fills[1:]:
        yield ("augment", index), f"fill stands here a second time; augment[{fills[0]}] says it already"
    if fills and not any(isinstance(step, Rotate | Shift | Shear | Zoom | RandAugment) for step in config.augment):
        yield ("augment", fills[0]), "fill has nothing to do without rotate, shift, shear, zoom or randaugment"


def shifts_say_how_far_once(config: Config) -> Found:
    """A shift is by whole `pixels`, fewer than the picture has, or by fractions of `height` and `width`."""
    for index, step in enumerate(config.augment):
        if not isinstance(step, Shift) or not step.pixels:
            continue
        if step.height or step.width:
            yield ("augment", index), "says pixels and height or width; keep one of the two"
        if step.pixels >= min(config.image.size):
            smallest = min(config.image.size)
            yield ("augment", index, "pixels"), f"must be below the {smallest} pixels of image.size, got {step.pixels}"


def fill_value_is_used(config: Config) -> Found:
    """A `value` belongs to `mode: constant`."""
    for index, step in enumerate(config.augment):
        if isinstance(step, Fill) and step.value != 0 and step.mode != "constant":
            yield ("augment", index, "value"), f"is used with mode: constant only, got mode: {step.mode}"


def pictures_are_mixed_once(config: Config) -> Found:
    """`mixup` and `cutmix` share the pictures between them, and no step that draws for all stands there twice."""
    seen: dict[str, int] = {}
    for index, step in enumerate(config.augment):
        if isinstance(step, Mixup | Cutmix | Erase | RandAugment) and step.type in seen:
            yield ("augment", index), f"{step.type} stands here a second time; keep augment[{seen[step.type]}] or this"
        seen.setdefault(step.type, index)
    mixing = [step for step in config.augment if isinstance(step, Mixup | Cutmix)]
    if len({step.type for step in mixing}) == len(mixing) and sum(step.share for step in mixing) > 1 + 1e-9:
        index = config.augment.index(mixing[-1])
        yield (
            ("augment", index, "share"),
            "mixup and cutmix change different pictures: their shares are at most 1 together",
        )


def teacher_sees_single_pictures(config: Config) -> Found:
    """A teacher answers for every picture by itself."""
    for index, step in enumerate(config.augment):
        if config.teacher is not None and isinstance(step, Mixup | Cutmix):
            yield ("augment", index), f"{step.type} cannot stand beside teacher, which answers every picture by itself"


def statistics_match_channels(config: Config) -> Found:
    """Means and deviations are given per channel."""
    statistics, image = config.image.standardize, config.image
    if isinstance(statistics, Standardize):
        for key in ("mean", "deviation"):
            got = len(getattr(statistics, key))
            if got != image.channels:
                yield (
                    ("image", "standardize", key),
                    f"needs {count(image.channels, 'number')} for image.color: {image.color}, got {got}",
                )


def layers_fit_each_other(config: Config) -> Found:
    """Maps become a row once, before the first dense layer; told without regard to the image's size."""
    yield from _misfits(config, (10**9, 10**9, config.image.channels))


def layers_fit_the_image(config: Config) -> Found:
    """No kernel or window is larger than the map that reaches it."""
    if not list(layers_fit_each_other(config)):
        yield from _misfits(config, (*config.image.size, config.image.channels))


def backbone_has_what_it_needs(config: Config) -> Found:
    """A backbone brings its own scaling, sees color, and is frozen only with weights worth keeping."""
    model, image = config.model, config.image
    if not isinstance(model, BackboneModel):
        return
    widths = [width for name, width in BACKBONES if name == model.name]
    smallest = BACKBONES[model.name, 1.0].smallest
    if model.width not in widths:
        yield ("model", "width"), f"{model.name} has the widths {', '.join(f'{w:g}' for w in widths)}"
    if image.standardize != "off":
        yield ("image", "standardize"), f"model.name: {model.name} scales pixels itself; leave it off"
    if image.color != "rgb":
        yield (
            ("image", "color"),
            f"model.name: {model.name} takes three channels; use color: rgb, gray images are repeated",
        )
    if min(image.size) < smallest:
        needs = f"needs at least {smallest} by {smallest} pixels, got {list(image.size)}"
        yield ("image", "size"), f"model.name: {model.name} {needs}"
    if model.freeze and model.weights == "none" and model.start_from is None:
        yield ("model", "freeze"), "a frozen backbone without weights learns nothing; give model.weights a file"
    if model.start_from is not None and model.weights != "none":
        yield (
            ("model", "weights"),
            "cannot stand beside model.start_from, which gives the backbone its weights; keep one",
        )
    if model.unfreeze is not None and not model.freeze:
        yield ("model", "unfreeze"), "is a second phase after a frozen one; set model.freeze: true"


def schedule_can_be_followed(config: Config) -> Found:
    """A schedule ends no higher than it was, and its warm-up leaves something of the training."""
    rates: list[tuple[LearningRate, KeyPath, int]] = [
        (config.optimizer.learning_rate, ("optimizer", "learning_rate"), config.train.epochs)
    ]
    if isinstance(config.model, BackboneModel) and (second := config.model.unfreeze) is not None:
        rates.append((second.learning_rate, ("model", "unfreeze", "learning_rate"), second.epochs))
    for rate, where, epochs in rates:
        match rate:
            case CosineSchedule(peak=most, end=end) | PlateauSchedule(start=most, end=end) if end > most:
                yield (*where, "end"), f"must not be above the {most:g} that it falls from, got {end:g}"
        # given in steps it depends on the number of images: then the rate may rise to the last step
        if (
            isinstance(rate, CosineSchedule)
            and rate.warmup.unit != "step"
            and rate.warmup.steps(1000, epochs) >= 1000 * epochs
        ):
            yield (*where, "warmup"), f"{rate.warmup} is the whole training of {epochs} epochs"


def one_threshold_for_a_class(config: Config) -> Found:
    """A class's threshold is given, or found for one target."""
    seen = set(config.decision.thresholds)
    for kind, name, _ in config.decision.targets:
        if name in seen:
            yield ("decision", "target", f"{kind}.{name}"), f"{name} has a threshold or another target already"
        seen.add(name)


def search_can_be_done(config: Config) -> Found:
    """A search leaves alone what trials are judged by, and its ranges rise."""
    for key, values in config.search.items():
        section = key.split(".")[0]
        if section in NOT_SEARCHED:
            yield (
                ("search", key),
                f"cannot be searched: all trials are compared on the same images and terms ({section})",
            )
        if isinstance(values, SearchRange):
            if values.low >= values.high:
                yield ("search", key, "high"), f"must be above low, which is {values.low:g}; got {values.high:g}"
            if values.log and values.low <= 0:
                yield ("search", key, "low"), f"must be above 0 with log: true, got {values.low:g}"


def several_devices_need_jax(config: Config) -> Found:
    """Only the JAX backend trains on several devices; mesh and layout belong to the strategy model."""
    distribute = config.distribute
    if distribute.strategy in ("data", "model") and config.runtime.backend != "jax":
        yield ("distribute", "strategy"), f"{distribute.strategy} needs runtime.backend: jax"
    for key in ("mesh", "layout"):
        if getattr(distribute, key) and distribute.strategy != "model":
            yield ("distribute", key), "has a use with strategy: model alone"
    for text in distribute.layout:
        try:
            re.compile(text)
        except re.error as error:
            yield ("distribute", "layout"), f"{text} is no regular expression: {error}"
    if distribute.shards is not None:
        optimizer = config.optimizer
        if config.runtime.backend != "jax":
            yield ("distribute", "shards"), "has a use with runtime.backend: jax"
        elif distribute.strategy == "model" and (optimizer.clip_norm is not None or optimizer.type == "muon"):
            what = "optimizer.clip_norm" if optimizer.clip_norm is not None else "optimizer muon"
            yield ("distribute", "shards"), f"{what} adds over whole weights, which strategy: model keeps in parts"
        elif config.train.batch_size != "auto" and config.train.images_per_step % distribute.shards:
            yield ("distribute", "shards"), f"must divide the batch, which has {config.train.images_per_step} images"


def parts_of_the_pack_divide_a_batch(config: Config) -> Found:
    """Every batch has as many images of each part."""
    parts = config.distribute.pack_parts
    if parts is not None and config.train.batch_size != "auto" and config.train.images_per_step % parts:
        yield ("distribute", "pack_parts"), f"must divide the batch, which has {config.train.images_per_step} images"


def _misfits(config: Config, shape: Shape) -> Found:
    if not isinstance(config.model, LayersModel):
        return
    for index, layer in enumerate(config.model.layers):
        try:
            for _ in range(layer.repeat if isinstance(layer, Residual) else 1):
                shape = after(layer, shape).shape
        except DoesNotFitError as error:
            inner = () if error.inner is None else ("layers", error.inner)
            if error.by_size and shape[0] > LARGEST_SIDE:
                return  # the image's own size tells more
            yield ("model", "layers", index, *inner), str(error)
            return
    if len(shape) != 1:
        yield ("model", "layers"), "end in a map; put {type: flatten} or {type: global_pool} after the last one"


# A rule is asked only where the keys that it reads are themselves free of mistakes.
RULES: tuple[tuple[tuple[str, ...], Callable[[Config], Found]], ...] = (
    (("data",), images_are_named),
    (("data.folder", "data.train", "data.validation", "data.test"), folder_stands_alone),
    (
        ("data.folder", "data.train", "data.validation", "data.test", "data.manifest", "data.corrections"),
        urls_hold_images_and_no_secrets,
    ),
    (("data.split", "data.validation", "data.test"), split_leaves_training_images),
    (("data.split", "data.test"), fold_is_one_of_the_parts),
    (("data",), validation_chooses_the_model),
    (("data.classes",), classes_are_used_once),
    (("augment",), fill_has_a_use),
    (("augment", "image"), shifts_say_how_far_once),
    (("augment",), fill_value_is_used),
    (("augment",), pictures_are_mixed_once),
    (("augment", "teacher"), teacher_sees_single_pictures),
    (("image.standardize", "image.color"), statistics_match_channels),
    (("optimizer", "train.epochs", "model"), schedule_can_be_followed),
    (("model",), layers_fit_each_other),
    (("decision",), one_threshold_for_a_class),
    (("search",), search_can_be_done),
    (("distribute", "runtime.backend", "train.batch_size", "optimizer"), several_devices_need_jax),
    (("distribute", "train.batch_size"), parts_of_the_pack_divide_a_batch),
    (("model", "image.size"), layers_fit_the_image),
    (("model", "image.size", "image.color", "image.standardize"), backbone_has_what_it_needs),
)
