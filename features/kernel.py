"""`features.compile`'s straight-line code as one loop for all pipelines, over numbers that say what to do.

What differs between pipelines is a program: an array of integers (`features.program` writes it). So one function is to
be compiled, once for each machine, and not one for each pipeline. It does the same operations in the same order as the
generated Python, and so gives the same bits. Needs numba; `features.compiled` says when it is used.
"""

import math
from typing import Any

import numba
from numba.extending import intrinsic

from features import compiled

FULL_TILES = 12
SLOTS = 13

# A program: a header, then for each entity
#
#     lengths of its two arrays, seen, newest, how many windows
#     for each window:  length of a tile, head, how many rings, its first total, read again?, how many shifts
#                       for each shift:  variable, place
#                       for each ring:   how tiles become a total, in floats?, total, first tile, kind, variable, shift
#     columns before the event, decays (variable, half-life, place), last values (variable, place), columns after it
#
# where each of the last four begins with how many there are, and a column is: kind, place in the vector, total, second
# total, count. Totals are numbered through all windows.
HEADER = 7
ENTITIES, BITS, ADDRESSES, NUMBERS, VECTOR, INT_TOTALS, FLOAT_TOTALS = range(HEADER)
TILE_MS, HEAD, RINGS, FIRST_TOTAL, AGAIN, SHIFTS, WINDOW = range(7)  # of a window, and what it takes
HOW, IN_FLOATS, TOTAL, CELLS, KIND, VARIABLE, SHIFT, RING = range(8)  # of a ring, likewise
ADD, MIN, MAX, OR = range(4)  # how
ONE, VALUE, DEVIATION, SQUARE, LOWER, HIGHER, BIT = range(7)  # kind of a ring: what an event adds
COUNT, DISTINCT, TOTAL_OF, MEAN, STD, EXTREME, SINCE_LAST, LAST, EWM = range(9)  # kind of a column
COLUMN = 5
# Places among the floats: one half, which is read and not written, since of a literal LLVM might make another power
# that rounds otherwise; then the 65 estimates of linear counting.
HALF, ESTIMATES = 0, 1

_helper: Any = numba.njit(error_model="numpy", no_cpython_wrapper=True)


@intrinsic  # type: ignore[untyped-decorator]
def _integers_at(_context: Any, address: Any) -> Any:
    """A pointer from an address, which `array.buffer_info` gives; the cells stay where they are."""
    signature = numba.types.CPointer(numba.types.int64)(address)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, code


@intrinsic  # type: ignore[untyped-decorator]
def _floats_at(_context: Any, address: Any) -> Any:
    signature = numba.types.CPointer(numba.types.float64)(address)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, code


@_helper  # type: ignore[untyped-decorator]
def _fold(plan: Any, ring: int, q: Any, d: Any, first: int, tile: int) -> tuple[int, float]:
    """One ring over some tiles, oldest first: an integer or a float, as its cells are; `features.profile.between`."""
    how, base = plan[ring + HOW], plan[ring + CELLS]
    if not plan[ring + IN_FLOATS]:
        whole = 0
        for number in range(first, tile + 1):
            cell = q[base + number % SLOTS]
            whole = whole | cell if how == OR else whole + cell
        return whole, 0.0
    value = 0.0
    if how == MIN:
        value = math.inf
    elif how == MAX:
        value = -math.inf
    for number in range(first, tile + 1):
        cell = d[base + number % SLOTS]
        if how == ADD:
            value += cell
        elif how == MIN:
            value = cell if cell < value else value
        else:
            value = cell if cell > value else value
    return 0, value


