"""A run's folder → one page that can be opened anywhere and sent to a colleague."""

from imgrec_cli.reporting.card import write_card
from imgrec_cli.reporting.page import write_report

__all__ = ["write_card", "write_report"]
