//! The stub of CALL: stamped Python functions are called directly.

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, _PyInterpreterFrame as Frame, PyThreadState};
use hotstamp_runtime::caches::calls;
use hotstamp_runtime::code_data::{CALL_STUB_MAGIC, CodeData, SIMPLE_ARGUMENTS};
use hotstamp_runtime::entry;
use hotstamp_runtime::site::Site;

use super::{BORROWED, Builder, LOCALS, NULL_BITS, tstate};
use crate::masm::{Alu, Cond, Label, MacroAssembler, Reg};

impl<M: MacroAssembler> Builder<M> {
    /// The operand stack holds callable, self or null, and arguments. A Python function that is stamped is recognised by the mark in front of its call stub; if it takes
    /// exactly these positional arguments, they move into its frame.
    pub(super) fn call(&mut self) {
        let m = &mut self.masm;
        let (miss, has_self) = (m.new_label(), m.new_label());
        let (function, not_function) = (m.new_label(), m.new_label());
        let (not_method, other_count) = (m.new_label(), m.new_label());
        // T2 = address of the callable's slot, then of the first argument; T1 = number of arguments.
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.load32(Reg::T1, Reg::A3.at(offset_of!(Site, oparg)));
        m.alu(Alu::Sub, Reg::T0, Reg::T1);
        m.lea_indexed(Reg::T2, Reg::Frame, Reg::T0, -16);
        m.load(Reg::A1, Reg::T2.at(0));
        m.mov(Reg::A2, Reg::A1);
        m.alu_imm(Alu::And, Reg::A2, !BORROWED);
        m.load(Reg::T0, Reg::A2.at(offset_of!(ffi::PyObject, ob_type)));
        m.mov_imm(Reg::T3, (&raw const ffi::PyFunction_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T0, Reg::T3, not_function);
        m.bind(function);
        m.load(
            Reg::T0,
            Reg::A2.at(offset_of!(ffi::PyFunctionObject, vectorcall)),
        );
        m.mov_imm(Reg::T3, CALL_STUB_MAGIC);
        m.branch_cmp_mem(Cond::Ne, Reg::T3, Reg::T0.offset(-16), miss);
        m.load(Reg::A5, Reg::T0.offset(-8));
        m.lea(Reg::A4, Reg::T2.at(16));
        m.branch_mem_imm(Cond::Eq, Reg::T2.at(8), NULL_BITS, has_self);
        m.alu_imm(Alu::Add, Reg::T1, 1);
        m.lea(Reg::A4, Reg::T2.at(8));
        m.bind(has_self);
        m.branch_cmp32_mem(
            Cond::Ne,
            Reg::T1,
            Reg::A5.at(offset_of!(CodeData, argcount)),
            other_count,
        );
        self.call_known(miss, false);
        // Some arguments are missing: A0 = how many. The last parameters have defaults, so many at least.
        let m = &mut self.masm;
        m.bind(other_count);
        m.load32(Reg::A0, Reg::A5.at(offset_of!(CodeData, argcount)));
        m.alu(Alu::Sub, Reg::A0, Reg::T1);
        m.branch_cmp_imm(Cond::Lt, Reg::A0, 0, miss);
        m.load(
            Reg::T0,
            Reg::A2.at(offset_of!(ffi::PyFunctionObject, func_defaults)),
        );
        m.branch_cmp_imm(Cond::Eq, Reg::T0, 0, miss);
        m.load(Reg::T0, Reg::T0.at(offset_of!(ffi::PyVarObject, ob_size)));
        m.branch_cmp(Cond::Lt, Reg::T0, Reg::A0, miss);
        self.call_known(miss, true);
        let m = &mut self.masm;
        // A bound method without self in its place: function and self take the place of both, and the function is looked at.
        m.bind(not_function);
        m.mov_imm(Reg::T3, (&raw const ffi::PyMethod_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T0, Reg::T3, not_method);
        m.branch_mem_imm(Cond::Ne, Reg::T2.at(8), NULL_BITS, miss);
        m.load(
            Reg::T3,
            Reg::A2.at(offset_of!(ffi::PyMethodObject, im_func)),
        );
        m.load(Reg::T0, Reg::T3.at(offset_of!(ffi::PyObject, ob_type)));
        m.mov_imm(Reg::T4, (&raw const ffi::PyFunction_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T0, Reg::T4, miss);
        m.load(
            Reg::T4,
            Reg::A2.at(offset_of!(ffi::PyMethodObject, im_self)),
        );
        // Immortal objects (a class as self, for one) need their mark; leave those to the helper.
        m.branch_mem32_imm(Cond::Lt, Reg::T3.at(0), 0, miss);
        m.branch_mem32_imm(Cond::Lt, Reg::T4.at(0), 0, miss);
        m.add32_mem(Reg::T3.at(0), 1);
        m.add32_mem(Reg::T4.at(0), 1);
        m.store(Reg::T2.at(0), Reg::T3);
        m.store(Reg::T2.at(8), Reg::T4);
        // The method object goes; freeing it runs no Python code, since function and self are held.
        let (released, free) = (m.new_label(), m.new_label());
        m.branch_bits_set(Reg::A1, BORROWED as u32, released);
        m.dec32_mem_branch_zero(Reg::A1.at(0), free);
        m.bind(released);
        m.load(Reg::A1, Reg::T2.at(0));
        m.mov(Reg::A2, Reg::A1);
        m.jump(function);
        m.bind(free);
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.push_pair(Reg::T1, Reg::T2);
        m.mov(Reg::A0, Reg::A1);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::T1, Reg::T2);
        m.stub_exit();
        m.jump(released);
        m.bind(not_method);
        self.call_builtin(miss);
        self.masm.bind(miss);
        self.memory_call_value(true);
    }

    /// Calls the builtin function or the method of a builtin class in A2, whose type is T0, where it takes one argument or none; else to `miss`. T1 arguments are on the operand
    /// stack, where the callable is at T2.
    fn call_builtin(&mut self, miss: Label) {
        let m = &mut self.masm;
        let (descriptor, known, one, call) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        // A4 = the receiver, T4 = what is called.
        m.mov_imm(Reg::T3, (&raw const ffi::PyMethodDescr_Type) as u64);
        m.branch_cmp(Cond::Eq, Reg::T0, Reg::T3, descriptor);
        m.mov_imm(Reg::T3, (&raw const ffi::PyCFunction_Type) as u64);
        m.branch_cmp(Cond::Ne, Reg::T0, Reg::T3, miss);
        m.branch_mem_imm(Cond::Ne, Reg::T2.at(8), NULL_BITS, miss);
        m.load(
            Reg::T4,
            Reg::A2.at(offset_of!(ffi::PyCFunctionObject, m_ml)),
        );
        m.load(
            Reg::A4,
            Reg::A2.at(offset_of!(ffi::PyCFunctionObject, m_self)),
        );
        m.jump(known);
        m.bind(descriptor);
        m.load(Reg::A4, Reg::T2.at(8));
        m.branch_cmp_imm(Cond::Eq, Reg::A4, NULL_BITS, miss);
        m.alu_imm(Alu::And, Reg::A4, !BORROWED);
        m.load(Reg::T3, Reg::A4.at(offset_of!(ffi::PyObject, ob_type)));
        let class =
            offset_of!(ffi::PyMethodDescrObject, d_common) + offset_of!(ffi::PyDescrObject, d_type);
        m.branch_cmp_mem(Cond::Ne, Reg::T3, Reg::A2.at(class), miss);
        m.load(
            Reg::T4,
            Reg::A2.at(offset_of!(ffi::PyMethodDescrObject, d_method)),
        );
        m.bind(known);
        m.native_stack_pointer(Reg::T3);
        m.branch_cmp_mem(
            Cond::Below,
            Reg::T3,
            tstate(offset_of!(ffi::_PyThreadStateImpl, c_stack_soft_limit)),
            miss,
        );
        m.load32(Reg::T3, Reg::T4.at(offset_of!(ffi::PyMethodDef, ml_flags)));
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 1, one);
        m.branch_cmp_imm(Cond::Ne, Reg::T1, 0, miss);
        m.branch_cmp_imm(Cond::Ne, Reg::T3, ffi::METH_NOARGS as i32, miss);
        m.mov_imm(Reg::A1, 0);
        m.jump(call);
        m.bind(one);
        m.branch_cmp_imm(Cond::Ne, Reg::T3, ffi::METH_O as i32, miss);
        m.load(Reg::A1, Reg::T2.at(16));
        m.alu_imm(Alu::And, Reg::A1, !BORROWED);
        m.bind(call);
        self.publish_site();
        let m = &mut self.masm;
        let (raised, tag, close, closed, free, odd, checked) = (
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
            m.new_label(),
        );
        m.stub_enter();
        m.mov(Reg::A0, Reg::A4);
        m.call_mem(Reg::T4.at(offset_of!(ffi::PyMethodDef, ml_meth)));
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, odd);
        let exception = tstate(offset_of!(PyThreadState, current_exception));
        m.branch_mem_imm(Cond::Ne, exception, 0, odd);
        m.bind(checked);
        m.stub_exit();
        // T2 = the operand stack's end, T1 counts callable, self and arguments, each of which is released when it is off the stack.
        m.load(Reg::T2, Reg::Frame.at(offset_of!(Frame, stackpointer)));
        m.load32(Reg::T1, Reg::A3.at(offset_of!(Site, oparg)));
        m.alu_imm(Alu::Add, Reg::T1, 2);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, close);
        m.branch_mem32_imm(Cond::Lt, Reg::Acc.at(0), 0, tag);
        m.bind(close);
        m.alu_imm(Alu::Sub, Reg::T1, 1);
        m.branch_cmp_imm(Cond::Lt, Reg::T1, 0, closed);
        m.alu_imm(Alu::Sub, Reg::T2, 8);
        m.load(Reg::A1, Reg::T2.at(0));
        m.branch_bits_set(Reg::A1, BORROWED as u32, close);
        m.dec32_mem_branch_zero(Reg::A1.at(0), free);
        m.jump(close);
        m.bind(tag);
        m.alu_imm(Alu::Or, Reg::Acc, BORROWED);
        m.jump(close);
        m.bind(free);
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T2);
        m.stub_enter();
        m.push_pair(Reg::Acc, Reg::T1);
        m.mov(Reg::A0, Reg::A1);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.pop_pair(Reg::Acc, Reg::T1);
        m.stub_exit();
        m.load(Reg::T2, Reg::Frame.at(offset_of!(Frame, stackpointer)));
        m.jump(close);
        m.bind(closed);
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T2);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, raised);
        let changed = m.new_label();
        m.stub_enter();
        self.branch_if_breaker(changed);
        let m = &mut self.masm;
        m.stub_exit();
        m.ret();
        m.bind(raised);
        m.stub_abandon_early();
        m.jump(self.error);
        m.bind(odd);
        m.stub_exit();
        m.stub_enter();
        m.mov(Reg::A0, Reg::Acc);
        m.mov(Reg::A1, Reg::A3);
        m.mov(Reg::A2, Reg::Frame);
        m.mov(Reg::A3, Reg::Tstate);
        m.call_c(calls::check_result as *const ());
        m.jump(checked);
        m.bind(changed);
        m.jump(self.leave_after_value);
    }

    /// Calls the stamped function in A1 (A2 is its address, A5 its data) with T1 arguments from A4 on, T2 being the slot of the callable; to `miss` if it cannot be
    /// called so. With `defaults`, A0 parameters are left to their defaults.
    fn call_known(&mut self, miss: Label, defaults: bool) {
        let m = &mut self.masm;
        m.branch_mem32_bits_clear(
            Reg::A5.at(offset_of!(CodeData, flags)),
            SIMPLE_ARGUMENTS,
            miss,
        );
        // Another evaluator (PEP 523) sees every call.
        m.mov_imm(Reg::T4, entry::evaluator_cell() as u64);
        m.branch_mem_imm(Cond::Ne, Reg::T4.at(0), 0, miss);
        // Room on the data stack: T3 = the new frame, T4 = its end.
        m.load(Reg::T3, tstate(offset_of!(PyThreadState, datastack_top)));
        m.load32(Reg::T4, Reg::A5.at(offset_of!(CodeData, frame_words)));
        m.lea_indexed(Reg::T4, Reg::T3, Reg::T4, 0);
        m.branch_cmp_mem(
            Cond::AboveEq,
            Reg::T4,
            tstate(offset_of!(PyThreadState, datastack_limit)),
            miss,
        );
        m.store(tstate(offset_of!(PyThreadState, datastack_top)), Reg::T4);
        // The caller: its arguments move away.
        m.load(Reg::T0, Reg::A3.at(offset_of!(Site, instr)));
        m.store(Reg::Frame.at(offset_of!(Frame, instr_ptr)), Reg::T0);
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T2);
        // The callee's frame.
        m.load(Reg::T0, Reg::A5.at(offset_of!(CodeData, code)));
        m.store(Reg::T3.at(offset_of!(Frame, f_executable)), Reg::T0);
        m.add32_mem(Reg::T0.at(0), 1);
        m.store(Reg::T3.at(offset_of!(Frame, previous)), Reg::Frame);
        m.store(Reg::T3.at(offset_of!(Frame, f_funcobj)), Reg::A1);
        m.load(Reg::T0, Reg::A5.at(offset_of!(CodeData, globals)));
        m.store(Reg::T3.at(offset_of!(Frame, f_globals)), Reg::T0);
        m.load(Reg::T0, Reg::A5.at(offset_of!(CodeData, builtins)));
        m.store(Reg::T3.at(offset_of!(Frame, f_builtins)), Reg::T0);
        m.store_imm(Reg::T3.at(offset_of!(Frame, f_locals)), 0);
        m.store_imm(Reg::T3.at(offset_of!(Frame, frame_obj)), 0);
        m.load(Reg::T0, Reg::A5.at(offset_of!(CodeData, code_start)));
        m.store(Reg::T3.at(offset_of!(Frame, instr_ptr)), Reg::T0);
        // return_offset, owner (FRAME_OWNED_BY_THREAD) and visited are all zero.
        const { assert!(ffi::FRAME_OWNED_BY_THREAD == 0) };
        m.store32_imm(Reg::T3.at(offset_of!(Frame, return_offset)), 0);
        m.load32(Reg::T4, Reg::A5.at(offset_of!(CodeData, nlocalsplus)));
        m.lea_indexed(Reg::T0, Reg::T3, Reg::T4, LOCALS as i32);
        m.store(Reg::T3.at(offset_of!(Frame, stackpointer)), Reg::T0);
        // Locals that are no arguments become null (T4 counts down), then the arguments are moved (T1 counts down).
        let (clear, cleared, copy, copied) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.mov_imm(Reg::T0, NULL_BITS as u64);
        m.bind(clear);
        m.branch_cmp(Cond::Le, Reg::T4, Reg::T1, cleared);
        m.alu_imm(Alu::Sub, Reg::T4, 1);
        m.store_indexed(Reg::T3, Reg::T4, LOCALS as i32, Reg::T0);
        m.jump(clear);
        m.bind(cleared);
        m.bind(copy);
        m.alu_imm(Alu::Sub, Reg::T1, 1);
        m.branch_cmp_imm(Cond::Lt, Reg::T1, 0, copied);
        m.load_indexed(Reg::T0, Reg::A4, Reg::T1, 0);
        m.store_indexed(Reg::T3, Reg::T1, LOCALS as i32, Reg::T0);
        m.jump(copy);
        m.bind(copied);
        if defaults {
            self.take_defaults();
        }
        let m = &mut self.masm;
        m.stub_enter();
        m.mov(Reg::A0, Reg::T3);
        m.mov(Reg::A1, Reg::A5);
        m.call_mem(Reg::A5.at(offset_of!(CodeData, entry)));
        let (failed, changed) = (m.new_label(), m.new_label());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, failed);
        self.branch_if_breaker(changed);
        let m = &mut self.masm;
        m.stub_exit();
        m.ret();
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(changed);
        m.jump(self.leave_after_value);
    }

    /// Fills the last A0 parameters of the frame in T3 from the defaults of the function in A1. Uses T0, T1, T2, T4, A0.
    fn take_defaults(&mut self) {
        let m = &mut self.masm;
        let (next, done, immortal, store) =
            (m.new_label(), m.new_label(), m.new_label(), m.new_label());
        m.mov(Reg::T0, Reg::A1);
        m.alu_imm(Alu::And, Reg::T0, !BORROWED);
        m.load(
            Reg::T0,
            Reg::T0.at(offset_of!(ffi::PyFunctionObject, func_defaults)),
        );
        m.load(Reg::T1, Reg::T0.at(offset_of!(ffi::PyVarObject, ob_size)));
        m.load32(Reg::T4, Reg::A5.at(offset_of!(CodeData, argcount)));
        m.bind(next);
        m.alu_imm(Alu::Sub, Reg::A0, 1);
        m.branch_cmp_imm(Cond::Lt, Reg::A0, 0, done);
        m.alu_imm(Alu::Sub, Reg::T1, 1);
        m.alu_imm(Alu::Sub, Reg::T4, 1);
        m.load_indexed(
            Reg::T2,
            Reg::T0,
            Reg::T1,
            offset_of!(ffi::PyTupleObject, ob_item) as i32,
        );
        m.branch_mem32_imm(Cond::Lt, Reg::T2.at(0), 0, immortal);
        m.add32_mem(Reg::T2.at(0), 1);
        m.bind(store);
        m.store_indexed(Reg::T3, Reg::T4, LOCALS as i32, Reg::T2);
        m.jump(next);
        m.bind(immortal);
        m.alu_imm(Alu::Or, Reg::T2, BORROWED);
        m.jump(store);
        m.bind(done);
    }
}
