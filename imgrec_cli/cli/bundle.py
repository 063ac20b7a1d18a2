"""imgrec bundle show, verify"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption
from imgrec_cli.errors import MissingExtraError

app = typer.Typer(name="bundle", help="Look at a shipped model, or check that it is whole.", no_args_is_help=True)

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder or zip, or a run.")]


@app.command()
def show(bundle: BundleArgument, format_: FormatOption = output.Format.human) -> None:
    """Say what a bundle holds and how its model compares with the trained one.

    Example: imgrec bundle show flowers.zip
    """
    from imgrec_cli.bundle import Manifest, find_bundle

    place = find_bundle(bundle)
    manifest = Manifest.read(place)
    if format_ is output.Format.json:
        output.result("bundle show", asdict(manifest))
        return
    (height, width), parity, decision = manifest.pixels.size, manifest.parity, manifest.decision
    output.line(f"{manifest.name}, made {manifest.created} by imgrec {manifest.versions.get('imgrec', '?')}")
    output.line(f"format       {manifest.target}, {output.size(manifest.model_bytes)}")
    output.line(f"input        uint8 {height}×{width} {manifest.pixels.color}, {manifest.pixels.fit}")
    output.line(f"classes      {len(manifest.class_names)}: {', '.join(manifest.class_names[:20])}")
    output.line(f"temperature  {decision.temperature:.3f}")
    for name, threshold in decision.thresholds.items():
        output.line(f"threshold    {threshold:.3f} for {name}")
    agreement = output.percent(1 - parity.disagreements / max(parity.images, 1))
    output.line(f"compared     {agreement} of {parity.images} validation images labelled as by Keras in float32")
    if parity.accuracy is not None and parity.reference_accuracy is not None:
        said = f"{output.percent(parity.accuracy)}, Keras {output.percent(parity.reference_accuracy)}"
        output.line(f"validation   accuracy {said}")
    if manifest.scores:
        output.line(f"{manifest.scores['split']:12} accuracy {output.percent(manifest.scores['accuracy'])}")
    output.table(["file", "bytes"], ([name, str(record.bytes)] for name, record in manifest.files.items()))


@app.command()
def verify(bundle: BundleArgument) -> None:
    """Check that every file is the one that was shipped, and that the model answers as it did then.

    Example: imgrec bundle verify flowers.zip
    """
    from imgrec_cli.bundle import TARGETS, Manifest, check_files, find_bundle
    from imgrec_cli.classifier import Classifier

    place = find_bundle(bundle)
    manifest = Manifest.read(place)
    check_files(place, manifest)
    whole = f"{place}: {len(manifest.files)} files as shipped"
    if TARGETS[manifest.target].runtime not in ("litert", "onnx"):
        output.line(f"{whole}; the self-test needs {TARGETS[manifest.target].runtime} and was not run")
        return
    try:
        gap = Classifier(place, manifest).verify()
    except MissingExtraError as error:
        output.line(f"{whole}; the self-test was not run: {error.message}")
        return
    output.line(f"{whole}; answers its self-test, largest difference of a probability {gap:.1e}")
