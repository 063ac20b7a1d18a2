"""Contact sheets: one HTML file each, to look at pictures and decide about them by mouse or keyboard, offline."""

from imgrec_cli.sheets.kinds import audit_sheet, issues_sheet, next_sheet

__all__ = ["audit_sheet", "issues_sheet", "next_sheet"]
