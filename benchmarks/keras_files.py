"""Peer (b): image_dataset_from_directory, cached and prefetched, Keras augmentation layers in the model, `fit`.

It is the arrangement of TensorFlow's own image classification tutorial: cache, shuffle, prefetch, layers in the model.
"""

import argparse
import math

import contestant
import keras
import keras_models
import tensorflow as tf
from keras import layers


def document_001() -> list[keras.layers.Layer]:
    """The article's augmentation as Keras layers, in the article's units."""
    fill = {"fill_mode": "nearest"}
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(40 / 360, **fill),
        layers.RandomTranslation(0.2, 0.2, **fill),
        layers.RandomShear(math.tan(math.radians(0.2)), **fill),  # ImageDataGenerator reads 0.2 as degrees
        layers.RandomZoom((-0.2, 0.2), (-0.2, 0.2), **fill),
    ]


def flip_and_crop(size: int) -> list[keras.layers.Layer]:
    """A flip and a crop of 0.85 of the area, the mean of 0.7 to 1: the layer that Keras has takes one size."""
    return [layers.RandomFlip("horizontal"), layers.RandomCrop(size, size)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--policy", default="float32")
    arguments = parser.parse_args()
    keras.mixed_precision.set_global_policy(arguments.policy)

    size = 150 if arguments.model == "document-001" else 160
    loaded_size = size if arguments.model == "document-001" else round(size / math.sqrt(0.85))
    files = keras.utils.image_dataset_from_directory(
        arguments.images, image_size=(loaded_size, loaded_size), batch_size=arguments.batch
    )
    classes, images = len(files.class_names), len(files.file_paths)
    train = files.cache().shuffle(1000).prefetch(tf.data.AUTOTUNE)
    if arguments.model == "document-001":
        augmentation, stack = document_001(), keras_models.document_001(classes)
    else:
        augmentation, stack = flip_and_crop(size), keras_models.backbone(arguments.model, classes, size)
    model = keras.Sequential(
        [keras.Input((loaded_size, loaded_size, 3)), *augmentation, layers.Rescaling(1.0 / 255), *stack]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    for _ in train:  # fills the cache, as a first epoch would
        pass
    contestant.serve(
        lambda steps: keras_models.fit(model, train.repeat().take(steps)),
        images_per_step=images / len(files),  # the last batch of the folder is smaller
        warm_up=3,
        used=contestant.versions("keras", "tensorflow-cpu", "tensorflow"),
    )


if __name__ == "__main__":
    main()
