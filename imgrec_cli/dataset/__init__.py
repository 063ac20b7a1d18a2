"""Folders of images → one data set: scan, split, pack."""

from imgrec_cli.dataset.cache import PackInfo, clear_packs, list_packs
from imgrec_cli.dataset.load import Dataset, Skipped, load_dataset, plan
from imgrec_cli.dataset.parts import PartPixels, Parts
from imgrec_cli.dataset.scan import Example, Listing, scan, scan_labelled
from imgrec_cli.machine import cache_folder

__all__ = [
    "Dataset",
    "Example",
    "Listing",
    "PackInfo",
    "PartPixels",
    "Parts",
    "Skipped",
    "cache_folder",
    "clear_packs",
    "list_packs",
    "load_dataset",
    "plan",
    "scan",
    "scan_labelled",
]
