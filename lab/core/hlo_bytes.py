"""The bytes of HBM that a compiled program reads and writes in one call, of one device.

Each instruction counts as often as it runs. A fusion reads what its instructions need of its
operands and writes its results; what happens between them stays on the chip.
"""

import dataclasses
from collections.abc import Iterator, Sequence

from lab.core.hlo import COLLECTIVES, SPLIT, Array, Computation, Instruction, Program

# What moves nothing by itself: its parts are counted where they are read or made.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while conditional call after-all "
    "partition-id replica-id opt-barrier add-dependency async-start".split()
)
_FREE_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")
_SLICES = ("dynamic-slice", "slice", "gather")
_VIEWS = ("bitcast", "copy", "reshape", "transpose", "convert", "pad")  # made as they are read


def hbm_bytes(program: Program) -> float:
    """Bytes that the program reads from HBM and writes to it.

    An array in the vector memory of a TPU moves nothing; of a stack that a loop reads or writes
    one layer of, the layer. What the compiler would keep in caches of other devices is not known.
    """
    inlined = {
        called
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        for called in (instruction.called("calls"), instruction.called("to_apply"))
        if called and instruction.opcode not in ("call", "async-start")
    }
    return sum(
        runs * _moved(program, computation, instruction)
        for computation, instruction, runs in program.running()
        if computation.name not in inlined
    )


def _in_hbm(array: Array, dims: tuple[int, ...] | None = None) -> float:
    """Bytes of an array, or of a part of it with other dimensions."""
    part = array if dims is None else array._replace(dims=dims)
    return part.bytes if array.space == 0 else 0.0


def _moved(program: Program, computation: Computation, instruction: Instruction) -> float:
    opcode = instruction.opcode.removesuffix("-start")
    if instruction.opcode in _FREE or instruction.target in _FREE_CALLS:
        return 0.0
    if opcode.endswith(("-done", "-update")):  # counted at the start
        return 0.0
    if opcode == "fusion":
        return _moved_by_fusion(program, computation, instruction)
    given, made = computation.given(instruction), _made(instruction)
    if opcode in ("copy", *_SLICES):
        indices = sum(map(_in_hbm, given[1:])) if opcode == "gather" else 0.0
        return _in_hbm(made[0]) + _in_hbm(given[0], made[0].dims) + indices
    update = _update(computation, instruction)
    if update:
        written = _in_hbm(given[0], update.dims)
        adds = written + _in_hbm(given[1]) if opcode == "scatter" else 0.0  # to what it finds
        return written + _in_hbm(update) + adds
    return sum(map(_in_hbm, given)) + sum(map(_in_hbm, made))


def _made(instruction: Instruction) -> Sequence[Array]:
    """The results; the type of an asynchronous start names its operands as well."""
    arrays, opcode = instruction.arrays, instruction.opcode
    if opcode in ("copy-start", "recv"):  # (result, operand, context), (result, context, token)
        return arrays[:1]
    if opcode == "send":
        return ()
    if opcode.endswith("-start") and opcode != "all-reduce-start":  # (operands, results, contexts)
        return arrays[len(instruction.operands) :]
    return arrays


@dataclasses.dataclass(frozen=True)
class _Fused:
    """A fused computation, the fusion that calls it, and in what other one that stands."""

    program: Program
    inside: Computation
    fusion: Instruction
    outer: "_Fused | None" = None

    def nested(self, fusion: Instruction) -> "_Fused":
        """The computation of a fusion in this one."""
        inside = self.program.computations[fusion.called("calls") or ""]
        return _Fused(self.program, inside, fusion, self)


_Kept = set[tuple[str, str]]  # values, by computation and name, that lie where a result does


def _moved_by_fusion(program: Program, outer: Computation, fusion: Instruction) -> float:
    fused = _Fused(program, program.computations[fusion.called("calls") or ""], fusion)
    root = fused.inside.instructions[fused.inside.root]
    results = root.operands if root.opcode == "tuple" else [root.name] * len(fusion.arrays)
    total, kept, aliased = 0.0, _Kept(), fusion.aliased
    for number, (name, array) in enumerate(zip(results, fusion.arrays, strict=True)):
        written, values = _written(fused, name, array, aliased=number in aliased)
        total += written
        kept |= values
    for number, array in enumerate(outer.given(fusion)):
        if number in fused.inside.parameters:
            total += _read(fused, fused.inside.parameters[number].name, array, kept)
    return total


