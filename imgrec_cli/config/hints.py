"""The word a user may have meant: near spellings, keys of other sections, and the words of neighbouring tools."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from imgrec_cli.config.document import KeyPath
from imgrec_cli.config.networks import Unfreeze
from imgrec_cli.config.sections import Config
from imgrec_cli.config.values import Section

_PATIENCE = "train.early_stopping.patience"
_SHIFT = "{type: shift, height: 0.2, width: 0.2} in augment"
_SCALED = "leave it out: pixels are scaled to 0..1 inside the model; for more see image.standardize"
_SOFTMAX = "leave it out: a softmax layer with one output per class is added at the end"
_POOL_MAX = "{type: pool, kind: max, size: 2} in model.layers"
_POOL_MEAN = "{type: pool, kind: average, size: 2} in model.layers"

# Words of Keras, torchvision, timm and Ultralytics → where ours stands. These are never accepted as keys.
NEIGHBOURS: dict[str, str] = {
    # optimizer
    "lr": "optimizer.learning_rate",
    "lr0": "optimizer.learning_rate",
    "lrate": "optimizer.learning_rate",
    "initial_learning_rate": "optimizer.learning_rate",
    "opt": "optimizer.type",
    "beta1": "optimizer.beta_1",
    "beta2": "optimizer.beta_2",
    # train
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "batchsize": "train.batch_size",
    "epoch": "train.epochs",
    "num_epochs": "train.epochs",
    "n_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "nb_epoch": "train.epochs",
    "patience": _PATIENCE,
    "earlystopping": "train.early_stopping",
    "early_stop": "train.early_stopping",
    "monitor": "train.early_stopping.metric",
    "restore_best_weights": "leave it out: the best weights are always kept",
    "mixed_precision": "train.precision",
    "amp": "train.precision",
    "half": "train.precision",
    "fp16": "train.precision",
    "dtype": "train.precision",
    "criterion": "loss.type",
    "loss_function": "loss.type",
    "smoothing": "loss.label_smoothing",
    "class_weight": "loss.class_weights",
    "alpha": "loss.class_weights",
    "from_logits": "leave it out: the loss knows the softmax that is added",
    "clipnorm": "optimizer.clip_norm",
    "global_clipnorm": "optimizer.clip_norm",
    "clip_grad": "optimizer.clip_norm",
    "sampler": "train.sampling",
    "oversample": "train.sampling",
    "shuffle": "leave it out: training images are always shuffled, by seed",
    # earlier runs
    "warm_start": "model.start_from",
    "init_from": "model.start_from",
    "distillation": "teacher",
    # data
    "dataset": "data.folder",
    "data_dir": "data.folder",
    "data_path": "data.folder",
    "root": "data.folder",
    "path": "data.folder",
    "directory": "data.folder",
    "train_dir": "data.train",
    "train_data": "data.train",
    "train_data_dir": "data.train",
    "val": "data.validation",
    "valid": "data.validation",
    "val_dir": "data.validation",
    "validation_dir": "data.validation",
    "validation_data": "data.validation",
    "test_dir": "data.test",
    "test_data": "data.test",
    "validation_split": "data.split.validation",
    "val_split": "data.split.validation",
    "test_split": "data.split.test",
    "test_size": "data.split.test",
    "num_classes": "leave it out: classes are the names of the folders",
    "class_names": "leave it out: classes are the names of the folders",
    "class_mode": "leave it out: classes are the names of the folders",
    "names": "leave it out: classes are the names of the folders",
    "csv": "data.manifest",
    "labels_file": "data.manifest",
    "class_map": "data.classes.titles",
    "ignore": "data.classes.exclude",
    # image
    "imgsz": "image.size",
    "img_size": "image.size",
    "image_size": "image.size",
    "input_size": "image.size",
    "target_size": "image.size",
    "height": "image.size",
    "width": "image.size",
    "input_shape": "image.size and image.color",
    "color_mode": "image.color",
    "colour": "image.color",
    "channels": "image.color",
    "in_chans": "image.color",
    "grayscale": "image.color",
    "resize": "image.fit",
    "interpolation": "leave it out: images are resized with antialiasing",
    "rescale": _SCALED,
    "rescaling": _SCALED,
    "normalize": "image.standardize",
    "normalise": "image.standardize",
    "standardise": "image.standardize",
    "samplewise_center": "image.standardize",
    "featurewise_center": "image.standardize",
    "featurewise_std_normalization": "image.standardize",
    "std": "image.standardize.deviation",
    # augment
    "augmentation": "augment",
    "augmentations": "augment",
    "transforms": "augment",
    "rotation_range": "{type: rotate, degrees: 40} in augment",
    "rotation": "{type: rotate, degrees: 40} in augment",
    "rotate": "{type: rotate, degrees: 40} in augment",
    "angle": "degrees",
    "factor": "range",
    "width_shift_range": _SHIFT,
    "height_shift_range": _SHIFT,
    "translate": _SHIFT,
    "translation": _SHIFT,
    "shear_range": "{type: shear, degrees: 10} in augment",
    "zoom_range": "{type: zoom, range: [0.8, 1.2]} in augment",
    "zoom": "{type: zoom, range: [0.8, 1.2]} in augment",
    "horizontal_flip": "{type: flip, axis: horizontal} in augment",
    "vertical_flip": "{type: flip, axis: vertical} in augment",
    "fliplr": "{type: flip, axis: horizontal} in augment",
    "flipud": "{type: flip, axis: vertical} in augment",
    "hflip": "{type: flip, axis: horizontal} in augment",
    "vflip": "{type: flip, axis: vertical} in augment",
    "flip": "{type: flip, axis: horizontal} in augment",
    "brightness_range": "{type: brightness, range: [0.8, 1.2]} in augment",
    "channel_shift_range": "{type: channel_shift, amount: 20} in augment",
    "fill_mode": "{type: fill, mode: nearest} in augment",
    "cval": "{type: fill, mode: constant, value: 0} in augment",
    # model
    "network": "model",
    "architecture": "model",
    "arch": "model",
    "kernel_size": "kernel",
    "strides": "stride",
    "out_channels": "filters",
    "neurons": "units",
    "nodes": "units",
    "pool_size": "size",
    "initializer": "model.init",
    "kernel_initializer": "model.init",
    "weight_init": "model.init",
    "kernel_regularizer": "model.l2",
    "regularization": "model.l2",
    "dilation_rate": "dilation",
    "use_bias": "bias",
    "shortcut": "{type: residual, layers: [...]} in model.layers",
    "conv": "{type: conv, filters: 32} in model.layers",
    "dense": "{type: dense, units: 64} in model.layers",
    "dropout": "{type: dropout, rate: 0.5} in model.layers",
    # runtime and the rest
    "gpu": "runtime.device",
    "gpus": "runtime.device",
    "accelerator": "runtime.device",
    "workers": "runtime.threads",
    "num_workers": "runtime.threads",
    "random_seed": "seed",
    "random_state": "seed",
    "format": "export.formats",
}

# The same for words that stand as a value: our word, or a sentence.
NEIGHBOUR_VALUES: dict[str, str] = {
    # the types of layers
    "conv2d": "conv",
    "convolution": "conv",
    "convolution2d": "conv",
    "maxpool": _POOL_MAX,
    "maxpool2d": _POOL_MAX,
    "maxpooling2d": _POOL_MAX,
    "pooling": "pool",
    "avgpool": _POOL_MEAN,
    "avgpool2d": _POOL_MEAN,
    "averagepooling2d": _POOL_MEAN,
    "globalaveragepooling2d": "global_pool",
    "adaptiveavgpool2d": "global_pool",
    "gap": "global_pool",
    "fc": "dense",
    "fully_connected": "dense",
    "batchnorm": "batch_norm",
    "batchnorm2d": "batch_norm",
    "batchnormalization": "batch_norm",
    "bn": "batch_norm",
    "resblock": "residual",
    "residual_block": "residual",
    "basic_block": "residual",
    "bottleneck": "residual",
    "xavier": "glorot_uniform",
    "xavier_uniform": "glorot_uniform",
    "xavier_normal": "glorot_normal",
    "glorot": "glorot_uniform",
    "kaiming": "he_normal",
    "kaiming_uniform": "he_uniform",
    "kaiming_normal": "he_normal",
    "he": "he_normal",
    "msra": "he_normal",
    "softmax": _SOFTMAX,
    "rescaling": _SCALED,
    "rescale": _SCALED,
    # the types of augmentation
    "cutout": "erase",
    "random_erasing": "erase",
    "mix_up": "mixup",
    "rand_augment": "randaugment",
    "randaug": "randaugment",
    "autoaugment": "randaugment",
    "rotation": "rotate",
    "rotation_range": "rotate",
    "translate": "shift",
    "translation": "shift",
    "width_shift_range": "shift",
    "height_shift_range": "shift",
    "shear_range": "shear",
    "zoom_range": "zoom",
    "horizontal_flip": "{type: flip, axis: horizontal}",
    "vertical_flip": "{type: flip, axis: vertical}",
    "fill_mode": "fill",
    "channel_shift_range": "channel_shift",
    # the rest
    "val_loss": "val/loss",
    "validation_loss": "val/loss",
    "loss": "val/loss",
    "val_acc": "val/accuracy",
    "val_accuracy": "val/accuracy",
    "acc": "val/accuracy",
    "accuracy": "val/accuracy",
    "val_f1": "val/f1",
    "f1": "val/f1",
    "macro_f1": "val/f1",
    "val_recall": "val/recall",
    "val_precision": "val/precision",
    "crossentropy": "cross_entropy",
    "ce": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
    "mae": "mean_absolute_error",
    "l1": "mean_absolute_error",
    "tflite": "litert",
    "lite": "litert",
    "grayscale": "gray",
    "greyscale": "gray",
    "grey": "gray",
    "l": "gray",
    "colour": "rgb",
    "bgr": "rgb",
    "lrelu": "leaky_relu",
    "leakyrelu": "leaky_relu",
    "swish": "silu",
    "none": "linear",
    "avg": "average",
    "mean": "average",
    "edge": "nearest",
    "replicate": "nearest",
    "mirror": "reflect",
    "squash": "stretch",
    "resize": "stretch",
    "letterbox": "pad",
    "center_crop": "crop",
    "left_right": "horizontal",
    "up_down": "vertical",
    "cuda": "gpu",
    "cuda:0": "gpu",
    "cuda:1": "gpu:1",
    "tf": "tensorflow",
    "sequential": "layers",
    "bf16": "bfloat16",
    "mixed": "bfloat16",
    "mixed_bfloat16": "bfloat16",
    "float16": "bfloat16",
    "fp16": "bfloat16",
    "fp32": "float32",
}


def sections_in(annotation: Any) -> list[type[Section]]:
    """Section classes that a field's type speaks of: one, or all members of a tagged union."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, Section) else []
    return [section for part in get_args(annotation) for section in sections_in(part)]


