"""The model card: `README.md` in the bundle, in the form of the Hugging Face Hub, written from facts alone."""

from pathlib import Path
from typing import Any

from imgrec_cli.atomic import write_text
from imgrec_cli.bundle import Manifest

CARD = "README.md"
NAMED, WEAKEST = 60, 20  # classes that are named; of more, so many with the lowest recall get a row


def write_card(folder: Path, manifest: Manifest, figures: dict[str, Any], images: dict[str, int]) -> Path:
    """Write the card of the bundle in `folder` and return its path.

    `figures` are those of `metrics.json`, `images` the number of images by split. What only people know, such as
    licence and purpose, is left for them, and said to be.
    """
    file = folder / CARD
    write_text(file, card(manifest, figures, images))
    return file


def card(manifest: Manifest, figures: dict[str, Any], images: dict[str, int]) -> str:
    """The card's text."""
    split, (height, width) = figures["split"], manifest.pixels.size
    low, high = figures["accuracy_interval"]
    used = ", ".join(f"{count:,} {name}" for name, count in images.items())
    names, classes = manifest.class_names, figures["classes"]
    many, more = len(names) > NAMED, f" and {len(names) - NAMED:,} more, all in `manifest.json`"
    lines = [
        "---",
        "library_name: imgrec",
        "pipeline_tag: image-classification",
        "tags: [image-classification, litert, tflite]",
        "model-index:",
        f"- name: {_quoted(manifest.name)}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{type: imagefolder, name: {_quoted(manifest.name)}, split: {split}}}",
        "    metrics:",
        f"    - {{type: accuracy, value: {figures['accuracy']:.4f}}}",
        f"    - {{type: f1, name: macro F1, value: {figures['macro']['f1']:.4f}}}",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"Tells {len(names):,} classes of images apart: {', '.join(names[:NAMED])}{more if many else ''}.",
        "",
        "## How good it is",
        "",
        f"Accuracy {100 * figures['accuracy']:.1f} % on {figures['images']:,} {split} images "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f} %), balanced accuracy "
        f"{100 * figures['balanced_accuracy']:.1f} %, macro F1 {100 * figures['macro']['f1']:.1f} %.",
    ]
    if figures["caveat"]:
        lines.append(f"These figures were {figures['caveat']}.")
    shown = list(classes)
    if many:
        judged = [name for name in names if classes[name]["support"]]
        shown = sorted(judged, key=lambda name: classes[name]["recall"])[:WEAKEST]
        lines.append(f"The {len(shown)} classes with the lowest recall:")
    lines += ["", "| class | recall | precision | images |", "| --- | --- | --- | --- |"]
    for name in shown:
        of_class = classes[name]
        recall = f"{100 * of_class['recall']:.1f} %" if of_class["support"] else "–"
        cells = [name.replace("|", "&#124;"), recall, f"{100 * of_class['precision']:.1f} %", str(of_class["support"])]
        lines.append(f"| {' | '.join(cells)} |")
    calibration = figures["calibration"]
    lines += [
        "",
        f"Probabilities are calibrated by a temperature of {calibration['temperature']:.3f}; their mean gap to the "
        f"share of right answers (ECE) is {100 * calibration['ece']:.1f} %.",
    ]
    if manifest.unfamiliar_above is not None:
        lines.append("Images unlike the training images are marked as unfamiliar; no such measure catches everything.")
    lines += [
        "",
        "## How it was made",
        "",
        f"Trained by imgrec {manifest.versions.get('imgrec', '')} on {used} images. Input: {height}×{width} pixels, "
        f"{manifest.pixels.color}, 0 to 255, `{manifest.pixels.fit}` for other shapes. The exported model's outputs "
        f"lie within {manifest.parity.largest_gap:.1e} of the trained one's on {manifest.parity.images} validation "
        "images.",
        "",
        "## How to use it",
        "",
        "```sh",
        "imgrec predict -m FOLDER_OF_THIS_FILE photo.jpg",
        "```",
        "",
        "## What is not known",
        "",
        "Licence, origin of the images, and what the model may be used for: whoever publishes it has to say.",
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
