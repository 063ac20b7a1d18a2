"""Keras `fit` on arrays in memory: the peer of document-004.

With `--epochs` it is the article's whole program and no race: after each epoch it reports the test accuracy.
"""

import argparse

import contestant
import keras
import keras_models
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--arrays", required=True, help="npz with uint8 images and labels of train and test")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--epochs", type=int, help="train this long and report the test accuracy of each epoch")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    arrays = np.load(arguments.arrays)
    x_train, y_train = arrays["train_images"].astype("float32") / 255, arrays["train_labels"]
    model = keras.Sequential([keras.Input(x_train.shape[1:]), *keras_models.document_004(int(y_train.max()) + 1)])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    if arguments.epochs:
        test = arrays["test_images"].astype("float32") / 255, arrays["test_labels"]
        report = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: contestant.say(epoch=epoch + 1, accuracy=logs["val_accuracy"])
        )
        model.fit(
            x_train,
            y_train,
            epochs=arguments.epochs,
            batch_size=arguments.batch,
            validation_data=test,
            callbacks=[report],
            verbose=0,
        )
        return

    def run(steps: int) -> float:
        return keras_models.fit(model, x_train, y_train, batch_size=arguments.batch, steps_per_epoch=steps)

    contestant.serve(
        run,
        images_per_step=arguments.batch,
        warm_up=50,
        used=contestant.versions("keras", "tensorflow-cpu", "tensorflow", "numpy"),
    )


if __name__ == "__main__":
    main()