def tag_of(section: type[Section]) -> str:
    """Word that stands behind `type:` for this member of a tagged union."""
    return str(get_args(section.model_fields["type"].annotation)[0])


def about_key(path: KeyPath, section: type[Section] | None) -> str:
    """Advice on the unknown key at `path` of a section, or an empty text."""
    around, word = ".".join(str(part) for part in path[:-1]), str(path[-1])
    own, homes = list(section.model_fields) if section else [], _homes()
    meant = _lookup(NEIGHBOURS, word)
    if same := _same_spelling(word, own):
        return f"did you mean {same}?"
    if meant in own or (meant.rpartition(".")[0] == around and meant.rpartition(".")[2] in own):
        return f"did you mean {meant.rpartition('.')[2]}?"
    if meant.startswith("leave"):
        return meant
    if meant and (meant[0] == "{" or "." in meant or meant in Config.model_fields):
        return f"write {meant}"
    if 0 < len(places := homes.get(_same_spelling(word, homes), [])) <= 3:
        return f"its place is {' or '.join(places)}"
    if near := _nearest(word, own):
        return f"did you mean {near}?"
    if near := _nearest(word, homes):
        return f"did you mean {' or '.join(homes[near][:3])}?"
    return f"known here: {', '.join(own)}" if own else ""


