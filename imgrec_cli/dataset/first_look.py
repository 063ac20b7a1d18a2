"""What a folder of images is like, from names and a sample of headers: what a starter config is chosen by."""

import math
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from imgrec_cli.config import Data
from imgrec_cli.dataset.scan import Example, scan
from imgrec_cli.errors import BadImageError, DataError
from imgrec_cli.imaging import header
from imgrec_cli.storage import located

SAMPLED = 200
# the last number of a name, behind a separator: frame_0012, slide3-7, p1 (4)
_NUMBERED = re.compile(r"^(.+?)[-_. (]+[a-z]*\d+\)?$", re.IGNORECASE)
GROUP = r"([^/]+?)[-_. (]+[a-zA-Z]*\d+\)?\.\w+$"


@dataclass(frozen=True, slots=True)
class FirstLook:
    """Training images per class; of a sample of them the shorter sides, the ratios of the longer to the shorter one,
    whether all are gray and any has more than 8 bits.

    `given` are the splits that have folders of their own. `groups` counts what the names put together, 0 where they
    say nothing of it; `in_every_class` is the least number of groups in a class. `by_number` is whether the classes
    are digits or single letters.
    """

    per_class: dict[str, int]
    given: frozenset[str]
    sides: list[int]
    ratios: list[float]
    gray: bool
    deep: bool
    groups: int
    in_every_class: int
    example: str
    by_number: bool

    @property
    def images(self) -> int:
        return sum(self.per_class.values())

    @property
    def fewest(self) -> str:
        """The class with the fewest images."""
        return min(self.per_class, key=lambda name: self.per_class[name])

    @property
    def most(self) -> str:
        return max(self.per_class, key=lambda name: self.per_class[name])

    @property
    def side(self) -> int:
        """The shorter side in the middle of the sample, in pixels."""
        return round(median(self.sides))


def look_at(data: Data, data_folder: Path) -> FirstLook:
    """Look at the training images of `data`. Raises DataError for folders that cannot be trained on."""
    listing = scan(data, "imgrec config init")
    training = [example for example in listing.examples if example.split == "train"]
    sides, ratios, all_gray, any_deep, reason = [], [], True, False, ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images so large that Pillow suspects an attack; only headers are read
        for example in training[:: math.ceil(len(training) / SAMPLED)]:
            try:
                size, gray, deep = header(located(example.file))
            except BadImageError as error:
                reason = reason or f"{example.file}: {error.message}"
                continue
            sides.append(min(size))
            ratios.append(max(size) / min(size))
            all_gray, any_deep = all_gray and gray, any_deep or deep
    if not sides:
        raise DataError(
            f"{data_folder}: none of the images looked at can be read, such as {reason}", "replace the damaged files"
        )
    groups, in_every_class, named = (0, 0, "") if data.group else _groups(training)
    return FirstLook(
        Counter(listing.class_names[example.label] for example in training),
        frozenset(listing.given),
        sides,
        ratios,
        all_gray,
        any_deep,
        groups,
        in_every_class,
        named,
        all(re.fullmatch(r"\d+|[A-Za-z]", name) for name in listing.class_names),
    )


def _groups(training: list[Example]) -> tuple[int, int, str]:
    """Groups that names such as `patient3_0012.png` put together: how many, the least in a class, and one of them.

    None are taken where fewer than nine of ten names are numbered so, where most groups are of one image, or where a
    class is one group: then what stands before the number says nothing of where an image comes from.
    """
    members: Counter[str] = Counter()
    by_class: defaultdict[int, set[str]] = defaultdict(set)
    for example in training:
        if found := _NUMBERED.match(Path(example.path).stem):
            members[found[1]] += 1
            by_class[example.label].add(found[1])
    if sum(members.values()) < 0.9 * len(training) or len(members) > sum(members.values()) / 2:
        return 0, 0, ""
    least = min(len(groups) for groups in by_class.values())
    return (len(members), least, members.most_common(1)[0][0]) if least > 1 else (0, 0, "")
