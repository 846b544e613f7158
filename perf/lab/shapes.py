"""The measured process of codesize.py: sizes of compiled code for the canonical shape. Standard library only.

    python shapes.py CONFIG

CONFIG is a JSON object: `jit` (hotstamp or cinderx), `prelude`, `counts`, `late` (hotstamp is enabled here, not at start-up). Prints one JSON object: for each N the bytes of
compiled code, of metadata (if the compiler says), and of bytecode. hotstamp's optimizer has code of its own beside the baseline's: then
`code_bytes` is the optimizer's and `baseline_bytes` the baseline's.

The canonical shape is call-heavy: `def f(x): s = 0.0`, then N times `s += math.sqrt(x)`, `return s`. Its code is compiled before
it was ever interpreted; where a compiler has no way to be asked, the first call does it. The optimizer compiles from what the baseline has
seen in the calls before, which always had the same float.
"""

import json
import math
import os
import sys
import time

#: Seconds that a compiler which works in the background gets for one function.
PATIENCE = 120.0


def canonical(count):
    """The shape with `count` calls."""
    lines = ["def f(x):", "    s = 0.0", *["    s += math.sqrt(x)"] * count, "    return s"]
    namespace = {"math": math}
    exec(compile("\n".join(lines), "<canonical %d>" % count, "exec"), namespace)
    return namespace["f"]


def measure_hotstamp(counts, late):
    import hotstamp

    if late:
        hotstamp.enable()
    if not hotstamp.is_enabled():
        raise RuntimeError("hotstamp is installed but not enabled in this process")
    found = {}
    for count in counts:
        function, expected = canonical(count), canonical_result(count)
        before = hotstamp.stats()
        optimized = os.environ.get("HOTSTAMP_TIER") == "optimizer"
        size_of = hotstamp.optimized_size if optimized else hotstamp.compiled_size
        limit = time.monotonic() + PATIENCE
        while not size_of(function):
            if time.monotonic() > limit:
                raise RuntimeError("the canonical shape was not %s at N=%d" % ("optimized" if optimized else "compiled", count))
            time.sleep(0.01)
            function(2.0)
        if function(2.0) != expected:
            raise RuntimeError("the compiled canonical shape computes a wrong result at N=%d" % count)
        after = hotstamp.stats()
        found[count] = {
            "code_bytes": size_of(function),
            "baseline_bytes": hotstamp.compiled_size(function) if optimized else None,
            "metadata_bytes": after["metadata_bytes"] - before["metadata_bytes"] if "metadata_bytes" in after else None,
            "bytecode_bytes": len(function.__code__.co_code),
        }
    return found


def measure_cinderx(counts, late):
    import cinderx.jit as jit

    found = {}
    for count in counts:
        function = canonical(count)
        if not jit.force_compile(function):
            raise RuntimeError("CinderX refused the canonical shape at N=%d" % count)
        found[count] = {"code_bytes": jit.get_compiled_size(function), "metadata_bytes": None, "bytecode_bytes": len(function.__code__.co_code)}
    return found


def canonical_result(count):
    """What the shape returns for 2.0, computed by other code."""
    import functools

    return functools.reduce(lambda total, value: total + value, [math.sqrt(2.0)] * count, 0.0)


def main():
    config = json.loads(sys.argv[1])
    if config["prelude"]:
        exec(config["prelude"], {"__name__": "lab_prelude"})
    measure = {"hotstamp": measure_hotstamp, "cinderx": measure_cinderx}[config["jit"]]
    print(json.dumps({str(count): sizes for count, sizes in measure(config["counts"], config["late"]).items()}))


if __name__ == "__main__":
    main()
