//! The templates: what machine code each opcode becomes. One `emit_<opcode>` each, written once for both architectures.
//!
//! A template may assume that the virtual stack holds the opcode's inputs, and leaves its outputs there. What has no template of its own goes through its memory helper.

mod attributes;
mod calls;
mod control;
mod generators;
mod iteration;
mod locals;
mod operators;
mod stack;

use hotstamp_layout::opcode::Opcode;

use crate::bytecode::Instruction;
use crate::compiler::Compiler;
use crate::error::CompileError;
use crate::masm::MacroAssembler;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// Compiles one reachable instruction.
    pub(crate) fn emit(&mut self, instruction: &Instruction) -> Result<(), CompileError> {
        let oparg = instruction.oparg;
        match instruction.opcode {
            Opcode::NOP | Opcode::NOT_TAKEN => Ok(()),
            Opcode::RESUME => self.emit_resume(oparg),

            Opcode::LOAD_FAST => self.emit_load_fast(oparg),
            Opcode::LOAD_FAST_BORROW => self.emit_load_fast_borrow(oparg),
            Opcode::LOAD_FAST_LOAD_FAST => self.emit_load_fast_load_fast(oparg),
            Opcode::LOAD_FAST_BORROW_LOAD_FAST_BORROW => {
                self.emit_load_fast_borrow_load_fast_borrow(oparg)
            }
            Opcode::LOAD_FAST_AND_CLEAR => self.emit_load_fast_and_clear(oparg),
            Opcode::LOAD_FAST_CHECK => self.emit_load_fast_check(oparg),
            Opcode::STORE_FAST => self.emit_store_fast(oparg),
            Opcode::STORE_FAST_LOAD_FAST => self.emit_store_fast_load_fast(oparg),
            Opcode::STORE_FAST_STORE_FAST => self.emit_store_fast_store_fast(oparg),
            Opcode::LOAD_DEREF => self.emit_load_deref(oparg),
            Opcode::LOAD_CONST => self.emit_load_const(oparg),
            Opcode::LOAD_SMALL_INT => self.emit_load_small_int(oparg),

            Opcode::PUSH_NULL => self.emit_push_null(),
            Opcode::POP_TOP | Opcode::POP_ITER | Opcode::END_FOR => self.emit_pop_top(),
            Opcode::COPY => self.emit_copy(oparg),
            Opcode::SWAP => self.emit_swap(oparg),

            Opcode::JUMP_FORWARD | Opcode::JUMP_BACKWARD_NO_INTERRUPT => self.emit_jump(),
            Opcode::JUMP_BACKWARD => self.emit_jump_backward(),
            Opcode::POP_JUMP_IF_TRUE => self.emit_pop_jump_if_bool(true),
            Opcode::POP_JUMP_IF_FALSE => self.emit_pop_jump_if_bool(false),
            Opcode::POP_JUMP_IF_NONE => self.emit_pop_jump_if_none(true),
            Opcode::POP_JUMP_IF_NOT_NONE => self.emit_pop_jump_if_none(false),
            Opcode::RETURN_VALUE => self.emit_return_value(),

            Opcode::UNARY_NOT => self.emit_unary_not(),
            Opcode::TO_BOOL => self.emit_to_bool(),
            Opcode::IS_OP => self.emit_is_op(oparg),
            Opcode::BINARY_OP | Opcode::COMPARE_OP | Opcode::CONTAINS_OP => self.emit_binary(),
            Opcode::STORE_SUBSCR => self.emit_store_subscr(),

            Opcode::LOAD_ATTR => self.emit_load_attr(oparg),
            Opcode::STORE_ATTR => self.emit_store_attr(),
            Opcode::LOAD_GLOBAL => self.emit_load_global(oparg),

            Opcode::FOR_ITER => self.emit_for_iter(),
            Opcode::UNPACK_SEQUENCE => self.emit_unpack_sequence(),
            Opcode::LIST_APPEND => self.emit_list_append(),

            Opcode::CALL | Opcode::CALL_KW | Opcode::CALL_FUNCTION_EX => self.emit_call(),

            Opcode::RETURN_GENERATOR => self.emit_return_generator(),
            Opcode::YIELD_VALUE => self.emit_yield_value(oparg),
            Opcode::SEND => self.emit_send(),
            Opcode::END_SEND => self.emit_end_send(),

            other => self.emit_generic(other),
        }
    }

    /// An opcode without a template of its own: through its memory helper.
    fn emit_generic(&mut self, opcode: Opcode) -> Result<(), CompileError> {
        let stub = if opcode.has_eval_break() {
            self.stubs.memory_polled
        } else {
            self.stubs.memory
        };
        self.emit_memory_helper(stub)?;
        if opcode.is_terminator() {
            self.end_block();
        }
        Ok(())
    }
}
