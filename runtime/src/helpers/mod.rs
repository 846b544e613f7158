//! What compiled code calls for everything it does not do inline: one function per opcode with exactly the semantics of CPython 3.14's unspecialised
//! instruction. Called by the shared stubs through a site; never by the tiers directly.
//!
//! A *memory helper* `op_<opcode>` takes its operands from the frame's stack and leaves its results there; a *register helper* `reg_<opcode>` takes them in
//! registers. ARCHITECTURE.md ("Helpers") has the contract of both. [`memory_helper`] and [`register_helper`] map opcodes to helpers; the tables below are
//! the only lists. One file per family of opcodes; [`stack`] is what they all use.
//!
//! Operands that an instruction leaves on the stack when it succeeds (the iterator of `FOR_ITER`, the list of `LIST_APPEND`, the subject of `GET_LEN`) stay
//! there when it fails too; all others are closed before a helper returns -1. The unwinder closes what is left, from `frame.stackpointer` down.

use hotstamp_layout::ffi;
use hotstamp_layout::refs::StackRef;

use crate::site::{MemoryHelper, RegisterHelper};

pub mod stack;

// Operators, containers, strings, matching.
pub mod containers;
pub mod intrinsics;
pub mod iteration;
pub mod matching;
pub mod operators;
pub mod strings;
pub mod subscripts;
pub mod unpack;

// Names, attributes, calls, functions, control flow, exceptions.
pub mod attributes;
pub mod calls;
pub mod exceptions;
pub mod functions;
pub mod generators;
pub mod imports;
pub mod names;
pub mod operands;
pub mod with_statements;

/// What a register helper returns when it raised: no bits at all, which no reference has.
pub const RAISED: StackRef = StackRef { bits: 0 };

