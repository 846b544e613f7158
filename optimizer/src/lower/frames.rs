//! The outer frame: prologue, epilogue, and plans that say how frames look where control leaves.

use std::mem::offset_of;
use std::rc::Rc;

use hotstamp_job::{Action, ExitPlan, FramePlan, Mode, Source};
use hotstamp_layout::ffi::{self, _PyInterpreterFrame as Frame, PyThreadState};
use hotstamp_runtime::segments;
use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PhiValue, PointerValue};

use super::{Lower, LowerError, Lowered};
use crate::hir::{Entry, FrameState, Op, Reason, Type, Value};

/// Byte offset of a frame's first local.
pub(super) const LOCALS: usize = offset_of!(Frame, localsplus);

/// Values that an exit hands over, each once.
#[derive(Default)]
pub(super) struct Handed {
    pub(super) values: Vec<Value>,
}

impl Handed {
    fn index(&mut self, value: Value) -> u16 {
        let place = self
            .values
            .iter()
            .position(|known| *known == value)
            .unwrap_or_else(|| {
                self.values.push(value);
                self.values.len() - 1
            });
        place as u16
    }
}

impl<'c> Lower<'c, '_> {
    /// Links the frame and looks at limits and events, as the baseline's prologue does; what is rare is left to the baseline body.
    pub(super) fn prologue(&mut self, body: BasicBlock<'c>) -> Lowered<()> {
        if self.job.entry != 0 {
            self.b.build_unconditional_branch(body)?;
            return Ok(());
        }
        let slow = self.new_block("baseline");
        let remaining = self.recursion_remaining()?;
        let limit = self.compare(IntPredicate::SLE, remaining, self.i32(16))?;
        self.unlikely(limit, slow)?;
        let soft = self.load64(
            self.tstate,
            offset_of!(ffi::_PyThreadStateImpl, c_stack_soft_limit),
        )?;
        let here = self
            .b
            .build_ptr_to_int(self.buffer, self.context.i64_type(), "")?;
        let end = self
            .b
            .build_int_sub(here, self.i64(segments::ROOM as u64), "")?;
        let low = self.compare(IntPredicate::ULT, end, soft)?;
        self.unlikely(low, slow)?;
        let pending = self.pending()?;
        self.unlikely(pending, slow)?;
        let fewer = self.b.build_int_sub(remaining, self.i32(1), "")?;
        self.link(self.frame.into(), fewer)?;
        self.b.build_unconditional_branch(body)?;
        self.b.position_at_end(slow);
        let caller = self.return_address()?;
        let result = self.call64(
            self.job.process.baseline,
            &[
                self.frame.into(),
                self.data.into(),
                self.tstate.into(),
                caller.into(),
            ],
        )?;
        self.b.build_return(Some(&result))?;
        Ok(())
    }

    /// How many calls the recursion limit leaves.
    pub(super) fn recursion_remaining(&self) -> Lowered<IntValue<'c>> {
        self.load32(
            self.tstate,
            offset_of!(PyThreadState, py_recursion_remaining),
        )
    }

    /// Makes a frame (its address) the running one, with so many calls left.
    pub(super) fn link(&self, frame: BasicValueEnum<'c>, remaining: IntValue<'c>) -> Lowered<()> {
        let tstate = self.tstate;
        self.store(tstate, offset_of!(PyThreadState, current_frame), frame)?;
        self.store(
            tstate,
            offset_of!(PyThreadState, py_recursion_remaining),
            remaining.into(),
        )
    }

    /// Where the function returns to.
    fn return_address(&mut self) -> Lowered<BasicValueEnum<'c>> {
        let intrinsic =
            inkwell::intrinsics::Intrinsic::find("llvm.returnaddress").ok_or(LowerError::Kind)?;
        let pointer = self.context.ptr_type(Default::default());
        let types: &[BasicTypeEnum<'c>] = if intrinsic.is_overloaded() {
            &[pointer.into()]
        } else {
            &[]
        };
        let function = intrinsic
            .get_declaration(self.module, types)
            .ok_or(LowerError::Kind)?;
        self.b
            .build_call(function, &[self.i32(0).into()], "")?
            .try_as_basic_value()
            .basic()
            .ok_or(LowerError::Kind)
    }

    /// Whether something is pending or somebody observes; a question of the sampler is put off. Ends in a new block.
    pub(super) fn pending(&self) -> Lowered<IntValue<'c>> {
        let breaker = self.load64(self.tstate, offset_of!(PyThreadState, eval_breaker))?;
        // Signal handlers and other threads write it: a loop has to look each time around.
        if let Some(load) = breaker.as_instruction() {
            load.set_volatile(true).map_err(|_| LowerError::Kind)?;
        }
        let plain = self.load64(self.address(self.job.process.plain_version), 0)?;
        let differs = self.compare(IntPredicate::NE, breaker, plain)?;
        // Nearly always a question of the sampler, which is nothing to leave for.
        let before = self.b.get_insert_block().ok_or(LowerError::Kind)?;
        let (ask, known) = (self.new_block("ask"), self.new_block("known"));
        let branch = self.b.build_conditional_branch(differs, ask, known)?;
        self.weights(branch, 1, 2000)?;
        self.b.position_at_end(ask);
        let answer = self.call64(self.job.process.pending, &[self.tstate.into()])?;
        let pending = self.compare(IntPredicate::NE, answer, self.i64(0))?;
        let asked = self.b.get_insert_block().ok_or(LowerError::Kind)?;
        self.b.build_unconditional_branch(known)?;
        self.b.position_at_end(known);
        let result = self.b.build_phi(self.context.bool_type(), "pending")?;
        let no = self.context.bool_type().const_zero();
        result.add_incoming(&[(&no, before), (&pending, asked)]);
        Ok(result.as_basic_value().into_int_value())
    }

    /// Returns a value: the frame is unlinked, its references released from the last local to the first, and popped.
    pub(super) fn epilogue(
        &mut self,
        value: Value,
        locals: &[Value],
        state: Option<&Rc<FrameState>>,
    ) -> Lowered<()> {
        let bits = self.heap_bits(value)?;
        let remaining = self.recursion_remaining()?;
        let more = self.b.build_int_add(remaining, self.i32(1), "")?;
        let previous = self.load64(self.frame, offset_of!(Frame, previous))?;
        self.link(previous.into(), more)?;
        let observed = self.new_block("observed");
        let object = self.load64(self.frame, offset_of!(Frame, frame_obj))?;
        let has_object = self.compare(IntPredicate::NE, object, self.i64(0))?;
        self.unlikely(has_object, observed)?;
        for &local in locals {
            self.release_bits(self.int(local)?, None)?;
        }
        for field in [
            offset_of!(Frame, f_funcobj),
            offset_of!(Frame, f_executable),
        ] {
            let reference = self.load64(self.frame, field)?;
            self.release_bits(reference, None)?;
        }
        let chunk = self
            .load(
                self.context.ptr_type(Default::default()),
                self.tstate,
                offset_of!(PyThreadState, datastack_chunk),
            )?
            .into_pointer_value();
        let first = self.at(chunk, offset_of!(ffi::_PyStackChunk, data))?;
        let pop_chunk = self.new_block("pop_chunk");
        let is_first = self.compare(
            IntPredicate::EQ,
            self.b
                .build_ptr_to_int(first, self.context.i64_type(), "")?,
            self.b
                .build_ptr_to_int(self.frame, self.context.i64_type(), "")?,
        )?;
        self.unlikely(is_first, pop_chunk)?;
        self.store(
            self.tstate,
            offset_of!(PyThreadState, datastack_top),
            self.frame.into(),
        )?;
        self.b.build_return(Some(&bits))?;
        self.b.position_at_end(pop_chunk);
        self.call(
            self.job.process.pop_frame,
            None,
            &[self.tstate.into(), self.frame.into()],
        )?;
        self.b.build_return(Some(&bits))?;

        // A frame object takes the frame over: the frame's memory becomes true first.
        self.b.position_at_end(observed);
        if let Some(state) = state {
            let mut boxes = Vec::new();
            self.store_locals(state, &mut boxes)?;
        }
        let nlocalsplus = self.job.codes[0].nlocalsplus as usize;
        let empty = self.at(self.frame, LOCALS + nlocalsplus * 8)?;
        self.store(self.frame, offset_of!(Frame, stackpointer), empty.into())?;
        self.call(
            self.job.process.clear_frame,
            None,
            &[self.tstate.into(), self.frame.into()],
        )?;
        self.b.build_return(Some(&bits))?;
        Ok(())
    }

    /// Where a slot's value comes from, when all is handed over.
    pub(super) fn source(&self, entry: Entry, handed: &mut Handed) -> Source {
        let constant = |value: Value| match *self.op(value) {
            Op::ConstRef(bits) => Some(if bits == 1 {
                Source::Null
            } else {
                Source::Constant(bits)
            }),
            Op::ConstInt(int) => Some(Source::ConstantInt(int)),
            Op::ConstFloat(float) => Some(Source::ConstantFloat(float)),
            _ => None,
        };
        match entry {
            Entry::Null => Source::Null,
            Entry::Owned(value) => match constant(value) {
                Some(source) => source,
                None => Source::Bits(handed.index(value), Mode::Move),
            },
            Entry::Borrowed(value) => match constant(value) {
                Some(source) => source,
                None => Source::Bits(handed.index(value), Mode::Borrow),
            },
            Entry::Lent(value) => Source::Bits(handed.index(value), Mode::Dup),
            Entry::Unboxed(value) => match constant(value) {
                Some(source) => source,
                None => match self.graph.ty(value) {
                    Type::Int => Source::Int(handed.index(value)),
                    Type::Float => Source::Float(handed.index(value)),
                    _ => Source::Bool(handed.index(value)),
                },
            },
            Entry::Maybe(flag, value) => {
                let (flag, index) = (handed.index(flag), handed.index(value));
                match self.graph.ty(value) {
                    Type::Int => Source::MaybeInt(flag, index),
                    _ => Source::MaybeFloat(flag, index),
                }
            }
            Entry::Tuple(tuple) => {
                let tuple = &self.graph.tuples[tuple as usize];
                let items = tuple.items.iter();
                let items = items.map(|item| self.source(*item, handed)).collect();
                Source::Tuple(tuple.origin, items)
            }
            Entry::Backwards(list, last) => {
                Source::Backwards(handed.index(list), handed.index(last))
            }
            Entry::Range(next, left, step) => {
                Source::Range(handed.index(next), handed.index(left), step)
            }
        }
    }

    fn frame_plan(&self, state: &FrameState, handed: &mut Handed) -> FramePlan {
        let context = &self.graph.contexts[state.context as usize];
        FramePlan {
            code: context.code,
            offset: state.offset,
            function: context.function,
            linked: false,
            locals: state
                .locals
                .iter()
                .map(|entry| match entry {
                    Entry::Owned(_) | Entry::Borrowed(_) | Entry::Null
                        if context.parent.is_none() =>
                    {
                        Source::InPlace
                    }
                    _ => self.source(*entry, handed),
                })
                .collect(),
            stack: state
                .stack
                .iter()
                .map(|entry| self.source(*entry, handed))
                .collect(),
            instance: state
                .instance
                .map(|value| self.source(Entry::Owned(value), handed)),
            drops_result: state.drops_result,
        }
    }

    /// A plan in which everything is handed over.
    pub(super) fn plan(
        &mut self,
        reason: Reason,
        action: Action,
        state: &FrameState,
    ) -> (u64, Handed) {
        let mut handed = Handed::default();
        let frames = (state.chain().into_iter())
            .map(|state| self.frame_plan(state, &mut handed))
            .collect();
        self.add_plan(
            ExitPlan {
                reason,
                action,
                frames,
            },
            &handed,
        )
    }

    /// A plan for frames that are linked, their memory true already but for range iterators. The innermost goes on at `offset` with an operand stack `depth` deep.
    pub(super) fn plan_in_place(
        &mut self,
        reason: Reason,
        action: Action,
        state: &FrameState,
        offset: u32,
        depth: usize,
    ) -> (u64, Handed) {
        let mut handed = Handed::default();
        let callers = state.parent.as_deref().map(FrameState::chain);
        let mut frames: Vec<_> = (callers.into_iter().flatten())
            .map(|state| self.linked_plan(state, state.offset, state.stack.len(), &mut handed))
            .collect();
        frames.push(self.linked_plan(state, offset, depth, &mut handed));
        self.add_plan(
            ExitPlan {
                reason,
                action,
                frames,
            },
            &handed,
        )
    }

    fn linked_plan(
        &self,
        state: &FrameState,
        offset: u32,
        depth: usize,
        handed: &mut Handed,
    ) -> FramePlan {
        let context = &self.graph.contexts[state.context as usize];
        let mut place = |entry: &Entry| match entry {
            Entry::Range(..) => self.source(*entry, handed),
            _ => Source::InPlace,
        };
        let mut stack: Vec<Source> = state.stack.iter().take(depth).map(&mut place).collect();
        stack.resize(depth, Source::InPlace);
        let locals = state.locals.iter().map(place).collect();
        FramePlan {
            code: context.code,
            offset,
            function: context.function,
            linked: true,
            locals,
            stack,
            instance: state
                .instance
                .map(|value| self.source(Entry::Owned(value), handed)),
            drops_result: state.drops_result,
        }
    }

    fn add_plan(&mut self, plan: ExitPlan, handed: &Handed) -> (u64, Handed) {
        self.plans.push(plan);
        self.max_values = self.max_values.max(handed.values.len());
        (
            self.plans.len() as u64 - 1,
            Handed {
                values: handed.values.clone(),
            },
        )
    }

    /// The buffer as a pointer of which LLVM does not know where it comes from. Passes that look at all uses of a local array would do so again and again for each of
    /// hundreds of exits.
    pub(super) fn hidden_buffer(&mut self) -> Lowered<PointerValue<'c>> {
        let pointer = self.context.ptr_type(Default::default());
        let ty = pointer.fn_type(&[pointer.into()], false);
        let hide = self.context.create_inline_asm(
            ty,
            String::new(),
            "=r,0".to_owned(),
            true,
            false,
            None,
            false,
        );
        let call = self
            .b
            .build_indirect_call(ty, hide, &[self.buffer.into()], "")?;
        match call.try_as_basic_value().basic() {
            Some(BasicValueEnum::PointerValue(hidden)) => Ok(hidden),
            _ => Err(LowerError::Kind),
        }
    }

    /// Stores the values of an exit into the buffer.
    pub(super) fn hand_over(&mut self, handed: &Handed) -> Lowered<PointerValue<'c>> {
        self.store_values(&handed.values, 0)?;
        Ok(self.buffer)
    }

    /// Stores values into their places in the buffer, from an index on.
    fn store_values(&mut self, values: &[Value], from: usize) -> Lowered<()> {
        if values.len() == from {
            return Ok(());
        }
        let buffer = self.hidden_buffer()?;
        for (index, &value) in values.iter().enumerate().skip(from) {
            let word: BasicValueEnum<'c> = match self.value(value)? {
                BasicValueEnum::IntValue(int) if int.get_type().get_bit_width() == 1 => self
                    .b
                    .build_int_z_extend(int, self.context.i64_type(), "")?
                    .into(),
                other => other,
            };
            self.store(buffer, index * 8, word)?;
        }
        Ok(())
    }

    /// At the end of a cold block: leaves by a plan. All exits share one call and one epilogue, which would be most of their code.
    pub(super) fn leave(&mut self, plan: u64, handed: &Handed) -> Lowered<()> {
        self.hand_over(handed)?;
        let (block, number) = self.leave_block()?;
        number.add_incoming(&[(&self.i64(plan), self.current())]);
        self.b.build_unconditional_branch(block)?;
        Ok(())
    }

    /// The block that leaves by the plan that its phi says, with the values in the buffer.
    fn leave_block(&mut self) -> Lowered<(BasicBlock<'c>, PhiValue<'c>)> {
        Ok(match self.leave_block {
            Some(known) => known,
            None => {
                let here = self.current();
                let block = self.new_block("leave");
                self.b.position_at_end(block);
                let number = self.b.build_phi(self.context.i64_type(), "plan")?;
                let process = &self.job.process;
                let result = self.call64(
                    process.exit,
                    &[
                        self.i64(process.artifact).into(),
                        number.as_basic_value().into_int_value().into(),
                        self.frame.into(),
                        self.tstate.into(),
                        self.buffer.into(),
                    ],
                )?;
                self.b.build_return(Some(&result))?;
                self.b.position_at_end(here);
                self.leave_block = Some((block, number));
                (block, number)
            }
        })
    }

    /// The cold block that stores the values of a state into the buffer and leaves by the plan that its phi says. What the frames of callers need is stored by the block of their state, which
    /// all exits of an inlined call share. Keeps the builder where it is.
    fn store_block(
        &mut self,
        state: &Rc<FrameState>,
        values: &[Value],
    ) -> Lowered<(BasicBlock<'c>, PhiValue<'c>)> {
        let key = Rc::as_ptr(state);
        if let Some(known) = self.store_blocks.get(&key) {
            return Ok(*known);
        }
        // The values of callers come first, in the same order.
        let (callers, next) = match &state.parent {
            Some(parent) => {
                let callers = self.handed(parent).values.len();
                (callers, self.store_block(parent, &values[..callers])?)
            }
            None => (0, self.leave_block()?),
        };
        let (to, to_number) = next;
        let here = self.current();
        let block = self.new_block("store");
        self.b.position_at_end(block);
        let number = self.b.build_phi(self.context.i64_type(), "plan")?;
        self.store_values(values, callers)?;
        to_number.add_incoming(&[(&number.as_basic_value().into_int_value(), self.current())]);
        self.b.build_unconditional_branch(to)?;
        self.b.position_at_end(here);
        self.store_blocks.insert(key, (block, number));
        self.kept.push(state.clone());
        Ok((block, number))
    }

    /// What a state hands over.
    fn handed(&self, state: &FrameState) -> Handed {
        let mut handed = Handed::default();
        for state in state.chain() {
            self.frame_plan(state, &mut handed);
        }
        handed
    }

    /// The cold block that leaves with a state, shared by all guards that leave alike. Keeps the builder where it is.
    pub(super) fn exit_block(
        &mut self,
        reason: Reason,
        state: &Rc<FrameState>,
    ) -> Lowered<BasicBlock<'c>> {
        if let Some(block) = self.exits.get(&(Rc::as_ptr(state), reason)) {
            return Ok(*block);
        }
        let here = self.current();
        let block = self.new_block("exit");
        self.b.position_at_end(block);
        let (plan, handed) = self.plan(reason, Action::Resume, state);
        let (store, number) = self.store_block(state, &handed.values)?;
        number.add_incoming(&[(&self.i64(plan), block)]);
        self.b.build_unconditional_branch(store)?;
        self.b.position_at_end(here);
        self.exits.insert((Rc::as_ptr(state), reason), block);
        self.kept.push(state.clone());
        Ok(block)
    }

    /// The state of an instruction that has one.
    pub(super) fn state_of(&self, value: Value) -> Lowered<Rc<FrameState>> {
        self.graph.inst(value).state.clone().ok_or(LowerError::Kind)
    }
}
