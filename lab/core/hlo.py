"""A compiled program's text (HLO), read: computations, instructions, how often each one runs.

XLA's own cost analysis counts the body of a loop once. Here the number of turns of every loop is
found from its condition, so that what a scan over layers does is counted for each layer.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from lab.core.errors import LabError

BITS = {"pred": 8, "token": 0, "opaque": 0}  # of what is not named after its width
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SPLIT = "AsyncCollectiveStart"  # the custom call after a collective that goes on in other fusions


class Array(NamedTuple):
    """The type of an array, and the memory space it lies in (0: HBM, 1: a TPU's vector memory)."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Without the padding of tiles."""
        return self.size * _bits(self.dtype) / 8


def _bits(dtype: str) -> int:
    if dtype in BITS:
        return BITS[dtype]
    found = re.search(r"\d+", dtype)  # bf16, f8e4m3fn, s4, u32, c64
    if not found:
        raise LabError(f'HLO: the type "{dtype}" is not known')
    return int(found[0])


_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")


@functools.lru_cache(maxsize=65536)
def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a type, those of a tuple in their order."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(n.lstrip("<=")) for n in dims.split(",") if n)
        found.append(Array(dtype, sizes, int(space[1]) if space else 0))
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: %name = type opcode(operands), attributes."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    inner: str  # what stands between the parentheses
    attributes: str

    @property
    def arrays(self) -> tuple[Array, ...]:
        """What it gives."""
        return arrays_of(self.type)

    def attribute(self, name: str) -> str | None:
        """The value of an attribute up to the next comma or space; None where there is none."""
        found = re.search(rf"(?:^|[ ,]){name}=([^\s,]+)", self.attributes)
        return found[1] if found else None

    def called(self, name: str) -> str | None:
        """The computation that an attribute names."""
        found = self.attribute(name)
        return found.lstrip("%") if found else None

    @property
    def target(self) -> str:
        """What a custom call calls; of all else nothing."""
        return (self.attribute("custom_call_target") or "").strip('"')

    @property
    def aliased(self) -> frozenset[int]:
        """Which of its results lie, as the compiler says, where an operand does."""
        found = re.search(
            r"output_to_operand_aliasing=\{((?:\{[^}]*\}: \([^)]*\)[, ]*)*)", self.attributes
        )
        pairs = re.findall(r"\{(\d*)\}: \(", found[1]) if found else ()
        return frozenset(int(result or 0) for result in pairs)


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in their order, the root's name."""

    name: str
    instructions: dict[str, Instruction]
    root: str

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Who reads each instruction."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                if operand in found:
                    found[operand].append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Its parameters by number."""
        return {int(i.inner): i for i in self.instructions.values() if i.opcode == "parameter"}

    def given(self, instruction: Instruction) -> list[Array]:
        """The arrays of an instruction's operands; of a tuple none."""
        found = []
        for name in instruction.operands:
            operand = self.instructions.get(name)
            arrays = operand.arrays if operand else ()
            found.append(arrays[0] if len(arrays) == 1 else Array("token", (), 0))
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """A module."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def runs(self) -> dict[str, float]:
        """How often each computation runs in one call of the program.

        Of a branch: as often as its conditional, whichever branch is taken. A loop whose turns
        cannot be told counts once, and stands in `untold`.
        """
        return self._counted[0]

    def running(self) -> Iterator[tuple[Computation, Instruction, float]]:
        """Each instruction that runs, and how often."""
        for name, runs in self.runs.items():
            if runs:
                computation = self.computations[name]
                for instruction in computation.instructions.values():
                    yield computation, instruction, runs

    @functools.cached_property
    def split(self) -> frozenset[str]:
        """The channels of the collectives that are spread over several fusions."""
        found = {
            computation.instructions[name].attribute("channel_id")
            for computation in self.computations.values()
            for instruction in computation.instructions.values()
            if instruction.target == SPLIT
            for name in instruction.operands
        }
        return frozenset(channel for channel in found if channel)

    @functools.cached_property
    def untold(self) -> tuple[str, ...]:
        """The loops whose turns cannot be told."""
        return tuple(self._counted[1])

    @functools.cached_property
    def _counted(self) -> tuple[dict[str, float], list[str]]:
        counts = dict.fromkeys(self.computations, 0.0)
        untold: list[str] = []
        counts[self.entry] = 1.0
        for name in self._callers_first():
            for instruction in self.computations[name].instructions.values():
                for called, times in self._calls(self.computations[name], instruction, untold):
                    counts[called] += counts[name] * times
        return counts, untold

    def _callers_first(self) -> list[str]:
        """The computations that run, each after all that call it."""
        order: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            if name in seen:
                return
            seen.add(name)
            for instruction in self.computations[name].instructions.values():
                for called in called_by(instruction):
                    if called in self.computations:
                        visit(called)
            order.append(name)

        visit(self.entry)
        return order[::-1]

    def _calls(
        self, inside: Computation, instruction: Instruction, untold: list[str]
    ) -> Iterator[tuple[str, float]]:
        if instruction.opcode == "while":
            turns = self.turns(inside, instruction)
            if turns is None:
                untold.append(instruction.name)
            times = 1 if turns is None else turns
            body, condition = (instruction.called(name) for name in ("body", "condition"))
            if body in self.computations:
                yield body, times
            if condition in self.computations:
                yield condition, times + 1
            return
        for called in called_by(instruction):
            if called in self.computations:
                yield called, 1

    def turns(self, inside: Computation, loop: Instruction) -> int | None:
        """How often the body of a loop over a counter runs; None where it cannot be told."""
        known = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations[loop.called("condition") or ""]
        body = self.computations[loop.called("body") or ""]
        test = self._compared(condition)
        if test is None:
            return None
        index, limit, direction = test
        start = self._entry_value(inside, loop, index)
        step = self._step(body, index)
        if start is None or not step:
            return None
        if direction == "LE":
            limit += 1
        elif direction == "GE":
            limit -= 1
        elif direction not in ("LT", "GT"):
            return None
        return max(0, -((start - limit) // step))

    def _compared(self, condition: Computation) -> tuple[int, int, str] | None:
        """(which part of the state, the limit, the direction) of a condition."""
        root = condition.instructions[condition.root]
        inside, compare = condition, root
        if root.opcode == "fusion":
            inside = self.computations[root.called("calls") or ""]
            compare = inside.instructions[inside.root]
        if compare.opcode != "compare" or len(compare.operands) != 2:
            return None
        sides = [inside.instructions[name] for name in compare.operands]
        if inside is not condition:  # parameters of the fusion are what the condition gives it
            outer = condition.instructions
            given = [outer[name] for name in root.operands]
            sides = [given[int(s.inner)] if s.opcode == "parameter" else s for s in sides]
        sides = [
            _through(condition if s.name in condition.instructions else inside, s) for s in sides
        ]
        direction = compare.attribute("direction") or ""
        if sides[0].opcode == "constant" and sides[1].opcode == "get-tuple-element":
            sides = sides[::-1]
            direction = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction, direction)
        limit = _number(sides[1])
        if sides[0].opcode != "get-tuple-element" or limit is None:
            return None
        return int(sides[0].attribute("index") or 0), limit, direction

    def _entry_value(self, inside: Computation, loop: Instruction, index: int) -> int | None:
        state = _through(inside, inside.instructions[loop.operands[0]])
        if state.opcode != "tuple":
            return None
        return _number(_through(inside, inside.instructions[state.operands[index]]))

    def _step(self, body: Computation, index: int) -> int | None:
        """What a turn adds to the counter."""
        root = body.instructions[body.root]
        if root.opcode != "tuple":
            return None
        new = _through(body, body.instructions[root.operands[index]])
        operands = [body.instructions.get(name) for name in new.operands]
        inside = body
        if new.opcode == "fusion":
            inside = self.computations[new.called("calls") or ""]
            new = _through(inside, inside.instructions[inside.root])
            operands = [inside.instructions.get(name) for name in new.operands]
        if new.opcode != "add":
            return None
        added = [_number(_through(inside, each)) for each in operands if each]
        found = [number for number in added if number is not None]
        return found[0] if len(found) == 1 else None


_WRAPS = ("copy", "bitcast", "copy-done", "copy-start", "convert", "reshape", "opt-barrier")


def _through(inside: Computation, instruction: Instruction) -> Instruction:
    """Past copies and the like to what made the value."""
    while instruction.opcode in _WRAPS and instruction.operands[0] in inside.instructions:
        instruction = inside.instructions[instruction.operands[0]]
    return instruction


def _number(instruction: Instruction) -> int | None:
    if instruction.opcode != "constant" or not re.fullmatch(r"-?\d+", instruction.inner):
        return None
    return int(instruction.inner)


_CALLING = ("calls", "to_apply", "body", "condition", "true_computation", "false_computation")


def called_by(instruction: Instruction) -> list[str]:
    """The computations that an instruction calls."""
    found = [name for name in map(instruction.called, _CALLING) if name]
    branches = re.search(
        r"(?:branch_computations|called_computations)=\{([^}]*)\}", instruction.attributes
    )
    if branches:
        found += [name.strip().lstrip("%") for name in branches[1].split(",") if name.strip()]
    return found


_HEADER = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\) -> .*\{")
_LINE = re.compile(r"\s+(ROOT )?%?([^\s=]+) = (.*)")
_NAME = re.compile(r"%([^\s,()]+)")


def read(text: str) -> Program:
    """The program of a module's text, as `compiled.as_text()` gives it."""
    computations: dict[str, Computation] = {}
    entry = ""
    name, instructions, root = "", {}, ""
    for line in text.splitlines():
        if not line.startswith(" "):
            header = _HEADER.match(line)
            if header:
                name, instructions, root = header[2], {}, ""
                entry = name if header[1] else entry
            elif line.startswith("}") and name:
                computations[name] = Computation(name, instructions, root)
                name = ""
            continue
        matched = _LINE.match(line) if name else None
        if matched:
            instruction = _instruction(matched[2], matched[3])
            instructions[instruction.name] = instruction
            root = instruction.name if matched[1] else root
    if not entry:
        raise LabError("HLO: no ENTRY computation: this is not the text of a compiled program")
    return Program(computations, entry)


def _instruction(name: str, rest: str) -> Instruction:
    kind, rest = _type_and_rest(rest)
    opcode, _, rest = rest.partition("(")
    end = _closing(rest)
    inner = rest[:end]
    operands = tuple(_NAME.findall(inner)) if opcode != "constant" else ()
    return Instruction(name, kind, opcode, operands, inner, rest[end + 1 :].lstrip(", "))


def _type_and_rest(text: str) -> tuple[str, str]:
    if not text.startswith("("):
        kind, _, rest = text.partition(" ")
        return kind, rest
    end = _closing(text[1:]) + 2
    return text[:end], text[end:].lstrip()


def _closing(text: str) -> int:
    """Where the parenthesis closes that opened just before the text."""
    depth = 1
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise LabError(f"HLO: a parenthesis is not closed: {text[:60]}")
