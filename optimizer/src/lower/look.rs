//! Operations during which somebody may look. The outer frame's memory becomes true before; inlined calls get frames for as long as the operation runs. Behind it compiled code goes
//! on with its own values, or leaves if somebody kept one of the frames.

use std::mem::offset_of;

use hotstamp_job::Action;
use hotstamp_layout::ffi::{self, _PyInterpreterFrame as Frame, PyThreadState};
use hotstamp_layout::opcode::Opcode;
use inkwell::IntPredicate;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::frames::LOCALS;
use super::{Lower, LowerError, Lowered};
use crate::hir::{Entry, FrameState, Op, Reason, Value};

/// Frames that are linked while an operation runs.
struct Look<'c> {
    /// Outermost first: the outer frame, then those of inlined calls.
    frames: Vec<PointerValue<'c>>,
    /// Objects made for unboxed values.
    boxes: Vec<IntValue<'c>>,
    /// Where inlined frames lie.
    room: Option<Room<'c>>,
}

impl<'c> Look<'c> {
    fn innermost(&self) -> PointerValue<'c> {
        self.frames[self.frames.len() - 1]
    }
}

/// Words on the data stack.
struct Room<'c> {
    base: PointerValue<'c>,
    /// The top as it was: `base`, unless a new chunk was needed.
    top: PointerValue<'c>,
}