def about_word(word: str, valid: Iterable[str]) -> str:
    """Advice on a value that is none of the `valid` words, or an empty text."""
    choices = list(valid)
    meant = _lookup(NEIGHBOUR_VALUES, word)
    if same := _same_spelling(word, choices):
        return f"did you mean {same}?"
    if meant in choices:
        return f"did you mean {meant}?"
    if meant.startswith("leave"):
        return meant
    if meant.startswith("{") and meant.removeprefix("{type: ").partition(",")[0] in choices:
        return f"write {meant.partition(' in ')[0]}"
    near = _nearest(word, choices)
    return f"did you mean {near}?" if near else ""


def _squashed(word: str) -> str:
    """Spelling without case and separators, and without Keras's Random: `RandomFlip` and `random_flip` are `flip`."""
    return re.sub(r"[-_ ]", "", word.lower()).removeprefix("random") or word


def _same_spelling(word: str, valid: Iterable[str]) -> str:
    return next((choice for choice in valid if _squashed(choice) == _squashed(word)), "")


def _lookup(table: dict[str, str], word: str) -> str:
    return table.get(_same_spelling(word, table), "")


def _nearest(word: str, valid: Iterable[str]) -> str:
    plain = word.lower().replace("-", "_")
    return next(iter(difflib.get_close_matches(plain, list(valid), n=1, cutoff=0.7)), "")


def _homes() -> dict[str, list[str]]:
    """Every key of a config with the places where it may stand."""
    homes: dict[str, list[str]] = {}
    listed_already: set[type[Section]] = set()  # a layer within a layer has its home in the outer list

    def visit(section: type[Section], where: str, tag: str) -> None:
        for key, field in section.model_fields.items():
            if key == "type":
                continue
            place = f"{{type: {tag}}} in {where}" if tag else f"{where}.{key}".removeprefix(".")
            if place not in homes.setdefault(key, []):
                homes[key].append(place)
            listed = get_origin(field.annotation) is tuple
            for member in sections_in(field.annotation):
                if member in listed_already or member is Unfreeze:  # its keys are those of other sections, once more
                    continue
                if listed:
                    listed_already.add(member)
                visit(member, place, tag_of(member) if listed else "")

    visit(Config, "", "")
    return homes
