"""A Config, or a part of it, as YAML text that the strict reader reads back unchanged."""

import os
from pathlib import Path
from typing import Any

import yaml

from imgrec_cli.config.document import plain_scalar
from imgrec_cli.config.sections import Config
from imgrec_cli.storage import is_url

# keys that hold a path, and the words that are none
PATH_KEYS = (
    *("data.folder", "data.train", "data.validation", "data.test", "data.manifest", "data.corrections"),
    *("model.weights", "model.start_from", "teacher.run"),
)
NO_PATHS = ("none", "imagenet")


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML quotes what YAML 1.1 would misread, but leaves words such as 1e-3 bare, which are numbers in YAML 1.2
    style = None if isinstance(plain_scalar(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def written(value: Any) -> str:
    """One value in YAML's inline form, such as `{type: flip, axis: horizontal}`."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")


def resolved_yaml(config: Config, relative_to: Path) -> str:
    """Every value of a config as YAML that `load_config` reads back equal from the folder `relative_to`.

    Paths are written relative to that folder where both lie below a common one, else absolute.
    """
    content = config.model_dump(mode="json")
    for section, key in (name.split(".") for name in PATH_KEYS):
        path = (content[section] or {}).get(key)
        if isinstance(path, list):
            content[section][key] = [_place_from(relative_to, one) for one in path]
        elif path is not None and path not in NO_PATHS:
            content[section][key] = _place_from(relative_to, path)
    text: str = yaml.dump(
        content, Dumper=_Dumper, default_flow_style=None, sort_keys=False, allow_unicode=True, width=120
    )
    return text


def _place_from(base: Path, place: str) -> str:
    return place if is_url(place) else path_from(base, Path(place))


def path_from(base: Path, path: Path) -> str:
    """`path` as it is written in a config in folder `base`, with `/`: relative where the two share more than a root."""
    # abspath, not resolve: that would follow links, and `..` then counts differently
    here, there = os.path.abspath(base), os.path.abspath(path)  # noqa: PTH100
    try:
        common = Path(os.path.commonpath([here, there]))
    except ValueError:  # two drives of Windows
        return Path(there).as_posix()
    if common == Path(common.anchor):
        return Path(there).as_posix()
    relative = Path(os.path.relpath(there, here)).as_posix()
    return f"./{relative}" if relative.startswith("~") else relative