impl<'c> Lower<'c, '_> {
    /// Bits to store into a slot; boxes made for it are noted.
    fn slot_bits(&mut self, entry: Entry, boxes: &mut Vec<IntValue<'c>>) -> Lowered<IntValue<'c>> {
        Ok(match entry {
            Entry::Null | Entry::Range(..) => self.i64(1),
            // The builder made objects of all that a look may show.
            Entry::Tuple(_) | Entry::Backwards(..) => return Err(LowerError::Kind),
            Entry::Owned(value) => self.int(value)?,
            Entry::Borrowed(value) | Entry::Lent(value) => {
                let bits = self.int(value)?;
                self.b.build_or(bits, self.i64(1), "")?
            }
            Entry::Unboxed(value) => {
                let boxed = self.boxed(value)?;
                boxes.push(boxed);
                boxed
            }
            Entry::Maybe(flag, value) => {
                let boxed = self.boxed_if(flag, value)?;
                boxes.push(boxed);
                boxed
            }
        })
    }

    /// An object for a value if the flag says so, else the null reference.
    pub(super) fn boxed_if(&mut self, flag: Value, value: Value) -> Lowered<IntValue<'c>> {
        let condition = self.bool(flag)?;
        let (some, done) = (self.new_block(""), self.new_block(""));
        let from = self.current();
        self.b.build_conditional_branch(condition, some, done)?;
        self.b.position_at_end(some);
        let boxed = self.boxed(value)?;
        let end = self.current();
        self.b.build_unconditional_branch(done)?;
        self.b.position_at_end(done);
        let phi = self.b.build_phi(self.context.i64_type(), "")?;
        phi.add_incoming(&[(&self.i64(1), from), (&boxed, end)]);
        Ok(phi.as_basic_value().into_int_value())
    }

    /// Stores the locals that are not references into the outer frame; it has the others.
    pub(super) fn store_locals(
        &mut self,
        state: &FrameState,
        boxes: &mut Vec<IntValue<'c>>,
    ) -> Lowered<()> {
        for (index, entry) in state.locals.iter().enumerate() {
            if matches!(entry, Entry::Owned(_) | Entry::Borrowed(_) | Entry::Null) {
                continue;
            }
            let bits = self.slot_bits(*entry, boxes)?;
            self.store(self.frame, LOCALS + index * 8, bits.into())?;
        }
        Ok(())
    }

    /// Makes the frames true for whoever looks: the outer one's memory, and inlined ones are written behind it on the data stack and linked.
    fn publish(&mut self, state: &FrameState) -> Lowered<Look<'c>> {
        let mut boxes = Vec::new();
        let chain = state.chain();
        let outer = self.frame;
        self.store_locals(chain[0], &mut boxes)?;
        self.publish_stack(outer, chain[0], &mut boxes)?;
        let mut look = Look {
            frames: vec![outer],
            boxes,
            room: None,
        };
        let inlined = &chain[1..];
        if inlined.is_empty() {
            return Ok(look);
        }
        let words = |state: &FrameState| {
            let code = self.graph.contexts[state.context as usize].code;
            self.job.codes[code as usize].frame_words
        };
        let words: Vec<u32> = inlined.iter().map(|state| words(state)).collect();
        let room = self.push_room(words.iter().sum())?;
        let mut frame = room.base;
        for (state, words) in inlined.iter().zip(words) {
            let previous = look.innermost();
            self.write_frame(frame, previous, state, &mut look.boxes)?;
            look.frames.push(frame);
            frame = self.at(frame, words as usize * 8)?;
        }
        look.room = Some(room);
        let remaining = self.recursion_remaining()?;
        let depth = self.i32(inlined.len() as u64);
        let remaining = self.b.build_int_sub(remaining, depth, "")?;
        self.link(look.innermost().into(), remaining)?;
        Ok(look)
    }

    /// Writes the operand stack of a frame, where it is and where its stack ends.
    fn publish_stack(
        &mut self,
        frame: PointerValue<'c>,
        state: &FrameState,
        boxes: &mut Vec<IntValue<'c>>,
    ) -> Lowered<()> {
        for (index, entry) in state.stack.iter().enumerate() {
            let bits = self.slot_bits(*entry, boxes)?;
            self.store(
                frame,
                LOCALS + (state.locals.len() + index) * 8,
                bits.into(),
            )?;
        }
        let code = &self.job.codes[self.graph.contexts[state.context as usize].code as usize];
        let instruction = self.i64(code.start + u64::from(state.offset) * 2);
        self.store(frame, offset_of!(Frame, instr_ptr), instruction.into())?;
        let top = self.at(frame, LOCALS + (state.locals.len() + state.stack.len()) * 8)?;
        self.store(frame, offset_of!(Frame, stackpointer), top.into())
    }

    /// Writes the frame of an inlined call. It borrows function and code, which live as long as the artifact.
    fn write_frame(
        &mut self,
        frame: PointerValue<'c>,
        previous: PointerValue<'c>,
        state: &FrameState,
        boxes: &mut Vec<IntValue<'c>>,
    ) -> Lowered<()> {
        let context = &self.graph.contexts[state.context as usize];
        let code = &self.job.codes[context.code as usize];
        let word = |word: u64| BasicValueEnum::from(self.i64(word));
        const { assert!(ffi::FRAME_OWNED_BY_THREAD == 0) };
        let fields: [(usize, BasicValueEnum<'c>); 8] = [
            (offset_of!(Frame, f_executable), word(code.address | 1)),
            (offset_of!(Frame, previous), previous.into()),
            (offset_of!(Frame, f_funcobj), word(context.function | 1)),
            (offset_of!(Frame, f_globals), word(code.globals)),
            (offset_of!(Frame, f_builtins), word(code.builtins)),
            (offset_of!(Frame, f_locals), word(0)),
            (offset_of!(Frame, frame_obj), word(0)),
            // return_offset, owner (by the thread) and visited are all zero.
            (offset_of!(Frame, return_offset), self.i32(0).into()),
        ];
        for (offset, field) in fields {
            self.store(frame, offset, field)?;
        }
        for (index, entry) in state.locals.iter().enumerate() {
            let bits = self.slot_bits(*entry, boxes)?;
            self.store(frame, LOCALS + index * 8, bits.into())?;
        }
        self.publish_stack(frame, state, boxes)
    }

    /// Room on the data stack.
    fn push_room(&mut self, words: u32) -> Lowered<Room<'c>> {
        let pointer = self.context.ptr_type(Default::default());
        let top = self
            .load(
                pointer,
                self.tstate,
                offset_of!(PyThreadState, datastack_top),
            )?
            .into_pointer_value();
        let end = self.at(top, words as usize * 8)?;
        let limit = self.load64(self.tstate, offset_of!(PyThreadState, datastack_limit))?;
        let end_bits = self.b.build_ptr_to_int(end, self.context.i64_type(), "")?;
        let full = self.compare(IntPredicate::UGE, end_bits, limit)?;
        let (chunk, fast, ready) = (
            self.new_block("push_chunk"),
            self.new_block(""),
            self.new_block(""),
        );
        let branch = self.b.build_conditional_branch(full, chunk, fast)?;
        self.weights(branch, 1, 4000)?;
        self.b.position_at_end(fast);
        self.store(
            self.tstate,
            offset_of!(PyThreadState, datastack_top),
            end.into(),
        )?;
        self.b.build_unconditional_branch(ready)?;
        self.b.position_at_end(chunk);
        let pushed = self.call64(
            self.job.process.push_chunk,
            &[self.tstate.into(), self.i64(u64::from(words)).into()],
        )?;
        let pushed = self.b.build_int_to_ptr(pushed, pointer, "")?;
        self.b.build_unconditional_branch(ready)?;
        self.b.position_at_end(ready);
        let phi = self.b.build_phi(pointer, "base")?;
        phi.add_incoming(&[(&top, fast), (&pushed, chunk)]);
        Ok(Room {
            base: phi.as_basic_value().into_pointer_value(),
            top,
        })
    }

    /// The look is over, and nobody kept a frame: inlined frames are gone, boxes released.
    fn forget(&mut self, look: Look<'c>) -> Lowered<()> {
        if let Some(room) = &look.room {
            let depth = self.i32(look.frames.len() as u64 - 1);
            let remaining = self.recursion_remaining()?;
            let remaining = self.b.build_int_add(remaining, depth, "")?;
            self.link(self.frame.into(), remaining)?;
            let (pop, keep, done) = (
                self.new_block("pop_chunk"),
                self.new_block(""),
                self.new_block(""),
            );
            let bits = self.context.i64_type();
            let base = self.b.build_ptr_to_int(room.base, bits, "")?;
            let top = self.b.build_ptr_to_int(room.top, bits, "")?;
            let same = self.compare(IntPredicate::EQ, base, top)?;
            let branch = self.b.build_conditional_branch(same, keep, pop)?;
            self.weights(branch, 4000, 1)?;
            self.b.position_at_end(keep);
            self.store(
                self.tstate,
                offset_of!(PyThreadState, datastack_top),
                room.top.into(),
            )?;
            self.b.build_unconditional_branch(done)?;
            self.b.position_at_end(pop);
            self.call(
                self.job.process.pop_frame,
                None,
                &[self.tstate.into(), room.base.into()],
            )?;
            self.b.build_unconditional_branch(done)?;
            self.b.position_at_end(done);
        }
        for bits in look.boxes {
            self.release_bits(bits, None)?;
        }
        Ok(())
    }

    /// Whether somebody took a frame object of the linked frames, or something is pending.
    fn observed(&self, look: &Look<'c>) -> Lowered<IntValue<'c>> {
        let mut objects = self.i64(0);
        for frame in &look.frames {
            let object = self.load64(*frame, offset_of!(Frame, frame_obj))?;
            objects = self.b.build_or(objects, object, "")?;
        }
        let observed = self.compare(IntPredicate::NE, objects, self.i64(0))?;
        Ok(self.b.build_or(observed, self.pending()?, "")?)
    }

    /// Leaves if somebody took a frame object or something is pending: everything is in the frames' memory, the innermost operand stack `depth` deep.
    fn leave_if_observed(
        &mut self,
        look: &Look<'c>,
        state: &FrameState,
        offset: u32,
        depth: usize,
    ) -> Lowered<()> {
        let observed = self.observed(look)?;
        let cold = self.new_block("observed");
        self.unlikely(observed, cold)?;
        let here = self.current();
        self.b.position_at_end(cold);
        let (plan, handed) =
            self.plan_in_place(Reason::FrameObserved, Action::Resume, state, offset, depth);
        self.leave(plan, &handed)?;
        self.b.position_at_end(here);
        Ok(())
    }

    /// Leaves with the exception that is set.
    fn leave_raised(&mut self, failed: IntValue<'c>, state: &FrameState) -> Lowered<()> {
        let cold = self.new_block("raised");
        self.unlikely(failed, cold)?;
        let here = self.current();
        self.b.position_at_end(cold);
        let (plan, handed) = self.plan_in_place(
            Reason::Raised,
            Action::Raise,
            state,
            state.offset,
            state.stack.len(),
        );
        self.leave(plan, &handed)?;
        self.b.position_at_end(here);
        Ok(())
    }

    /// `Helper`.
    pub(super) fn helper(
        &mut self,
        value: Value,
        site: u64,
        helper: u64,
        inputs: u32,
    ) -> Lowered<()> {
        let state = self.state_of(value)?;
        // Inputs are consumed by the helper, boxes among them included: there are none, the builder boxed them.
        let look = self.publish(&state)?;
        let frame = look.innermost();
        let result = self.call64(
            helper,
            &[self.i64(site).into(), frame.into(), self.tstate.into()],
        )?;
        let failed = self.compare(IntPredicate::SLT, result, self.i64(0))?;
        let below = state.stack.len() - inputs as usize;
        self.leave_raised(failed, &state)?;
        let code = &self.job.codes[self.graph.contexts[state.context as usize].code as usize];
        let instruction = hotstamp_layout::bytecode::Decoder::starting_at(
            &code.bytecode,
            hotstamp_layout::bytecode::BytecodeOffset(state.offset),
        )
        .next();
        let Some(Ok(instruction)) = instruction else {
            return Err(LowerError::Kind);
        };
        // The opcode's own argument, with its prefixes, is not needed for what follows but of calls.
        if instruction.opcode == Opcode::FOR_ITER {
            let (exhausted, more, done) = (
                self.new_block("exhausted"),
                self.new_block("more"),
                self.new_block(""),
            );
            let ended = self.compare(IntPredicate::NE, result, self.i64(0))?;
            self.b.build_conditional_branch(ended, exhausted, more)?;
            self.b.position_at_end(exhausted);
            let target = self.for_iter_target(&state)?;
            self.leave_if_observed(&look, &state, target, state.stack.len())?;
            self.b.build_unconditional_branch(done)?;
            self.b.position_at_end(more);
            self.leave_if_observed(&look, &state, instruction.next.0, state.stack.len() + 1)?;
            self.b.build_unconditional_branch(done)?;
            self.b.position_at_end(done);
        } else {
            let outputs = self.outputs_of(value).len();
            self.leave_if_observed(&look, &state, instruction.next.0, below + outputs)?;
        }
        self.values.insert(value, result.into());
        // Outputs first: an inlined frame's memory is about to be given back.
        for output in self.outputs_of(value) {
            let Op::HelperOutput(place) = *self.op(output) else {
                return Err(LowerError::Kind);
            };
            let offset = LOCALS + (state.locals.len() + place as usize) * 8;
            let bits = self.load64(frame, offset)?;
            self.values.insert(output, bits.into());
        }
        self.forget(look)
    }

    /// Where FOR_ITER goes when exhausted.
    fn for_iter_target(&self, state: &FrameState) -> Lowered<u32> {
        let code = &self.job.codes[self.graph.contexts[state.context as usize].code as usize];
        // From the start of the instruction: its prefixes belong to the distance.
        for instruction in hotstamp_layout::bytecode::Decoder::new(&code.bytecode) {
            let Ok(instruction) = instruction else { break };
            if instruction.offset.0 == state.offset {
                return instruction
                    .taken_target()
                    .map(|target| target.0)
                    .ok_or(LowerError::Kind);
            }
        }
        Err(LowerError::Kind)
    }

    /// The outputs that follow a helper.
    fn outputs_of(&self, value: Value) -> Vec<Value> {
        let insts = &self.graph.block(self.block).insts;
        let place = insts.iter().position(|inst| *inst == value);
        insts[place.map_or(insts.len(), |place| place + 1)..]
            .iter()
            .copied()
            .take_while(|inst| matches!(self.op(*inst), Op::HelperOutput(_)))
            .collect()
    }

    /// `CallPython`: pushes the callee's frame, moves the arguments into it and calls.
    pub(super) fn call_python(&mut self, value: Value) -> Lowered<()> {
        let Op::CallPython {
            data,
            frame_words,
            nlocalsplus,
            code,
            globals,
            builtins,
            start,
        } = *self.op(value)
        else {
            return Err(LowerError::Kind);
        };
        let state = self.state_of(value)?;
        let args = self.graph.inst(value).args.clone();
        let look = self.publish(&state)?;
        let pointer = self.context.ptr_type(Default::default());
        let callee = self.push_room(frame_words)?.base;

        let locals_end = self.at(callee, LOCALS + nlocalsplus as usize * 8)?;
        let fields: [(usize, BasicValueEnum<'c>); 10] = [
            // The artifact keeps the code.
            (offset_of!(Frame, f_executable), self.i64(code | 1).into()),
            (offset_of!(Frame, previous), look.innermost().into()),
            (offset_of!(Frame, f_funcobj), self.value(args[0])?),
            (offset_of!(Frame, f_globals), self.i64(globals).into()),
            (offset_of!(Frame, f_builtins), self.i64(builtins).into()),
            (offset_of!(Frame, f_locals), self.i64(0).into()),
            (offset_of!(Frame, frame_obj), self.i64(0).into()),
            (offset_of!(Frame, instr_ptr), self.i64(start).into()),
            (offset_of!(Frame, stackpointer), locals_end.into()),
            // return_offset, owner (by the thread) and visited are all zero.
            (offset_of!(Frame, return_offset), self.i32(0).into()),
        ];
        const { assert!(ffi::FRAME_OWNED_BY_THREAD == 0) };
        for (offset, field) in fields {
            self.store(callee, offset, field)?;
        }
        for index in 0..nlocalsplus as usize {
            let word = match args.get(index + 1) {
                Some(arg) => self.value(*arg)?,
                None => self.i64(1).into(),
            };
            self.store(callee, LOCALS + index * 8, word)?;
        }
        let record = self.address(data);
        let target = self
            .load(
                pointer,
                record,
                offset_of!(hotstamp_runtime::code_data::CodeData, c_entry),
            )?
            .into_pointer_value();
        let result = self.call_pointer(
            target,
            Some(self.context.i64_type().into()),
            &[callee.into(), record.into(), self.tstate.into()],
        )?;
        let Some(BasicValueEnum::IntValue(result)) = result else {
            return Err(LowerError::Kind);
        };
        let failed = self.compare(IntPredicate::EQ, result, self.i64(0))?;
        self.leave_raised(failed, &state)?;
        let next = self.next_offset(&state)?;
        // Should the frame leave, the result lies on the operand stack.
        let observed = self.observed(&look)?;
        let cold = self.new_block("observed");
        self.unlikely(observed, cold)?;
        let here = self.current();
        self.b.position_at_end(cold);
        self.store(
            look.innermost(),
            LOCALS + (state.locals.len() + state.stack.len()) * 8,
            result.into(),
        )?;
        let (plan, handed) = self.plan_in_place(
            Reason::FrameObserved,
            Action::Resume,
            &state,
            next,
            state.stack.len() + 1,
        );
        self.leave(plan, &handed)?;
        self.b.position_at_end(here);
        self.values.insert(value, result.into());
        self.forget(look)
    }

    /// The instruction behind the one of a state.
    fn next_offset(&self, state: &FrameState) -> Lowered<u32> {
        let code = &self.job.codes[self.graph.contexts[state.context as usize].code as usize];
        match hotstamp_layout::bytecode::Decoder::starting_at(
            &code.bytecode,
            hotstamp_layout::bytecode::BytecodeOffset(state.offset),
        )
        .next()
        {
            Some(Ok(instruction)) => Ok(instruction.next.0),
            _ => Err(LowerError::Kind),
        }
    }

    /// `Poll`.
    pub(super) fn poll(&mut self, value: Value) -> Lowered<()> {
        let state = self.state_of(value)?;
        let pending = self.pending()?;
        let exit = self.exit_block(Reason::Events, &state)?;
        self.unlikely(pending, exit)
    }
}