@_helper  # type: ignore[untyped-decorator]
def _advance(plan: Any, window: int, q: Any, d: Any, tile: int) -> None:
    """Move the running tile on; `features.profile.advance`."""
    head, rings = plan[window + HEAD], window + WINDOW + 2 * plan[window + SHIFTS]
    last = rings + RING * plan[window + RINGS]
    gone = False
    for number in range(max(q[head], tile - SLOTS) + 1, tile + 1):
        slot = number % SLOTS
        if q[plan[rings + CELLS] + slot]:
            gone = True
            for ring in range(rings, last, RING):
                cell = plan[ring + CELLS] + slot
                if not plan[ring + IN_FLOATS]:
                    q[cell] = 0
                elif plan[ring + HOW] == MIN:
                    d[cell] = math.inf
                elif plan[ring + HOW] == MAX:
                    d[cell] = -math.inf
                else:
                    d[cell] = 0.0
    q[head] = tile
    if gone:
        for ring in range(rings, last, RING):
            whole, value = _fold(plan, ring, q, d, max(tile - FULL_TILES, 0), tile)
            if plan[ring + IN_FLOATS]:
                d[plan[ring + TOTAL]] = value
            else:
                q[plan[ring + TOTAL]] = whole


@_helper  # type: ignore[untyped-decorator]
def _read(plan: Any, window: int, q: Any, d: Any, t: int, ints: Any, floats: Any) -> None:
    """Bring the totals up to date and note them; an event older than the running tile folds its own tiles."""
    tile, head = t // plan[window + TILE_MS], plan[window + HEAD]
    rings = window + WINDOW + 2 * plan[window + SHIFTS]
    if tile > q[head]:
        _advance(plan, window, q, d, tile)
    late = tile != q[head]
    first = max(q[head] - FULL_TILES, tile - FULL_TILES, 0)
    for number in range(plan[window + RINGS]):
        ring = rings + RING * number
        if late:
            whole, value = _fold(plan, ring, q, d, first, tile)
        elif plan[ring + IN_FLOATS]:
            whole, value = 0, d[plan[ring + TOTAL]]
        else:
            whole, value = q[plan[ring + TOTAL]], 0.0
        ints[plan[INT_TOTALS] + plan[window + FIRST_TOTAL] + number] = whole
        floats[plan[FLOAT_TOTALS] + plan[window + FIRST_TOTAL] + number] = value


@_helper  # type: ignore[untyped-decorator]
def _update(plan: Any, window: int, q: Any, d: Any, t: int, ints: Any, floats: Any) -> bool:
    """Add the event to its tile and to the totals; whether it came too late for that."""
    tile = t // plan[window + TILE_MS]
    if tile < q[plan[window + HEAD]] - FULL_TILES:
        return True
    slot, rings = tile % SLOTS, window + WINDOW + 2 * plan[window + SHIFTS]
    if not q[plan[rings + TOTAL]]:
        for shift in range(window + WINDOW, rings, 2):
            d[plan[shift + 1]] = floats[plan[NUMBERS] + plan[shift]]
    for ring in range(rings, rings + RING * plan[window + RINGS], RING):
        kind, variable = plan[ring + KIND], plan[ring + VARIABLE]
        total, cell = plan[ring + TOTAL], plan[ring + CELLS] + slot
        if kind == ONE:
            q[total] += 1
            q[cell] += 1
        elif kind == BIT:
            q[total] |= ints[plan[BITS] + variable]
            q[cell] |= ints[plan[BITS] + variable]
        else:
            x = floats[plan[NUMBERS] + variable]
            if kind == LOWER:
                d[total] = x if x < d[total] else d[total]
                d[cell] = x if x < d[cell] else d[cell]
            elif kind == HIGHER:
                d[total] = x if x > d[total] else d[total]
                d[cell] = x if x > d[cell] else d[cell]
            else:
                if kind != VALUE:
                    x -= d[plan[ring + SHIFT]]
                if kind == SQUARE:
                    x *= x
                d[total] += x
                d[cell] += x
    return False


@_helper  # type: ignore[untyped-decorator]
def _estimate(bits: int) -> int:
    """How many bits are set."""
    count = 0
    while bits:
        bits &= bits - 1
        count += 1
    return count


