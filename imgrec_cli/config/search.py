"""The `search` section: checked before anything starts, and the config of one trial."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgrec_cli.config.document import Problem, read_document
from imgrec_cli.config.loading import parse_config, read_text
from imgrec_cli.config.sections import Config, SearchChoices, SearchRange
from imgrec_cli.config.writing import PATH_KEYS, written
from imgrec_cli.errors import ConfigError

_EXAMPLE = "search: {optimizer.learning_rate: {low: 1e-4, high: 1e-1, log: true}}"


@dataclass(frozen=True, slots=True)
class Space:
    """A config file with a `search` section, as text, so that every trial is read as strictly as the file itself.

    `name` stands in messages, relative paths start at `base`, `overrides` are `key=value` texts.
    """

    text: str
    name: str
    base: Path
    overrides: tuple[str, ...]

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> "Space":
        """The space of a file. Raises ConfigError with every value that cannot be tried, at its place."""
        space = cls(read_text(path), str(path), path.parent, tuple(overrides))
        config = space.config
        if not config.search:
            raise ConfigError(f"{path}: has no search section", f"say what to try, such as\n  {_EXAMPLE}")
        if problems := list(space._problems(config)):
            raise ConfigError("\n".join(str(problem) for problem in problems))
        return space._with_whole_paths(config)

    @property
    def config(self) -> Config:
        """The config as it is written."""
        return parse_config(self.text, self.name, self.base, self.overrides)

    @property
    def ranges(self) -> dict[str, SearchRange | SearchChoices]:
        return dict(self.config.search)

    def written_value(self, key: str) -> Any:
        """What the config has for a searched key; None where it has nothing there."""
        found: Any = self.config.model_dump(mode="json")
        for part in key.split("."):
            try:
                found = found[int(part)] if isinstance(found, list) else found[part]
            except (KeyError, IndexError, ValueError, TypeError):
                return None
        return found

    def of_trial(self, settings: Mapping[str, Any]) -> Config:
        """The config with these values in place of its own, without the search.

        Raises ConfigError where they do not go together.
        """
        overrides = [*self.overrides, *(f"{key}={written(value)}" for key, value in settings.items())]
        config = parse_config(self.text, self.name, self.base, overrides)
        return config.model_copy(update={"search": {}})

    def _problems(self, config: Config) -> Iterator[Problem]:
        """Every end and every choice that the config does not take; one at a time."""
        document = read_document(self.text, self.name)
        for key, values in config.search.items():
            tried: list[tuple[tuple[str | int, ...], Any]] = (
                [(("low",), values.low), (("high",), values.high)]
                if isinstance(values, SearchRange)
                else [(("choices", number), value) for number, value in enumerate(values.choices)]
            )
            for where, value in tried:
                setting = f"{key}={written(value)}"
                try:
                    self.of_trial({key: value})
                except ConfigError as error:
                    told = error.message.splitlines()[0].removeprefix(f"--set {setting}: ")
                    path = ("search", key, *where)
                    yield Problem(document.place_of(path), path, told.removeprefix(f"{key}: "))

    def _with_whole_paths(self, config: Config) -> "Space":
        """The same, with absolute paths in the overrides: another process may stand in another folder."""
        content = config.model_dump(mode="json")

        def whole(setting: str) -> str:
            key = setting.partition("=")[0].strip()
            if key not in PATH_KEYS:
                return setting
            section, name = key.split(".")
            return f"{key}={written(content[section][name])}"

        overrides = tuple(whole(setting) for setting in self.overrides)
        return Space(self.text, self.name, self.base.absolute(), overrides)
