"""To which part of a training step each instruction of a compiled program belongs."""

import dataclasses
import enum
import re
from collections import Counter
from collections.abc import Iterator

from lab.core.hlo import COLLECTIVES, Instruction, Program, called_by
from lab.core.scopes import CONVOLUTION, Direction, direction_of, part_of

COPIES = "copies"
OTHER = "other"
_CONTAINERS = ("while", "conditional", "call")
_TRANSFERS = (*COLLECTIVES, "ragged-all-to-all", "collective-broadcast", "send", "recv")
_MOVES = ("copy", "transpose")
_PLAIN = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "reshape", "broadcast")


class Kind(enum.IntEnum):
    """What counts first where several instructions run at once."""

    WORK = 0
    TRANSFER = 1  # between devices, or a copy that goes on by itself: counts where no work hides it
    REST = 2  # a loop or a call, whose instructions are counted; counts between them


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an instruction belongs."""

    part: str
    direction: Direction | None  # None of what the compiler adds and gives no name
    kind: Kind


def places(program: Program) -> dict[str, Place]:
    """The place of every instruction, by name.

    Collectives are parts by their own kinds, whatever they bring together; copies and transposes
    that no scope owns are another. An instruction without a scope is of the part that most of the
    instructions inside it name. In a convolutional network a convolution without any name is the
    gradient of a weight: XLA on CPU makes one with its factors turned, and does not name it.
    """
    every = [each for of in program.computations.values() for each in of.instructions.values()]
    found = {instruction.name: _place(program, instruction) for instruction in every}
    if any(place.part == CONVOLUTION for place in found.values()):
        gradient = Place(CONVOLUTION, Direction.BACKWARD, Kind.WORK)
        for each in every:
            if each.opcode == "convolution" and found[each.name].direction is None:
                found[each.name] = gradient
    return found


def _place(program: Program, instruction: Instruction) -> Place:
    inside = list(_inside(program, instruction))
    name = _op_name(program, instruction, inside)
    direction = direction_of(name) if name else None
    transfer = _transfer(instruction, inside)
    if transfer:
        return Place(transfer, direction, Kind.TRANSFER)
    opcode = _base(instruction.opcode)
    part = part_of(name)
    if part is None:
        part = COPIES if _moves(opcode, inside) else OTHER
    alone = opcode in _MOVES and opcode != instruction.opcode  # copy-start, copy-done
    kind = Kind.REST if opcode in _CONTAINERS else Kind.TRANSFER if alone else Kind.WORK
    return Place(part, direction, kind)


def _base(opcode: str) -> str:
    return re.sub(r"-(start|done|update)$", "", opcode)


def _inside(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The instructions of a fusion, or of what an asynchronous start wraps; not of loops."""
    if instruction.opcode not in ("fusion", "async-start"):
        return
    for called in called_by(instruction):
        if called in program.computations:
            for each in program.computations[called].instructions.values():
                yield each
                yield from _inside(program, each)


def _transfer(instruction: Instruction, inside: list[Instruction]) -> str | None:
    """The kind of a collective, alone or in a fusion that multiplies nothing."""
    opcode = _base(instruction.opcode)
    if opcode in _TRANSFERS:
        return opcode
    if any(each.opcode in ("dot", "convolution") for each in inside):
        return None
    return next((_base(i.opcode) for i in inside if _base(i.opcode) in _TRANSFERS), None)


def _moves(opcode: str, inside: list[Instruction]) -> bool:
    working = [i.opcode for i in inside if i.opcode not in _PLAIN]
    return opcode in _MOVES or (bool(working) and all(each in _MOVES for each in working))


def _op_name(program: Program, instruction: Instruction, inside: list[Instruction]) -> str:
    """Its own name where a scope stands in it, or the most common such name inside it."""
    own = _metadata(instruction)
    if part_of(own):
        return own
    named = [name for each in inside if part_of(name := _metadata(each))]
    return Counter(named).most_common(1)[0][0] if named else own


def _metadata(instruction: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return found[1] if found else ""
