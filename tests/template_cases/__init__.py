"""What `test_templates.py` runs: for each opcode, functions or bodies that use it, and calls. One table for each family."""

from template_cases import calls, containers, control, exceptions, generators, names, objects, operators, strings

CASES = [
    case
    for family in (operators, containers, objects, names, calls, control, exceptions, generators, strings)
    for case in family.TABLE.cases
]
