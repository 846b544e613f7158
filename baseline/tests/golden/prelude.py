"""What the sources of the golden tests can use, and what the listings are annotated with."""

import dis
import opcode
import types


def assemble(*instructions, consts=(None,), names=(), exceptions=b"", lines=b""):
    """A code object with three locals a, b, c from lines like "LOAD_FAST 1": for what the bytecode compiler seldom makes."""
    code = bytearray()
    for line in instructions:
        name, *argument = line.split()
        code += bytes([opcode.opmap[name], int(argument[0]) if argument else 0])
        code += bytes(2 * opcode._inline_cache_entries.get(name, 0))

    def f(a, b, c):
        pass

    return f.__code__.replace(
        co_code=bytes(code), co_consts=consts, co_names=names, co_stacksize=10, co_exceptiontable=exceptions, co_linetable=lines
    )


def code_of(f):
    return getattr(f, "__code__", f)


def instructions(code):
    """Per instruction: offset in code units with EXTENDED_ARG prefixes, name, and description, tab-separated."""
    result = []
    for instruction in dis.get_instructions(code):
        if instruction.opname == "EXTENDED_ARG":
            continue
        start, name = instruction.start_offset // 2, instruction.opname
        text = name if instruction.arg is None else f"{name} {instruction.arg}"
        if instruction.jump_target is not None:
            text += f" (to {instruction.jump_target // 2})"
        elif instruction.argrepr and " at 0x" not in instruction.argrepr:
            text += f" ({instruction.argrepr})"
        result.append(f"{start}\t{name}\t{text}")
    return result


def constants(code):
    """What listings call the constants."""
    return [f"<code {c.co_name}>" if isinstance(c, types.CodeType) else ascii(c) for c in code.co_consts]


def nested(code):
    """All functions inside of a module's code object."""
    result = []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            result.append(constant)
            result += nested(constant)
    return result


def functions_of(*modules):
    import importlib.util

    result = []
    for module in modules:
        spec = importlib.util.find_spec(module)
        result += nested(spec.loader.get_code(module))
    return result
