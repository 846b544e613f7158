"""Compares hotstamp's decoder with `dis` and with the interpreter's own instrumentation, over the standard library.

Run by roundtrip.rs, which provides rows, exceptions, positions, base and effects.
HOTSTAMP_ROUNDTRIP_STEP=N takes every Nth file only, for slow machines; every 200th under emulation.
"""

import dis
import itertools
import opcode
import os
import sys
import sysconfig
import types
import warnings

ROW = 14
NAMES = opcode.opname
LINE, INSTRUMENTED_LINE = sys.monitoring.events.LINE, dis._all_opmap["INSTRUMENTED_LINE"]
EVERYTHING = sum(
    getattr(sys.monitoring.events, name)
    for name in "PY_START PY_RESUME PY_RETURN PY_YIELD CALL LINE INSTRUCTION JUMP BRANCH_LEFT BRANCH_RIGHT STOP_ITERATION".split()
)
TOOL = 3
FALLS_NOWHERE = {opcode.opmap[n] for n in "RETURN_VALUE RAISE_VARARGS RERAISE JUMP_FORWARD JUMP_BACKWARD JUMP_BACKWARD_NO_INTERRUPT".split()}
NOT_A_JUMP = opcode.opmap["END_ASYNC_FOR"]


def table(data, width):
    values = memoryview(data).cast("i")
    assert len(values) % width == 0
    return list(itertools.batched(values, width))


def expected_rows(code):
    """(start, offset, opcode, oparg, next, target) of every instruction, by dis."""
    found = []
    for offset, start, op, arg in dis._unpack_opargs(code.co_code):
        if op == dis.EXTENDED_ARG:
            continue
        caches = dis._get_cache_size(NAMES[op])
        target = dis._get_jump_target(op, arg, offset) if op in dis.hasjrel else None
        found.append((start, offset, op, arg or 0, offset + 2 + 2 * caches, -1 if target is None else target))
    return found


def expected_depths(code, instructions, entries):
    """Stack depth by start offset, from dis.stack_effect alone."""
    by_start = {row[0]: row for row in instructions}
    depths, pending = {0: 0}, [0]

    def reach(start, depth):
        if start not in depths:
            depths[start] = depth
            pending.append(start)
        assert depths[start] == depth, (code, start, depths[start], depth)

    covering = {}
    for entry in entries:
        for offset in range(entry.start, entry.end, 2):
            covering[offset] = entry
    while pending:
        start = pending.pop()
        _, offset, op, arg, following, target = by_start[start]
        depth = depths[start]
        arg = arg if op in dis.hasarg else None
        if target >= 0 and op != NOT_A_JUMP:
            reach(target, depth + dis.stack_effect(op, arg, jump=True))
        if op not in FALLS_NOWHERE:
            reach(following, depth + dis.stack_effect(op, arg, jump=False))
        if entry := covering.get(offset):
            reach(entry.target, entry.depth + entry.lasti + 1)
    assert max(depths.values()) <= code.co_stacksize, code
    return depths


