"""One image in a new process, and a folder of photographs: imgrec beside a Keras script that does the same.

    imgrec export RUN --to litert --to litert-int8 --to keras
    python benchmarks/predicting.py RUN --photos DIR [--images 5000] [--times 20]

RUN is a finished run, such as one with a MobileNetV2 backbone. The photographs are linked, again and again, until
there are as many images as asked for. imgrec is timed as a whole process; of Keras's folder only `predict` is, without
imports and loading. Compare ratios: a shared machine is noisy.
"""

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGE_IN_KERAS = """
import sys
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
size = model.input_shape[1:3]
image = keras.utils.load_img(sys.argv[2], target_size=size)
print(model.predict(keras.utils.img_to_array(image)[None].astype("uint8"), verbose=0).argmax())
"""
FOLDER_IN_KERAS = """
import sys, time
import keras, tensorflow as tf
model = keras.saving.load_model(sys.argv[1])
images = keras.utils.image_dataset_from_directory(
    sys.argv[2], label_mode=None, image_size=model.input_shape[1:3], shuffle=False, batch_size=32, verbose=False
).map(lambda image: tf.cast(image, tf.uint8), num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
model.predict(images.take(1), verbose=0)
start = time.perf_counter()
answers = model.predict(images, verbose=0)
print(len(answers) / (time.perf_counter() - start))
"""


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def linked(photos: list[Path], count: int, folder: Path) -> Path:
    """A folder of class folders with so many links to photographs."""
    (folder / "photos").mkdir(parents=True)
    for number, photo in enumerate(itertools.islice(itertools.cycle(photos), count)):
        (folder / "photos" / f"{number:06d}{photo.suffix}").symlink_to(photo.resolve())
    return folder


def imgrec_folder(bundle: Path, folder: Path, work: Path) -> tuple[float, float]:
    """Images per second of a whole process, and the largest memory of all such processes so far in MB."""
    out = work / f"{time.monotonic_ns()}.csv"
    took = seconds(["-m", "imgrec_cli", "predict", "-m", str(bundle), str(folder), "--out", str(out)])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    return (len(out.read_text().splitlines()) - 1) / took, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--times", type=int, default=20, help="new processes for one image; a quarter of it for Keras")
    parser.add_argument("--only", choices=("image", "folder"))
    asked = parser.parse_args()
    photos = sorted(path for path in asked.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    exports = {name: asked.run / "exports" / name for name in ("litert", "litert-int8")}
    keras_file = asked.run / "exports" / "keras" / "model.keras"
    if asked.only != "folder":
        bundles: dict[str, list[str]] = {
            f"imgrec predict, {name}": ["-m", "imgrec_cli", "predict", "-m", str(bundle), str(photos[0])]
            for name, bundle in exports.items()
        }
        theirs = ["-c", IMAGE_IN_KERAS, str(keras_file), str(photos[0])]
        taken: dict[str, list[float]] = {name: [] for name in (*bundles, "Keras")}
        for words in (*bundles.values(), theirs):
            seconds(words)  # not counted: it reads the disk
        for number in range(asked.times):
            for name, words in bundles.items():
                taken[name].append(seconds(words))
            if number % 4 == 0:
                taken["Keras"].append(seconds(theirs))
        reference = statistics.median(taken["Keras"])
        for name, values in taken.items():
            median = statistics.median(values)
            print(f"{name:<28} {median:7.3f} s, {reference / median:5.1f} × as fast as Keras, {len(values)} processes")
    if asked.only != "image":
        with tempfile.TemporaryDirectory() as work:
            few = linked(photos, asked.images // 10, Path(work) / "few")
            many = linked(photos, asked.images, Path(work) / "many")
            done = subprocess.run(
                [sys.executable, "-c", FOLDER_IN_KERAS, str(keras_file), str(many)], check=True, capture_output=True
            )
            theirs_speed = float(done.stdout.split()[-1])
            # peaks of all child processes only rise: imgrec's own are measured in a process without Keras
            print(f"{'Keras predict':<28} {theirs_speed:7.1f} images/s of {asked.images}")
            for name, bundle in exports.items():
                words = [sys.executable, __file__, "--memory", str(bundle), str(few), str(many)]
                told = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
                speed, peak_few, peak_many = (float(value) for value in told)
                print(
                    f"{'imgrec predict, ' + name:<28} {speed:7.1f} images/s, {speed / theirs_speed:.2f} × Keras; "
                    f"peak memory {peak_few:.0f} MB for {asked.images // 10}, {peak_many:.0f} MB for all"
                )


def memory(bundle: str, few: str, many: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        _, peak_few = imgrec_folder(Path(bundle), Path(few), Path(work))
        speed, peak_many = imgrec_folder(Path(bundle), Path(many), Path(work))
        print(speed, peak_few, peak_many)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(*sys.argv[2:])
    else:
        main()
