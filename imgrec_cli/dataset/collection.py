"""All images of a config as they were found: what the audit looks at, and what a data set is made of."""

from dataclasses import dataclass

from imgrec_cli.dataset.corrections import Corrected
from imgrec_cli.dataset.pack import Facts, Pack
from imgrec_cli.dataset.scan import Listing
from imgrec_cli.imaging import PixelSpec


@dataclass(frozen=True, slots=True)
class Collection:
    """All images of a config as they were found, before any is set aside.

    `corrected` holds the listing with the labels that count. `facts[i]` and `shown[i]`, a short name, belong to
    `listing.examples[i]`; `rows[i]` is its row in `pack.pixels`, for readable images only.
    """

    corrected: Corrected
    pack: Pack
    spec: PixelSpec
    shown: list[str]

    @property
    def listing(self) -> Listing:
        return self.corrected.listing

    @property
    def facts(self) -> list[Facts]:
        return self.pack.facts

    @property
    def rows(self) -> dict[int, int]:
        readable = [place for place, fact in enumerate(self.facts) if not fact.reason]
        return {place: row for row, place in enumerate(readable)}
