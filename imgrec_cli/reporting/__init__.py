"""A run's folder → one page that can be opened anywhere and sent to a colleague."""

from imgrec_cli.reporting.card import write_card
from imgrec_cli.reporting.page import write_report
from imgrec_cli.reporting.repeats import write_repeats_report

__all__ = ["write_card", "write_repeats_report", "write_report"]
