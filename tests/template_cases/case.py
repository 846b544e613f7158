"""The form of a case, and of a family's table of them."""

import dataclasses
import textwrap


@dataclasses.dataclass
class Case:
    """A source that defines `f` (or a module body that loops) and uses an opcode, and the sources of the arguments of calls."""

    opcode: str
    source: str
    calls: tuple
    name: str

    @property
    def is_body(self):
        return not self.calls


class Table:
    """The cases of a family. Sources may use what its prelude defines."""

    def __init__(self, family, prelude=""):
        self.family = family
        self.cases = []
        self.prelude = textwrap.dedent(prelude)
        self.counts = {}

    def _add(self, opcode, source, calls):
        number = self.counts[opcode] = self.counts.get(opcode, 0) + 1
        self.cases.append(Case(opcode, self.prelude + textwrap.dedent(source), calls, f"{self.family}-{opcode}-{number}"))

    def function(self, opcodes, source, *calls):
        """A function `f` that has all these opcodes (separated by spaces) and is called with these arguments."""
        if "\n" not in source:
            source = f"def f{source}\n"
        for opcode in opcodes.split():
            self._add(opcode, source, calls or ("",))

    def body(self, opcodes, source):
        """A module's body that has, itself or in a class body that loops, all these opcodes."""
        for opcode in opcodes.split():
            self._add(opcode, source, ())
