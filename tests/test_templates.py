"""Each opcode, in a small function or body, interpreted against compiled: values, exceptions with lines and columns, effects, references. The cases stand in `template_cases`."""

import dis
import functools
import opcode

import differential
import pytest
from template_cases import CASES

# No code object has these: caches, what the interpreter puts into code of its own, and what instruments code.
NOT_IN_CODE = {"CACHE", "RESERVED", "ENTER_EXECUTOR", "INTERPRETER_EXIT", "EXIT_INIT_CHECK"}


@pytest.fixture(scope="module", autouse=True)
def enabled():
    differential.enable()


@functools.cache
def checked(source, calls, rounds):
    """The code of a function that did the same interpreted and compiled. Cached: one source may be the case of several opcodes."""
    twins = differential.Twins(source)
    twins.check(calls, rounds)
    return twins.code


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_opcode(case, request):
    if case.is_body:
        differential.check_body(case.source, case.opcode)
        return
    calls, rounds = case.calls, 3
    if request.config.getoption("sample") > 1:
        # Emulated: every case, but of many calls some, and each often enough to fill a cache and to hit it.
        calls, rounds = (*calls[:8], *calls[8::4]), 2
    code = checked(case.source, calls, rounds)
    assert case.opcode in differential.opcodes(code), dis.code_info(code)


def test_every_opcode_has_a_case():
    base = {name for name, number in opcode.opmap.items() if number in range(256) and name not in opcode._specialized_opmap}
    base -= {name for name in base if name.startswith("INSTRUMENTED_")}
    missing = base - {case.opcode for case in CASES}
    assert missing == NOT_IN_CODE & base