def _written(fused: _Fused, name: str, array: Array, *, aliased: bool) -> tuple[float, _Kept]:
    """Bytes of a result that a fusion writes, and the values that lie where the result does.

    Of a parameter that is updated in place, the updates; of one that passes through, nothing.
    """
    values = list(_in_place(fused, name))
    last, made = values[-1]
    if aliased and (made.target == SPLIT or _goes_on(last, made)):
        return 0.0, set()
    updates = [update for where, value in values if (update := _update(where.inside, value))]
    whole = _in_hbm(array)
    if made.opcode != "parameter" or not (updates or aliased):
        return whole, set()
    if made.arrays[0].space != array.space:
        return whole, set()
    kept = {(where.inside.name, value.name) for where, value in values}
    return min(whole, sum(_in_hbm(array, update.dims) for update in updates)), kept


def _update(inside: Computation, instruction: Instruction) -> Array | None:
    """What an instruction writes into its first operand, in place; None of all other ones."""
    given = inside.given(instruction)
    if instruction.opcode == "dynamic-update-slice":
        return given[1]
    if instruction.opcode == "scatter" and len(given) == 3:  # one operand, indices, updates
        return given[2]
    return None


def _in_place(fused: _Fused, name: str) -> Iterator[tuple[_Fused, Instruction]]:
    """A value and those before it in the same place, back to what made the first of them.

    The compiler gives a fusion's updated result the place of its operand, and copies an operand
    that is needed later before the fusion.
    """
    where: _Fused | None = fused
    while where is not None:
        value = where.inside.instructions[name]
        yield where, value
        if value.opcode == "bitcast" or _update(where.inside, value):
            name = value.operands[0]
        elif value.opcode == "fusion":
            where = where.nested(value)
            name = where.inside.root
        elif value.opcode == "parameter" and where.outer is not None:
            name = where.fusion.operands[int(value.inner)]
            where = where.outer
        else:
            return


def _goes_on(fused: _Fused, instruction: Instruction) -> bool:
    """Whether a collective that another fusion starts only goes on, or ends, in this one.

    The compiler for TPUs threads its source and its destination through the fusions that hide it.
    """
    if instruction.target == "AsyncCollectiveDone":
        return True
    if instruction.opcode not in COLLECTIVES:
        return False
    channel, users = instruction.attribute("channel_id"), fused.inside.users[instruction.name]
    return channel in fused.program.split and all(user.target != SPLIT for user in users)


def _read(fused: _Fused, name: str, array: Array, kept: _Kept) -> float:
    """Bytes that a fusion reads of an array, which a value in it holds: what its users need."""
    whole, total = _in_hbm(array), 0.0
    if name == fused.inside.root:
        if fused.outer is not None:
            total = _read(fused.outer, fused.fusion.name, array, kept)
        elif (fused.inside.name, name) not in kept:
            total = whole
    for user in fused.inside.users[name]:
        if total >= whole:
            break
        total += _read_by(user, fused, name, array, kept)
    return min(total, whole)


def _read_by(user: Instruction, fused: _Fused, name: str, array: Array, kept: _Kept) -> float:
    inside, first = fused.inside, user.operands.index(name) == 0 and user.operands.count(name) == 1
    if user.opcode in _SLICES and first:
        return _in_hbm(array, user.arrays[0].dims)
    if user.opcode in _VIEWS:
        return _read(fused, user.name, array, kept)
    update = _update(inside, user)
    if update and first:
        found = _in_hbm(array, update.dims) if user.opcode == "scatter" else 0.0  # what it adds to
        return found + _read(fused, user.name, array, kept)
    if user.opcode == "fusion":
        nested = fused.nested(user)
        return sum(
            _read(nested, nested.inside.parameters[number].name, array, kept)
            for number, operand in enumerate(user.operands)
            if operand == name and number in nested.inside.parameters
        )
    passed = user.name == inside.root and user.opcode == "tuple" and (inside.name, name) in kept
    return 0.0 if passed or _goes_on(fused, user) else _in_hbm(array)
