"""`python -m imgrec_cli` is `imgrec`."""

from imgrec_cli.cli import main

main()
