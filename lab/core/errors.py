"""The one error a user sees, and the exit codes a launcher leaves with."""

import enum


class LabError(Exception):
    """Bad input (config, data, record, checkpoint, flag); a launcher prints it and exits with 2."""


class Stopped(Exception):
    """A wish to stop, raised by a launcher's callback: there is nothing wrong."""


class ExitCode(enum.IntEnum):
    """What a process says when it leaves; a launcher decides by it whether to start it again."""

    DONE = 0
    FAILURE = 1  # a defect of ours: the traceback is shown
    BAD_INPUT = 2  # one line says what and where
    DIVERGED = 3  # the loss is not finite or exploded; starting again gives the same
    INTERRUPTED = 75  # saved and left on SIGTERM or Ctrl-C: start me again (EX_TEMPFAIL)