@_helper  # type: ignore[untyped-decorator]
def _column(plan: Any, column: int, d: Any, ints: Any, floats: Any, gap: float) -> Any:
    """One number of the vector."""
    op, a, b, n = plan[column], plan[column + 2], plan[column + 3], ints[plan[INT_TOTALS] + plan[column + 4]]
    if op == COUNT:
        return float(n)
    if op == DISTINCT:
        return floats[ESTIMATES + _estimate(ints[plan[INT_TOTALS] + a])]
    if op == TOTAL_OF:
        return floats[plan[FLOAT_TOTALS] + a]
    if op == MEAN:
        return floats[plan[FLOAT_TOTALS] + a] / float(n) if n else 0.0
    if op == STD:
        if n < 2:
            return 0.0
        deviation = floats[plan[FLOAT_TOTALS] + a]
        variance = (floats[plan[FLOAT_TOTALS] + b] - deviation * deviation / float(n)) / float(n)
        return math.sqrt(variance) if variance > 0.0 else 0.0
    if op == EXTREME:
        return floats[plan[FLOAT_TOTALS] + a] if n else 0.0
    if op == SINCE_LAST:
        return gap
    if op == LAST:
        return d[a]
    return d[a] / d[b] if d[b] != 0.0 else 0.0


def step(plan: Any, floats: Any, ints: Any) -> bool:
    """One event: the vector into the floats, its profiles brought on; whether it came too late for some window.

    Args:
        plan: the program.
        floats: constants, the event's numbers, the vector, and room for totals.
        ints: the time, the event's bits, the addresses of its profiles' arrays, and room for totals.
    """
    t, late, at = ints[0], False, HEADER
    for entity in range(plan[ENTITIES]):
        q = numba.carray(_integers_at(ints[plan[ADDRESSES] + 2 * entity]), plan[at])
        d = numba.carray(_floats_at(ints[plan[ADDRESSES] + 2 * entity + 1]), plan[at + 1])
        seen, newest = q[plan[at + 2]], q[plan[at + 3]]
        gap = float(t - newest) / 1000.0 if seen and t > newest else 0.0
        windows, last = at + 5, at + 5
        for _ in range(plan[at + 4]):
            _read(plan, last, q, d, t, ints, floats)
            last += WINDOW + 2 * plan[last + SHIFTS] + RING * plan[last + RINGS]
        column = last + 1
        for _ in range(plan[last]):
            floats[plan[VECTOR] + plan[column + 1]] = _column(plan, column, d, ints, floats, gap)
            column += COLUMN
        # What runs on without a window: decayed sums, and last values.
        q[plan[at + 2]] = seen + 1
        is_newest = not seen or t >= newest
        decay = column + 1
        for _ in range(plan[column]):
            x, top = floats[plan[NUMBERS] + plan[decay]], plan[decay + 2]
            weight = 0.0
            if seen:
                weight = floats[HALF] ** (float(abs(t - newest)) / float(plan[decay + 1]))
            if is_newest:
                d[top] = d[top] * weight + x
                d[top + 1] = d[top + 1] * weight + 1.0
            else:
                d[top] += x * weight
                d[top + 1] += weight
            decay += 3
        kept = decay + 1
        for _ in range(plan[decay]):
            if is_newest:
                d[plan[kept + 1]] = floats[plan[NUMBERS] + plan[kept]]
            kept += 2
        if is_newest:
            q[plan[at + 3]] = t
        window = windows
        for _ in range(plan[at + 4]):
            late |= _update(plan, window, q, d, t, ints, floats)
            window += WINDOW + 2 * plan[window + SHIFTS] + RING * plan[window + RINGS]
        window = windows
        for _ in range(plan[at + 4]):
            if plan[window + AGAIN]:
                _read(plan, window, q, d, t, ints, floats)
            window += WINDOW + 2 * plan[window + SHIFTS] + RING * plan[window + RINGS]
        column = kept + 1
        for _ in range(plan[kept]):
            floats[plan[VECTOR] + plan[column + 1]] = _column(plan, column, d, ints, floats, gap)
            column += COLUMN
        at = column
    return late


_compiled: list[Any] = []


def loop() -> Any:
    """`step` compiled; the first call takes some seconds, if it is not in the cache."""
    if not _compiled:
        _compiled.append(compiled.jit(step, "b1(i8[::1], f8[::1], i8[::1])"))
    return _compiled[0]