def check(code):
    raw = rows(code)
    decoded = table(raw, ROW)
    instructions = expected_rows(code)
    assert [row[:6] for row in decoded] == instructions, code
    entries = dis._parse_exception_table(code)
    assert table(exceptions(code), 5) == [(e.start, e.end, e.target, e.depth, int(e.lasti)) for e in entries], code
    places = [tuple(-1 if v is None else v for v in place) for place in code.co_positions()]
    assert table(positions(code), 4) == places, code
    assert [row[6] for row in decoded] == [places[row[1] // 2][0] for row in decoded], code
    depths = expected_depths(code, instructions, entries)
    assert [row[8] for row in decoded] == [depths.get(row[0], -1) for row in decoded], code
    handlers = {e.target for e in entries}
    assert {row[0] for row in decoded if row[11]} == handlers, code
    leaders = {row[0] for row in decoded if row[10]}
    assert handlers <= leaders and {row[5] for row in decoded if row[5] >= 0 and row[2] != NOT_A_JUMP} <= leaders, code
    check_instrumented(code, raw, decoded)
    return len(decoded)


def check_instrumented(code, raw, decoded):
    """The base form is found again under instrumentation, and LINE events are due where the interpreter says."""
    plain = code.co_code
    assert base(code) == plain, code
    sys.monitoring.set_local_events(TOOL, code, LINE)
    live = code._co_code_adaptive
    # Behind an instruction's own opcode lie caches, which can look like anything.
    due = {offset for row in decoded for offset in range(row[0], row[1] + 2, 2) if live[offset] == INSTRUMENTED_LINE}
    starting = {row[0] for row in decoded if row[7]}
    assert due == starting, (code, due ^ starting)
    assert base(code) == plain, code
    sys.monitoring.set_local_events(TOOL, code, EVERYTHING)
    assert not starting or code._co_code_adaptive != plain
    assert base(code) == plain, code
    assert rows(code) == raw, code
    sys.monitoring.set_local_events(TOOL, code, 0)


def all_codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from all_codes(constant)


def library(half):
    """The code of every second module, compiled from its source."""
    folder = sysconfig.get_path("stdlib")
    paths = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if f not in ("site-packages", "dist-packages", "lib2to3"))
        found = (os.path.join(where, f) for f in sorted(files) if f.endswith(".py"))
        paths.extend(path for path in found if os.path.isfile(path))  # not what a link names that leads nowhere
    for path in paths[:: int(os.environ.get("HOTSTAMP_ROUNDTRIP_STEP", "1"))][half::2]:
        with open(path, "rb") as source:
            text = source.read()
        try:
            yield path, compile(text, path, "exec")
        except (SyntaxError, ValueError, UnicodeDecodeError):
            pass  # some of the test suite's data is wrong on purpose


def specialised():
    """Functions that really ran, so that their code is specialised and, where the JIT is built in, replaced by executors."""

    class Point:
        def __init__(self, x):
            self.x = x

        def double(self):
            return self.x + self.x

    def work(n):
        total, items, names = 0, [1, 2, 3], {"a": 1}
        for i in range(n):
            total += i * 2
            total -= items[i % 3] + names["a"]
            if f"{i}" == "x" or Point(i).double() < 0:
                total = 0
        for a, b in ((1, 2), (3, 4)):
            total += a if a > b else b
        return total, [x for x in items], {k: v for k, v in names.items()}

    def counting(n):
        for i in range(n):
            yield i

    def adding(n):
        total = 0
        while n:
            total += n
            n -= 1
        return total

    work(20_000)
    for _ in range(30):
        work(5)
    sum(counting(20_000))
    adding(20_000)
    return [adding.__code__, work.__code__, counting.__code__, Point.__init__.__code__, Point.double.__code__]


def check_effects():
    """Caches and stack effects of every base opcode, by number."""
    for number, caches, *found in table(effects(), 12):
        name = NAMES[number]
        assert caches == dis._get_cache_size(name), name
        if name in ("CACHE", "RESERVED", "INTERPRETER_EXIT", "EXTENDED_ARG"):
            continue
        for oparg, effect in enumerate(found):
            arg = oparg if number in dis.hasarg else None
            try:
                known = dis.stack_effect(number, arg)
            except ValueError:
                continue  # an argument the opcode cannot have
            # What RETURN_VALUE pushes goes onto its caller's stack.
            assert effect == known or (name == "RETURN_VALUE" and effect == 0), (name, oparg, effect, known)


warnings.simplefilter("ignore")  # old test data has many deprecated escapes
sys.monitoring.use_tool_id(TOOL, "hotstamp round trip")
check_effects()
hot = specialised()
quickened = set()
for code in hot:
    live = code._co_code_adaptive
    assert live != code.co_code, f"{code} was not specialised"
    quickened |= {dis._all_opname[live[row[1]]] for row in expected_rows(code)}
    assert base(code) == code.co_code, code
assert "LOAD_ATTR_INSTANCE_VALUE" in quickened and "BINARY_OP_SUBSCR_LIST_INT" in quickened, quickened
assert "ENTER_EXECUTOR" in quickened or not sys._jit.is_enabled(), quickened
for code in hot:
    check(code)
executors = "with" if "ENTER_EXECUTOR" in quickened else "without"


def check_library(half):
    """Checks half of the library."""
    files = codes = instructions = 0
    for path, module in library(half):
        files += 1
        for code in all_codes(module):
            codes += 1
            instructions += check(code)
    found = f"{files} files, {codes} code objects, {instructions} instructions; {len(quickened)} live opcodes, {executors} executors"
    print(f"round trip of half {half}: {found}", flush=True)
    assert files and codes > files and instructions > 20 * codes


# The other half in a process of its own: it is the longest of all Rust tests.
child = os.fork()
if child == 0:
    try:
        check_library(1)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)
try:
    check_library(0)
finally:
    _, status = os.waitpid(child, 0)
assert status == 0, f"the other half ended with status {status}"
