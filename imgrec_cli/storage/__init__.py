"""Where image files lie: on disk, inside tar shards, behind a URL. All of them are named and opened alike.

A name is a path, or a URL as it is written. A member of a shard is named as if the shard were a folder:
`shards/train-000.tar/cat/1.jpg`.
"""

from imgrec_cli.storage.opening import File, Stamp, located, open_file, stamp_of
from imgrec_cli.storage.remote import REQUESTS, is_url, list_files
from imgrec_cli.storage.shards import are_shards, expanded, members, parted

__all__ = [
    "REQUESTS",
    "File",
    "Stamp",
    "are_shards",
    "expanded",
    "is_url",
    "list_files",
    "located",
    "members",
    "open_file",
    "parted",
    "stamp_of",
]
