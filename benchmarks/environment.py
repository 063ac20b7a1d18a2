"""The peers' virtual environment, and what a table says about machine and versions."""

import os
import platform
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

REQUIREMENTS = "requirements.txt"  # in the environment: what it was made from


def _same_version(package: str) -> str:
    try:
        return f"{package}=={version(package)}"
    except PackageNotFoundError:
        return package


def requirements() -> list[str]:
    """What the peers need, in the versions that imgrec uses here where both use a package."""
    try:
        version("tensorflow-cpu")
        tensorflow = "tensorflow-cpu"
    except PackageNotFoundError:
        tensorflow = "tensorflow"
    # SciPy is what ImageDataGenerator warps with
    return ["torch==2.13.0", "scipy", *map(_same_version, ("keras", tensorflow, "numpy", "pillow"))]


def serving_requirements() -> list[str]:
    """What LitServe needs to serve the same model, decoded and run by the same packages."""
    return ["litserve==0.2.19", *map(_same_version, ("ai-edge-litert", "numpy", "pillow", "python-multipart"))]


def default_folder(name: str = "benchmark-peers") -> Path:
    """Where the peers' environment is made if nothing else is said."""
    return platformdirs.user_cache_path("imgrec", appauthor=False) / name


def peers_python(folder: Path, needed: list[str]) -> Path:
    """The interpreter of the peers' environment in `folder`; makes it, or brings it to what is `needed` now."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = "\n".join(needed) + "\n"
    made_from = folder / REQUIREMENTS
    if not made_from.is_file() or made_from.read_text(encoding="utf-8") != wanted:
        print(f"installing the peers into {folder}", file=sys.stderr)
        if not python.exists():
            venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *needed], check=True)
        made_from.write_text(wanted, encoding="utf-8")
    return python


def machine() -> str:
    """CPU model, its instructions for bfloat16, cores that may be used, and the system."""
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        facts = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if ":" in line
        )
        name, flags = facts.get("model name", name), facts.get("flags", "")
    found = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]
    from imgrec_cli.machine import available_cores

    return f"{name} ({', '.join(found) or 'no bfloat16 instructions'}), {available_cores()} cores, {platform.system()}"


def own_versions() -> dict[str, str]:
    """Python, imgrec with the commit of this checkout, and the packages that the peers have in the same version."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "no commit"
    from imgrec_cli import __version__

    same = dict(requirement.split("==") for requirement in requirements() if "==" in requirement)
    return {"imgrec": f"{__version__} ({commit})", "python": platform.python_version(), **same}
