//! The shared stubs: machine code that every body calls, assembled once at start-up.
//!
//! A site's stub runs on the body's native frame. It either returns to the site, or leaves the body for good: on an error it goes to
//! the shared error path, and when an assumption broke it hands the frame to the interpreter.

mod attributes;
mod calls;
mod frames;
mod generators;
mod operators;
mod sequences;

use std::mem::offset_of;

use hotstamp_layout::ffi::{self, _PyInterpreterFrame as Frame, PyThreadState};
use hotstamp_runtime::caches::CacheStubs;
use hotstamp_runtime::code_data::CodeData;
use hotstamp_runtime::optimize::hotness;
use hotstamp_runtime::resume::{self, stress};
use hotstamp_runtime::site::{CodePtr, Site};
use hotstamp_runtime::unwind::Continuation;
use hotstamp_runtime::{entry, exits, leave, unwind};

use crate::masm::{Alu, AssembleError, Cond, Label, MacroAssembler, Mem, Reg};

/// Bytes from a frame to its first local.
pub const LOCALS: usize = offset_of!(Frame, localsplus);

/// Bit of `PyStackRef`s that own nothing.
pub const BORROWED: i32 = 1;

/// Bits of the null `StackRef`.
pub const NULL_BITS: i32 = 1;

macro_rules! stub_table {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Addresses of the shared stubs.
        #[derive(Clone, Copy, Debug)]
        pub struct Stubs {
            $($(#[doc = $doc])* pub $name: CodePtr,)*
            /// Where a body returns to that was entered through `trampoline`.
            pub trampoline_return: CodePtr,
            attr_inline_entry: CodePtr,
            attr_slot_entry: CodePtr,
            attr_class_entry: CodePtr,
            attr_class_unshadowed_entry: CodePtr,
            method_class_entry: CodePtr,
            method_class_unshadowed_entry: CodePtr,
            store_inline_entry: CodePtr,
            store_slot_entry: CodePtr,
        }

        impl Stubs {
            /// Names and addresses, for disassembly and profilers.
            pub fn named(&self) -> Vec<(&'static str, CodePtr)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Assembles all stubs for the address at which the code will be published.
            /// With `stress`, exceptions take the ways that tests want: see `resume::stress`.
            pub fn assemble<M: MacroAssembler>(address: CodePtr, stress: bool) -> Result<(Vec<u8>, Stubs), AssembleError> {
                let mut builder = Builder::<M>::new(address);
                builder.stressed = stress;
                $(builder.masm.align(); let $name = CodePtr(address.0.wrapping_add(builder.masm.position())); builder.$name();)*
                let inner = Inner { attr_inline: builder.attr_inline_entry, attr_slot: builder.attr_slot_entry, attr_class: builder.attr_class_entry, attr_class_unshadowed: builder.attr_class_unshadowed_entry, method_class: builder.method_class_entry, method_class_unshadowed: builder.method_class_unshadowed_entry, store_inline: builder.store_inline_entry, store_slot: builder.store_slot_entry };
                let trampoline_return = builder.trampoline_return;
                let code = builder.finish()?;
                Ok((code, Stubs { $($name,)* trampoline_return, attr_inline_entry: inner.attr_inline, attr_slot_entry: inner.attr_slot, attr_class_entry: inner.attr_class, attr_class_unshadowed_entry: inner.attr_class_unshadowed, method_class_entry: inner.method_class, method_class_unshadowed_entry: inner.method_class_unshadowed, store_inline_entry: inner.store_inline, store_slot_entry: inner.store_slot }))
            }
        }
    };
}

stub_table! {
    /// From Rust into a body.
    trampoline,
    /// As `trampoline`, from optimized code: what tells calls of compiled code from those of C is where bodies return to.
    inner_trampoline,
    /// From Rust: calls a C function on another native stack.
    call_on_stack,
    /// Prologue: links the frame, checks recursion and native stack, polls.
    enter,
    /// Prologue of code that makes cells first: as `enter` without the poll, which its RESUME does.
    enter_before_cells,
    /// Error path: an exception is set, `A3` is the site that raised (or 0), native stack at body level.
    error,
    /// As `error`, for an exception that goes on without a new traceback entry.
    reraise,
    /// Calls a memory helper.
    memory,
    /// Calls a memory helper that may have run Python for long: polls afterwards.
    memory_polled,
    /// Calls a memory helper that pushes one value, polls, and gives the value in `Acc` instead.
    memory_value_polled,
    /// Calls a register helper that gives a value.
    register,
    /// Calls a register helper that gives a value, and polls afterwards.
    register_polled,
    /// Calls a register helper that gives nothing.
    register_void,
    /// As `register`, with the helper in payload word 0: see `caches::quick`.
    register_quick,
    /// As `register_void`, with the helper in payload word 0: see `caches::quick`.
    register_quick_void,
    /// UNPACK_SEQUENCE of tuples and lists; else the memory helper. All values but the first go to the operand stack, the first into `Acc`.
    unpack_sequence,
    /// As `unpack_sequence`, with a STORE_FAST_STORE_FAST behind it for each two values, which it executes too. The last of an odd number is in `Acc`.
    unpack_and_store,
    /// LIST_APPEND: the value in `Acc`; the register helper where the list has no room.
    list_append,
    /// IS_OP: operands in `Acc` and A1, the result in `Acc`.
    identity,
    /// Returns `Acc` from the body: clears and pops the frame. `A3` is the site.
    return_value,
    /// Frees the object in `A1`, whose reference count just became zero.
    dealloc,
    /// Polls the eval breaker at an instruction (RESUME, back edges).
    poll,
    /// A back edge whose function became hot: asks for optimized code and goes on in it, or returns. `A3` is the JUMP_BACKWARD's site.
    hot_loop,
    /// As `poll`, where pending events have to wait: looks for observers only.
    poll_observers,
    /// A suspended generator enters the body: as `enter` without the poll, which its RESUME does.
    resume,
    /// Entered as a body is, with a suspended generator's frame: raises the exception that is set.
    throw_into,
    /// RETURN_GENERATOR: makes the generator of the frame and returns it. `A3` is the site.
    return_generator,
    /// YIELD_VALUE: suspends the generator and returns `Acc` from the body. `A3` is the site.
    yield_value,
    /// As `return_value`, for the frame of a generator.
    return_from_generator,
    /// Leaves to the interpreter at the site's instruction; `A2` is the reason.
    leave_at,
    /// From the trampoline into the middle of a body: `A4` is the machine code to go on at, `A5` what `Acc` holds there.
    enter_at,
    /// C entry of bodies: `(frame, data, tstate) -> bits`.
    c_entry,
    /// Body entry of C functions: calls `CodeData::optimized` as `(frame, data, tstate) -> bits`.
    optimized_entry,
    /// Jumped to by stressed code at instructions and behind calls; `A3` is the site, `A4` as `resume::stress::trip` wants it.
    stress,
    /// CALL of anything: compiled Python functions directly, the rest through the memory helper.
    call,
    /// Inline cache; see `CacheStubs`.
    attr_polymorphic,
    /// Inline cache; see `CacheStubs`.
    method_polymorphic,
    /// Inline cache; see `CacheStubs`.
    store_polymorphic,
    /// Inline cache; see `CacheStubs`.
    attr_inline,
    /// Inline cache; see `CacheStubs`.
    attr_slot,
    /// Inline cache; see `CacheStubs`.
    attr_class,
    /// Inline cache; see `CacheStubs`.
    attr_class_unshadowed,
    /// Inline cache; see `CacheStubs`.
    attr_module,
    /// Inline cache; see `CacheStubs`.
    attr_type,
    /// Inline cache; see `CacheStubs`.
    method_class,
    /// Inline cache; see `CacheStubs`.
    method_class_unshadowed,
    /// Inline cache; see `CacheStubs`.
    method_module,
    /// Inline cache; see `CacheStubs`.
    method_type,
    /// Inline cache; see `CacheStubs`.
    store_inline,
    /// Inline cache; see `CacheStubs`.
    store_slot,
    /// Inline cache; see `CacheStubs`.
    int_add,
    /// Inline cache; see `CacheStubs`.
    int_sub,
    /// Inline cache; see `CacheStubs`.
    int_mul,
    /// Inline cache; see `CacheStubs`.
    int_and,
    /// Inline cache; see `CacheStubs`.
    int_or,
    /// Inline cache; see `CacheStubs`.
    int_xor,
    /// Inline cache; see `CacheStubs`.
    float_add,
    /// Inline cache; see `CacheStubs`.
    float_sub,
    /// Inline cache; see `CacheStubs`.
    float_mul,
    /// Inline cache; see `CacheStubs`.
    float_div,
    /// Inline cache; see `CacheStubs`.
    list_subscript,
    /// Inline cache; see `CacheStubs`.
    tuple_subscript,
    /// Inline cache; see `CacheStubs`.
    store_list,
    /// Inline cache; see `CacheStubs`.
    to_bool_word,
    /// Inline cache; see `CacheStubs`.
    int_lt,
    /// Inline cache; see `CacheStubs`.
    int_le,
    /// Inline cache; see `CacheStubs`.
    int_eq,
    /// Inline cache; see `CacheStubs`.
    int_ne,
    /// Inline cache; see `CacheStubs`.
    int_gt,
    /// Inline cache; see `CacheStubs`.
    int_ge,
    /// Inline cache; see `CacheStubs`.
    float_lt,
    /// Inline cache; see `CacheStubs`.
    float_le,
    /// Inline cache; see `CacheStubs`.
    float_eq,
    /// Inline cache; see `CacheStubs`.
    float_ne,
    /// Inline cache; see `CacheStubs`.
    float_gt,
    /// Inline cache; see `CacheStubs`.
    float_ge,
    /// Inline cache; see `CacheStubs`.
    iterate_list,
    /// Inline cache; see `CacheStubs`.
    iterate_tuple,
    /// Inline cache; see `CacheStubs`.
    iterate_range,
    /// Inline cache; see `CacheStubs`.
    iterate_generator,
    /// Called with a body's frame (A0) and data (A1) whose SEND waits: goes on in it at T3, where A4 is what the receiver gave and A5 how.
    continue_delegation,
    /// SEND: enters a compiled generator, or calls the helper.
    send,
    /// Behind each SEND: the result in `Acc`, and in `A1` 1 if the receiver returned it, 0 if it yielded it.
    send_finish,
}

/// Where the stubs begin that polymorphic ones go on at, with A4 set.
struct Inner {
    attr_inline: CodePtr,
    attr_slot: CodePtr,
    attr_class: CodePtr,
    attr_class_unshadowed: CodePtr,
    method_class: CodePtr,
    method_class_unshadowed: CodePtr,
    store_inline: CodePtr,
    store_slot: CodePtr,
}

/// What is shared by the stubs while they are assembled.
pub(crate) struct Builder<M> {
    pub(crate) masm: M,
    error: Label,
    reraise: Label,
    leave_after_value: Label,
    leave_after_void: Label,
    /// Tails of cache stubs, see `value_tails`.
    new_value: Label,
    close_acc: Label,
    close_both: Label,
    close_acc_then_a1: Label,
    address: CodePtr,
    inner_trampoline_address: CodePtr,
    continue_delegation_address: CodePtr,
    trampoline_return: CodePtr,
    /// Exceptions go through `resume::stress`.
    stressed: bool,
    attr_inline_entry: CodePtr,
    attr_slot_entry: CodePtr,
    attr_class_entry: CodePtr,
    attr_class_unshadowed_entry: CodePtr,
    method_class_entry: CodePtr,
    method_class_unshadowed_entry: CodePtr,
    store_inline_entry: CodePtr,
    store_slot_entry: CodePtr,
}

impl Stubs {
    /// What the miss helpers choose from.
    pub fn cache_stubs(&self) -> CacheStubs {
        CacheStubs {
            register: self.register,
            register_void: self.register_void,
            register_quick: self.register_quick,
            register_quick_void: self.register_quick_void,
            call: self.call,
            memory_value_polled: self.memory_value_polled,
            attr_polymorphic: self.attr_polymorphic,
            method_polymorphic: self.method_polymorphic,
            store_polymorphic: self.store_polymorphic,
            attr_inline_entry: self.attr_inline_entry,
            attr_slot_entry: self.attr_slot_entry,
            attr_class_entry: self.attr_class_entry,
            attr_class_unshadowed_entry: self.attr_class_unshadowed_entry,
            method_class_entry: self.method_class_entry,
            method_class_unshadowed_entry: self.method_class_unshadowed_entry,
            store_inline_entry: self.store_inline_entry,
            store_slot_entry: self.store_slot_entry,
            attr_inline: self.attr_inline,
            attr_slot: self.attr_slot,
            attr_class: self.attr_class,
            attr_class_unshadowed: self.attr_class_unshadowed,
            attr_module: self.attr_module,
            attr_type: self.attr_type,
            method_class: self.method_class,
            method_class_unshadowed: self.method_class_unshadowed,
            method_module: self.method_module,
            method_type: self.method_type,
            store_inline: self.store_inline,
            store_slot: self.store_slot,
            int_add: self.int_add,
            int_sub: self.int_sub,
            int_mul: self.int_mul,
            int_and: self.int_and,
            int_or: self.int_or,
            int_xor: self.int_xor,
            float_add: self.float_add,
            float_sub: self.float_sub,
            float_mul: self.float_mul,
            float_div: self.float_div,
            list_subscript: self.list_subscript,
            tuple_subscript: self.tuple_subscript,
            store_list: self.store_list,
            to_bool_word: self.to_bool_word,
            int_lt: self.int_lt,
            int_le: self.int_le,
            int_eq: self.int_eq,
            int_ne: self.int_ne,
            int_gt: self.int_gt,
            int_ge: self.int_ge,
            float_lt: self.float_lt,
            float_le: self.float_le,
            float_eq: self.float_eq,
            float_ne: self.float_ne,
            float_gt: self.float_gt,
            float_ge: self.float_ge,
            iterate_list: self.iterate_list,
            iterate_tuple: self.iterate_tuple,
            iterate_range: self.iterate_range,
            iterate_generator: self.iterate_generator,
            send: self.send,
        }
    }
}

/// Field of the thread state.
pub(crate) fn tstate(field: usize) -> Mem {
    Reg::Tstate.at(field)
}

impl<M: MacroAssembler> Builder<M> {
    fn new(address: CodePtr) -> Self {
        let mut masm = M::new(address);
        let (error, reraise) = (masm.new_label(), masm.new_label());
        let (leave_after_value, leave_after_void) = (masm.new_label(), masm.new_label());
        let (new_value, close_acc) = (masm.new_label(), masm.new_label());
        let (close_both, close_acc_then_a1) = (masm.new_label(), masm.new_label());
        Builder {
            masm,
            error,
            reraise,
            leave_after_value,
            leave_after_void,
            new_value,
            close_acc,
            close_both,
            close_acc_then_a1,
            address,
            inner_trampoline_address: address,
            continue_delegation_address: address,
            trampoline_return: address,
            stressed: false,
            attr_inline_entry: address,
            attr_slot_entry: address,
            attr_class_entry: address,
            attr_class_unshadowed_entry: address,
            method_class_entry: address,
            method_class_unshadowed_entry: address,
            store_inline_entry: address,
            store_slot_entry: address,
        }
    }

    /// The address of the next instruction.
    fn here(&self) -> CodePtr {
        CodePtr(self.address.0.wrapping_add(self.masm.position()))
    }

    fn finish(mut self) -> Result<Vec<u8>, AssembleError> {
        self.leave_tails();
        self.value_tails();
        self.masm.finish()
    }

    fn trampoline(&mut self) {
        let returns = self.masm.trampoline();
        self.trampoline_return = CodePtr(self.address.0.wrapping_add(returns));
    }

    fn inner_trampoline(&mut self) {
        self.inner_trampoline_address = self.here();
        self.masm.trampoline();
    }

    fn call_on_stack(&mut self) {
        self.masm.call_on_stack();
    }

    /// At body level: leaves to the interpreter with what the frame says, and returns its result.
    fn leave_after_poll(&mut self) {
        let m = &mut self.masm;
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(entry::leave_after_poll as *const ());
        m.mov_imm(Reg::A1, generators::ASK_STATE as u64);
        m.body_return();
    }

    fn error(&mut self) {
        let label = self.error;
        self.masm.bind(label);
        self.handle_exception(0);
    }

    fn reraise(&mut self) {
        let label = self.reraise;
        self.masm.bind(label);
        self.handle_exception(1);
    }

    fn handle_exception(&mut self, reraised: u64) {
        let m = &mut self.masm;
        // Room for a `Continuation` on the native stack: two words, filled by the callee.
        m.push_pair(Reg::T0, Reg::T1);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.mov_imm(Reg::A4, reraised);
        m.native_stack_pointer(Reg::A5);
        m.call_c(if self.stressed {
            stress::handle_exception as *const ()
        } else {
            unwind::handle_exception as *const ()
        });
        self.go_on();
    }

    /// Follows the `Continuation` on the native stack.
    fn go_on(&mut self) {
        let m = &mut self.masm;
        let returns = m.new_label();
        // `push_pair` stores its second register at the lower address: `resume`, then `result`.
        const { assert!(offset_of!(Continuation, resume) == 0 && offset_of!(Continuation, result) == 8) };
        m.pop_pair(Reg::Acc, Reg::T1);
        m.branch_cmp_imm(Cond::Eq, Reg::T1, 0, returns);
        m.jump_reg(Reg::T1);
        m.bind(returns);
        m.mov_imm(Reg::A1, generators::ASK_STATE as u64);
        m.body_return();
    }

    fn stress(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        m.push_pair(Reg::T0, Reg::T1);
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.native_stack_pointer(Reg::A5);
        m.call_c(stress::trip as *const ());
        self.go_on();
    }

    /// Stores what anybody who looks at the frame needs: the instruction and the operand stack's end. Uses T0.
    fn publish_site(&mut self) {
        let m = &mut self.masm;
        m.load(Reg::T0, Reg::A3.at(offset_of!(Site, instr)));
        m.store(Reg::Frame.at(offset_of!(Frame, instr_ptr)), Reg::T0);
        m.load16(Reg::T0, Reg::A3.at(offset_of!(Site, stack_words)));
        m.lea_indexed(Reg::T0, Reg::Frame, Reg::T0, 0);
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T0);
    }

    /// Branches to `stale` if the instrumentation version changed. Uses T0, T1.
    fn branch_if_stale(&mut self, stale: Label) {
        let m = &mut self.masm;
        m.load(Reg::T0, tstate(offset_of!(PyThreadState, eval_breaker)));
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, version)));
        m.load(Reg::T1, Reg::T1.at(0));
        m.alu(Alu::Xor, Reg::T0, Reg::T1);
        m.shift_imm(crate::masm::Shift::RightLogical, Reg::T0, 8);
        m.branch_cmp_imm(Cond::Ne, Reg::T0, 0, stale);
        m.branch_mem32_imm(
            Cond::Ne,
            Reg::Data.at(offset_of!(CodeData, leave)),
            0,
            stale,
        );
    }

    /// Branches to `events` if anything is pending or the instrumentation version changed. Uses T0, T1.
    fn branch_if_breaker(&mut self, events: Label) {
        let m = &mut self.masm;
        m.load(Reg::T0, tstate(offset_of!(PyThreadState, eval_breaker)));
        m.load(Reg::T1, Reg::Data.at(offset_of!(CodeData, version)));
        m.branch_cmp_mem(Cond::Ne, Reg::T0, Reg::T1.at(0), events);
        m.branch_mem32_imm(
            Cond::Ne,
            Reg::Data.at(offset_of!(CodeData, leave)),
            0,
            events,
        );
    }

    fn memory(&mut self) {
        self.memory_call(false);
    }

    fn memory_polled(&mut self) {
        self.memory_call(true);
    }

    fn memory_value_polled(&mut self) {
        self.memory_call_value(true);
    }

    fn memory_call_value(&mut self, poll: bool) {
        self.publish_site();
        let m = &mut self.masm;
        let (failed, changed) = (m.new_label(), m.new_label());
        m.stub_enter();
        m.mov(Reg::A0, Reg::A3);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A2, Reg::Tstate);
        m.call_mem(Reg::A3.at(offset_of!(Site, helper)));
        m.branch_cmp_imm(Cond::Lt, Reg::Acc, 0, failed);
        m.load(Reg::T0, Reg::Frame.at(offset_of!(Frame, stackpointer)));
        m.alu_imm(Alu::Sub, Reg::T0, 8);
        m.load(Reg::Acc, Reg::T0.at(0));
        m.store(Reg::Frame.at(offset_of!(Frame, stackpointer)), Reg::T0);
        if poll {
            self.branch_if_breaker(changed);
        } else {
            self.branch_if_stale(changed);
        }
        let m = &mut self.masm;
        m.stub_exit();
        m.ret();
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(changed);
        m.jump(self.leave_after_value);
    }

    fn memory_call(&mut self, poll: bool) {
        self.publish_site();
        let m = &mut self.masm;
        let (failed, changed) = (m.new_label(), m.new_label());
        m.stub_enter();
        m.mov(Reg::A0, Reg::A3);
        m.mov(Reg::A1, Reg::Frame);
        m.mov(Reg::A2, Reg::Tstate);
        m.call_mem(Reg::A3.at(offset_of!(Site, helper)));
        m.branch_cmp_imm(Cond::Lt, Reg::Acc, 0, failed);
        if poll {
            self.branch_if_breaker(changed);
        } else {
            self.branch_if_stale(changed);
        }
        let m = &mut self.masm;
        m.stub_exit();
        m.ret();
        m.bind(failed);
        let reraised = m.new_label();
        m.stub_abandon();
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, -2, reraised);
        m.jump(self.error);
        m.bind(reraised);
        m.jump(self.reraise);
        m.bind(changed);
        m.jump(self.leave_after_void);
    }

    fn register(&mut self) {
        self.register_call(true, false);
    }

    fn register_polled(&mut self) {
        self.register_call(true, true);
    }

    fn register_void(&mut self) {
        self.register_call(false, false);
    }

    fn register_quick(&mut self) {
        self.register_call_of(size_of::<Site>(), true, false);
    }

    fn register_quick_void(&mut self) {
        self.register_call_of(size_of::<Site>(), false, false);
    }

    /// Operands in Acc, A1, A2.
    fn register_call(&mut self, value: bool, poll: bool) {
        self.register_call_of(offset_of!(Site, helper), value, poll);
    }

    /// As `register_call`; the helper is at this offset from the site.
    fn register_call_of(&mut self, helper: usize, value: bool, poll: bool) {
        self.publish_site();
        let m = &mut self.masm;
        let (failed, changed) = (m.new_label(), m.new_label());
        m.stub_enter();
        m.mov(Reg::A0, Reg::Acc);
        m.mov(Reg::A4, Reg::Frame);
        m.mov(Reg::A5, Reg::Tstate);
        m.call_mem(Reg::A3.at(helper));
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, failed);
        if poll {
            self.branch_if_breaker(changed);
        } else {
            self.branch_if_stale(changed);
        }
        let m = &mut self.masm;
        m.stub_exit();
        m.ret();
        m.bind(failed);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(changed);
        let target = if value {
            self.leave_after_value
        } else {
            self.leave_after_void
        };
        m.jump(target);
    }

    /// Where stubs go when, after an operation, something was pending or changed: still inside `stub_enter`, `Acc` is the result.
    fn leave_tails(&mut self) {
        let (with_value, void) = (self.leave_after_value, self.leave_after_void);
        for (label, value) in [(with_value, true), (void, false)] {
            let m = &mut self.masm;
            m.align();
            m.bind(label);
            let (stay, failed) = (m.new_label(), m.new_label());
            m.stub_exit();
            m.stub_enter();
            m.push_pair(Reg::Acc, Reg::A3);
            if value {
                m.mov(Reg::A4, Reg::Acc);
            } else {
                m.mov_imm(Reg::A4, 0);
            }
            m.mov(Reg::A0, Reg::Frame);
            m.mov(Reg::A1, Reg::Tstate);
            m.mov(Reg::A2, Reg::Data);
            m.call_c(leave::after_operation as *const ());
            m.branch_cmp_imm(Cond::Eq, Reg::Acc, leave::STAY as i32, stay);
            m.branch_cmp_imm(Cond::Eq, Reg::Acc, leave::RAISED as i32, failed);
            m.pop_pair(Reg::T0, Reg::A3);
            m.stub_abandon();
            self.leave_after_poll();
            let m = &mut self.masm;
            m.bind(failed);
            m.pop_pair(Reg::T0, Reg::A3);
            m.stub_abandon();
            m.jump(self.error);
            m.bind(stay);
            m.pop_pair(Reg::Acc, Reg::A3);
            m.stub_exit();
            m.ret();
        }
    }

    fn dealloc(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        m.stub_enter();
        m.mov(Reg::A0, Reg::A1);
        m.call_c(ffi::_Py_Dealloc as *const ());
        m.stub_exit();
        m.ret();
    }

    fn poll(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        let (proceed, raised) = (m.new_label(), m.new_label());
        m.stub_enter();
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(entry::poll as *const ());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, proceed);
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, -2, raised);
        m.stub_abandon();
        self.leave_after_poll();
        let m = &mut self.masm;
        m.bind(raised);
        m.stub_abandon();
        m.jump(self.error);
        m.bind(proceed);
        m.stub_exit();
        m.ret();
    }

    fn hot_loop(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        let stay = m.new_label();
        m.stub_enter();
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.mov(Reg::A2, Reg::Data);
        m.call_c(hotness::hot_loop as *const ());
        m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, stay);
        // On-stack replacement: the optimized code takes the frame over and pops it.
        m.mov(Reg::T0, Reg::Acc);
        m.stub_abandon();
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Data);
        m.mov(Reg::A2, Reg::Tstate);
        m.call_reg(Reg::T0);
        let done = m.new_label();
        m.branch_cmp_imm(Cond::Ne, Reg::Acc, resume::HANDED_BACK as i32, done);
        m.mov_imm(Reg::T0, (&raw const resume::HANDED_BACK_TO) as u64);
        m.load(Reg::Acc, Reg::T0.at(offset_of!(Continuation, result)));
        m.load(Reg::T0, Reg::T0.at(offset_of!(Continuation, resume)));
        m.jump_reg(Reg::T0);
        m.bind(done);
        m.body_return();
        m.bind(stay);
        m.stub_exit();
        m.ret();
    }

    fn leave_at(&mut self) {
        self.publish_site();
        let m = &mut self.masm;
        m.mov(Reg::A0, Reg::Frame);
        m.mov(Reg::A1, Reg::Tstate);
        m.call_c(exits::leave_to_interpreter as *const ());
        m.mov_imm(Reg::A1, generators::ASK_STATE as u64);
        m.body_return();
    }
}