macro_rules! table {
    ($(#[doc = $doc:literal])* $lookup:ident: $type:ty, all $all:ident; $($module:ident { $($opcode:ident => $function:ident,)* })*) => {
        $(#[doc = $doc])*
        pub fn $lookup(opcode: u8) -> Option<($type, &'static str)> {
            match u32::from(opcode) {
                $($(ffi::$opcode => Some(($module::$function as $type, stringify!($function))),)*)*
                _ => None,
            }
        }

        /// The names of the table's opcodes and helpers.
        #[cfg(test)]
        const $all: &[(&str, &str)] = &[$($((stringify!($opcode), stringify!($function)),)*)*];
    };
}

table! {
    /// The memory helper of a base opcode, with its name, which statistics and disassembly show.
    memory_helper: MemoryHelper, all MEMORY_HELPERS;
    containers {
        BUILD_LIST => op_build_list,
        BUILD_MAP => op_build_map,
        BUILD_SET => op_build_set,
        BUILD_TUPLE => op_build_tuple,
        DICT_MERGE => op_dict_merge,
        DICT_UPDATE => op_dict_update,
        LIST_APPEND => op_list_append,
        LIST_EXTEND => op_list_extend,
        MAP_ADD => op_map_add,
        SET_ADD => op_set_add,
        SET_UPDATE => op_set_update,
    }
    intrinsics {
        CALL_INTRINSIC_1 => op_call_intrinsic_1,
        CALL_INTRINSIC_2 => op_call_intrinsic_2,
        LOAD_COMMON_CONSTANT => op_load_common_constant,
    }
    iteration {
        FOR_ITER => op_for_iter,
        GET_ITER => op_get_iter,
    }
    matching {
        GET_LEN => op_get_len,
        MATCH_CLASS => op_match_class,
        MATCH_KEYS => op_match_keys,
        MATCH_MAPPING => op_match_mapping,
        MATCH_SEQUENCE => op_match_sequence,
    }
    operators {
        BINARY_OP => op_binary_op,
        COMPARE_OP => op_compare_op,
        CONTAINS_OP => op_contains_op,
        IS_OP => op_is_op,
        TO_BOOL => op_to_bool,
        UNARY_INVERT => op_unary_invert,
        UNARY_NEGATIVE => op_unary_negative,
        UNARY_NOT => op_unary_not,
    }
    strings {
        BUILD_INTERPOLATION => op_build_interpolation,
        BUILD_STRING => op_build_string,
        BUILD_TEMPLATE => op_build_template,
        CONVERT_VALUE => op_convert_value,
        FORMAT_SIMPLE => op_format_simple,
        FORMAT_WITH_SPEC => op_format_with_spec,
    }
    subscripts {
        BINARY_SLICE => op_binary_slice,
        BUILD_SLICE => op_build_slice,
        DELETE_SUBSCR => op_delete_subscr,
        STORE_SLICE => op_store_slice,
        STORE_SUBSCR => op_store_subscr,
    }
    unpack {
        UNPACK_EX => op_unpack_ex,
        UNPACK_SEQUENCE => op_unpack_sequence,
    }
    attributes {
        DELETE_ATTR => op_delete_attr,
        LOAD_ATTR => op_load_attr,
        LOAD_SUPER_ATTR => op_load_super_attr,
        STORE_ATTR => op_store_attr,
    }
    calls {
        CALL => op_call,
        CALL_FUNCTION_EX => op_call_function_ex,
        CALL_KW => op_call_kw,
    }
    exceptions {
        CHECK_EG_MATCH => op_check_eg_match,
        CHECK_EXC_MATCH => op_check_exc_match,
        POP_EXCEPT => op_pop_except,
        PUSH_EXC_INFO => op_push_exc_info,
        RAISE_VARARGS => op_raise_varargs,
        RERAISE => op_reraise,
    }
    functions {
        EXIT_INIT_CHECK => op_exit_init_check,
        LOAD_BUILD_CLASS => op_load_build_class,
        MAKE_FUNCTION => op_make_function,
        SET_FUNCTION_ATTRIBUTE => op_set_function_attribute,
    }
    generators {
        CLEANUP_THROW => op_cleanup_throw,
        END_ASYNC_FOR => op_end_async_for,
        END_SEND => op_end_send,
        GET_AITER => op_get_aiter,
        GET_ANEXT => op_get_anext,
        GET_AWAITABLE => op_get_awaitable,
        GET_YIELD_FROM_ITER => op_get_yield_from_iter,
        POP_ITER => op_pop_iter,
        SEND => op_send,
    }
    imports {
        IMPORT_FROM => op_import_from,
        IMPORT_NAME => op_import_name,
    }
    names {
        COPY_FREE_VARS => op_copy_free_vars,
        DELETE_DEREF => op_delete_deref,
        DELETE_FAST => op_delete_fast,
        DELETE_GLOBAL => op_delete_global,
        DELETE_NAME => op_delete_name,
        LOAD_DEREF => op_load_deref,
        LOAD_FAST_CHECK => op_load_fast_check,
        LOAD_FROM_DICT_OR_DEREF => op_load_from_dict_or_deref,
        LOAD_FROM_DICT_OR_GLOBALS => op_load_from_dict_or_globals,
        LOAD_GLOBAL => op_load_global,
        LOAD_LOCALS => op_load_locals,
        LOAD_NAME => op_load_name,
        MAKE_CELL => op_make_cell,
        SETUP_ANNOTATIONS => op_setup_annotations,
        STORE_DEREF => op_store_deref,
        STORE_GLOBAL => op_store_global,
        STORE_NAME => op_store_name,
    }
    with_statements {
        LOAD_SPECIAL => op_load_special,
        WITH_EXCEPT_START => op_with_except_start,
    }
}

table! {
    /// The register helper of a base opcode, with its name. Each opcode's function says which operand comes in which register.
    register_helper: RegisterHelper, all REGISTER_HELPERS;
    operators {
        BINARY_OP => reg_binary_op,
        COMPARE_OP => reg_compare_op,
        CONTAINS_OP => reg_contains_op,
        TO_BOOL => reg_to_bool,
    }
    subscripts {
        STORE_SUBSCR => reg_store_subscr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opcode_has_the_helper_named_after_it() {
        for (names, prefix) in [(MEMORY_HELPERS, "op_"), (REGISTER_HELPERS, "reg_")] {
            for &(opcode, helper) in names {
                assert_eq!(helper, format!("{prefix}{}", opcode.to_lowercase()));
            }
        }
    }
}
