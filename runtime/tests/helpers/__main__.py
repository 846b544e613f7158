"""Runs all cases, and makes sure that each opcode of these families was tried and that nothing leaked."""

import gc
import sys

import container_cases
import operator_cases
import string_cases
from harness import Noisy, checked, failures

OPCODES = """
BINARY_OP BINARY_SLICE STORE_SLICE STORE_SUBSCR DELETE_SUBSCR UNARY_NEGATIVE UNARY_NOT UNARY_INVERT TO_BOOL COMPARE_OP CONTAINS_OP IS_OP
BUILD_TUPLE BUILD_LIST BUILD_SET BUILD_MAP BUILD_SLICE BUILD_STRING BUILD_INTERPOLATION BUILD_TEMPLATE
LIST_APPEND LIST_EXTEND SET_ADD SET_UPDATE MAP_ADD DICT_UPDATE DICT_MERGE
GET_ITER FOR_ITER GET_LEN UNPACK_SEQUENCE UNPACK_EX FORMAT_SIMPLE FORMAT_WITH_SPEC CONVERT_VALUE
MATCH_CLASS MATCH_KEYS MATCH_MAPPING MATCH_SEQUENCE LOAD_COMMON_CONSTANT CALL_INTRINSIC_1 CALL_INTRINSIC_2
""".split()


def main():
    for family in (operator_cases, container_cases, string_cases):
        family.run()
    print(f"{sum(checked.values())} calls of helpers checked, of {len(checked)} opcodes")
    for failure in failures[:20]:
        print(failure, file=sys.stderr)
    untried = [opcode for opcode in OPCODES if opcode not in checked]
    gc.collect()
    if failures or untried or Noisy.alive:
        sys.exit(f"{len(failures)} failures; not tried: {untried}; {Noisy.alive} objects leaked")


main()
