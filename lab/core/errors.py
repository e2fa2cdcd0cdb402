"""The one error a user sees, and the exit codes a launcher leaves with."""

import enum


class LabError(Exception):
    """Bad input (config, data, record, checkpoint, flag); a launcher prints it and exits with 2."""


class NotSaved(LabError):
    """A checkpoint could not be written; a launcher prints it and exits with 4."""


class Stopped(Exception):
    """A wish to stop, raised by a launcher's callback: there is nothing wrong."""


class ExitCode(enum.IntEnum):
    """What a process says when it leaves; a launcher decides by it whether to start it again.

    docs/reliability.md has the table for people. A process that is aborted from outside Python
    has no code of ours: jax does that (134, SIGABRT) where process 0 of several dies.
    """

    DONE = 0
    FAILURE = 1  # a defect of ours: the traceback is shown
    BAD_INPUT = 2  # one line says what and where
    DIVERGED = 3  # the loss is not finite or exploded; starting again gives the same
    NOT_SAVED = 4  # a checkpoint could not be written; make room, then start me again
    HANG = 5  # a process of several stands still, and is named: start all again
    HOST_LOST = 6  # a process of several died, and is named: start all again
    INTERRUPTED = 75  # saved and left on SIGTERM or Ctrl-C: start me again (EX_TEMPFAIL)
