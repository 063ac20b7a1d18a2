"""Peer (a) of document-001: ImageDataGenerator and `fit`, as the article writes them."""

import argparse

import contestant
import keras_models
import tensorflow as tf

keras = tf.keras  # where ImageDataGenerator still has a public name


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--batch", type=int, required=True)
    arguments = parser.parse_args()

    generator = keras.preprocessing.image.ImageDataGenerator(
        rescale=1.0 / 255,
        rotation_range=40,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    )
    train = generator.flow_from_directory(
        arguments.images, target_size=(150, 150), batch_size=arguments.batch, class_mode="categorical"
    )
    model = keras.Sequential([keras.Input((150, 150, 3)), *keras_models.document_001(train.num_classes)])
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])

    def run(steps: int) -> float:
        if steps > len(train):
            raise SystemExit(f"the generator has {len(train)} batches an epoch, not {steps}")
        return keras_models.fit(model, train, steps_per_epoch=steps)

    contestant.serve(
        run,
        images_per_step=train.samples / len(train),  # the last batch of the folder is smaller
        warm_up=3,
        used=contestant.versions("keras", "tensorflow-cpu", "tensorflow", "scipy", "pillow"),
    )


if __name__ == "__main__":
    main()
