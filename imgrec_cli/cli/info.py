"""imgrec info"""

import platform
import sys
from pathlib import Path

from imgrec_cli import __version__
from imgrec_cli.cli import output
from imgrec_cli.cli.options import FormatOption
from imgrec_cli.cli.runs import folder_bytes
from imgrec_cli.errors import install_command
from imgrec_cli.rundir import RUNS_FOLDER

PACKAGES = (
    *("typer", "rich", "PyYAML", "pydantic", "numpy", "pillow", "ai-edge-litert", "platformdirs", "filelock"),
    *("Jinja2", "pillow-heif", "keras", "tensorflow", "tensorflow-cpu", "jax", "onnx"),
)


def info(format_: FormatOption = output.Format.human) -> None:
    """Print versions, extras, devices and folders: the text for a bug report."""
    from imgrec_cli.machine import available_cores, cache_folder, nvidia_cards

    versions = {name: _version(name) for name in PACKAGES}
    trains = bool(versions["keras"] and (versions["tensorflow"] or versions["tensorflow-cpu"] or versions["jax"]))
    cache, runs = cache_folder(), Path(RUNS_FOLDER).resolve()
    values = {
        "imgrec": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        "cores": str(available_cores()),
        "gpus": ", ".join(nvidia_cards()) or "none found by nvidia-smi",
        "training": "installed" if trains else f"not installed; {install_command('train')}",
        "cache": f"{cache}, {output.size(folder_bytes(cache))}",
        "runs": f"{runs}, {output.size(folder_bytes(runs))}",
        **{name: version or "not installed" for name, version in versions.items()},
    }
    if format_ is output.Format.json:
        output.result("info", values)
    else:
        width = max(map(len, values))
        for name, value in values.items():
            output.line(f"{name:<{width}}  {value}")


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # here: it takes as long as Pillow

    try:
        return version(package)
    except PackageNotFoundError:
        return None
