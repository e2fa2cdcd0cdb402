"""The one error that a user of the analysis can cause."""


class AnalysisError(Exception):
    """One line that names the file or field, the value, and what is allowed."""
