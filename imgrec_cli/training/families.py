"""The families of keras.applications: constructors, the scaling that their weights expect, where the weights are."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import ops

from imgrec_cli.config import BackboneModel, Image
from imgrec_cli.errors import InputError

DOWNLOADS = "https://storage.googleapis.com/tensorflow/keras-applications/"
SECONDS_TO_ANSWER = 30.0
# of ImageNet's pixels, 0 to 1
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CaffeScaling(keras.layers.Layer):
    """RGB images 0..255 → BGR minus ImageNet's means, as the weights of He et al. 2015 were trained (Caffe's habit)."""

    def call(self, images: Any) -> Any:
        return ops.flip(images, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], images.dtype)


@dataclass(frozen=True, slots=True)
class Family:
    """How a network is built and fed: the name of its constructor; `scaling` is `signed` (-1..1), `signed_128`,
    `standardized` (ImageNet's mean and deviation) or `caffe`.

    Of the weights without the top on ImageNet: the file below DOWNLOADS, and its hash as Keras checks it, by width.
    """

    constructor: str
    scaling: str
    file: str
    hashes: dict[float, str]
    options: tuple[tuple[str, Any], ...] = ()


# scaling is a layer of ours, not one inside the network
_OUTSIDE = (("include_preprocessing", False),)
_V3, _EFFICIENT = "mobilenet_v3/weights_mobilenet_v3_{}_224_{{width}}_float_no_top_v2.h5", "efficientnet_v2/{}_notop.h5"
_TF = "_weights_tf_dim_ordering_tf_kernels"
FAMILIES = {
    "mobilenet_v2": Family("MobileNetV2", "signed", f"mobilenet_v2/mobilenet_v2{_TF}_{{width}}_{{side}}_no_top.h5", {}),
    "mobilenet_v3_small": Family(
        "MobileNetV3Small",
        "signed",
        _V3.format("small"),
        {0.75: "ebdb5cc8e0b497cd13a7c275d475c819", 1.0: "d3e8ec802a04aa4fc771ee12a9a9b836"},
        _OUTSIDE,
    ),
    "mobilenet_v3_large": Family(
        "MobileNetV3Large",
        "signed",
        _V3.format("large"),
        {0.75: "40af19a13ebea4e2ee0c676887f69a2e", 1.0: "07fb09a5933dd0c8eaafa16978110389"},
        _OUTSIDE,
    ),
    **{
        f"efficientnet_v2_{kind.lower()}": Family(
            f"EfficientNetV2{kind}",
            "signed_128" if kind == "S" else "standardized",
            _EFFICIENT.format(f"efficientnetv2-{kind.lower()}"),
            {1.0: found},
            _OUTSIDE,
        )
        for kind, found in (
            ("B0", "893217f2bb855e2983157299931e43ff"),
            ("B1", "0e80663031ca32d657f9caa404b6ec37"),
            ("B2", "1dfe2e7a5d45b6632553a8961ea609eb"),
            ("B3", "f6abf7b5849ac99a89b50dd3fd532856"),
            ("S", "af0682fb74e8c54910f2d4393339c070"),
        )
    },
    **{
        name: Family(constructor, scaling, f"resnet/{file}{_TF}_notop.h5", {1.0: found})
        for name, constructor, scaling, file, found in (
            ("resnet50", "ResNet50", "caffe", "resnet50", "4d473c1dd8becc155b73f8504c6f6626"),
            ("resnet101", "ResNet101", "caffe", "resnet101", "88cf7a10940856eca736dc7b7e228a21"),
            ("resnet50_v2", "ResNet50V2", "signed", "resnet50v2", "fac2f116257151a9d068a22e544a4917"),
            ("resnet101_v2", "ResNet101V2", "signed", "resnet101v2", "c0ed64b8031c3730f411d2eb4eea35b5"),
        )
    },
    "convnext_tiny": Family(
        "ConvNeXtTiny",
        "standardized",
        "convnext/convnext_tiny_notop.h5",
        {1.0: "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"},
        _OUTSIDE,
    ),
    "convnext_small": Family(
        "ConvNeXtSmall",
        "standardized",
        "convnext/convnext_small_notop.h5",
        {1.0: "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"},
        _OUTSIDE,
    ),
    "densenet121": Family(
        "DenseNet121", "standardized", f"densenet/densenet121{_TF}_notop.h5", {1.0: "30ee3e1110167f948a6b9946edeeb738"}
    ),
    "xception": Family(
        "Xception", "signed", f"xception/xception{_TF}_notop.h5", {1.0: "b0042744bf5b25fce3cb969f33bebb97"}
    ),
}


def application(spec: BackboneModel, image: Image) -> keras.Model:
    """The network as keras.applications builds it, without its top, pooled, without its own scaling, weights random."""
    family = FAMILIES[spec.name]
    options = dict(family.options) | ({} if spec.width == 1 else {"alpha": spec.width})
    build = getattr(keras.applications, family.constructor)
    shape = (*image.size, 3)
    # not by the constructors' `name`: some read from it which network is meant
    model = build(include_top=False, weights=None, input_shape=shape, pooling="avg", **options)
    return keras.Model(model.input, model.output, name=spec.name)


def family_scaling(spec: BackboneModel) -> keras.layers.Layer:
    """The layer that takes float pixels 0..255 to what the family's weights expect; keras.applications calls it
    `preprocess_input`, or has it within the network."""
    match FAMILIES[spec.name].scaling:
        case "caffe":
            return CaffeScaling(name="scaling", dtype="float32")
        case "signed":
            scale, offset = [1 / 127.5], [-1.0]
        case "signed_128":
            scale, offset = [1 / 128], [-1.0]
        case _:
            scale = [1 / (255 * deviation) for deviation in DEVIATION]
            offset = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="scaling", dtype="float32")


def weights_file(spec: BackboneModel, image: Image) -> Path | None:
    """The file of `model.weights`; None for `none`. For `imagenet` Keras's own download, kept where Keras keeps it.

    Raises InputError where it cannot be had.
    """
    if spec.weights == "none":
        return None
    if spec.weights != "imagenet":
        return Path(spec.weights)
    family = FAMILIES[spec.name]
    # MobileNetV2 was trained once for each of these squares, and for no other
    side = image.size[0] if image.size[0] == image.size[1] and image.size[0] in (96, 128, 160, 192) else 224
    url = DOWNLOADS + family.file.format(width=float(spec.width), side=side)
    name, found = url.rpartition("/")[2], family.hashes.get(spec.width)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_TO_ANSWER)
    try:
        return Path(keras.utils.get_file(name, url, cache_subdir="models", file_hash=found))
    except Exception as error:  # Keras turns those of urllib into its own, which say the address once more
        reason = (str(error) or type(error).__name__).rpartition(" -- ")[2].splitlines()[0]
        kind = "SHA-256" if found and len(found) == 64 else "MD5"
        hashed = f"{kind} {found}" if found else "Keras knows no hash of it"
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        raise InputError(
            f"model.weights: imagenet: {name} could not be fetched: {reason}",
            f"fetch {url} elsewhere ({hashed}) and put it into {folder.expanduser()}, or name it: model.weights=FILE",
        ) from error
    finally:
        socket.setdefaulttimeout(before)
