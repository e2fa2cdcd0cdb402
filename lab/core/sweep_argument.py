"""The argument that an experiment's sweep takes: "sweep.py:PART,FACTOR,CHOICE"."""

import dataclasses
from collections.abc import Mapping, Sequence

from lab.core.errors import LabError

MOST = 100.0  # times the lengths of the experiment


@dataclasses.dataclass(frozen=True)
class SweepArgument:
    """Which part of an experiment, the factor on all lengths, and one more choice ("": none)."""

    part: str
    factor: float
    choice: str

    @property
    def suffix(self) -> str:
        """That of the study's name."""
        return suffix_of(self.factor)


def suffix_of(factor: float) -> str:
    """What a rehearsal, or a longer study, adds to the name of the study."""
    return "" if factor == 1 else f"_x{factor:g}"


def read_argument(
    argument: str,
    parts: Sequence[str],
    choices: Mapping[str, Sequence[str]] | None = None,
) -> SweepArgument:
    """The parts of "PART", "PART,FACTOR" or "PART,FACTOR,CHOICE"; 1 and the first choice otherwise.

    `choices` are by part. Raises LabError that says what is allowed.
    """
    part, factor, choice, *more = [*argument.split(","), "", ""]
    allowed = (choices or {}).get(part, ())
    try:
        number = float(factor or 1)
    except ValueError:
        number = 0.0
    known = part in parts and not any(more) and (choice in allowed or not choice)
    if not known or not 0 < number <= MOST:
        lists = [f"{', '.join(each)} (of {name})" for name, each in (choices or {}).items()]
        third = f", then {' or '.join(lists)}" if lists else ""
        raise LabError(
            f"sweep.py:{argument}: allowed are {', '.join(parts)}, then a factor in (0, {MOST:g}]"
            f"{third}"
        )
    return SweepArgument(part, number, choice or next(iter(allowed), ""))
