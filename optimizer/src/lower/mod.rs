//! From HIR to LLVM IR. Each HIR block becomes LLVM blocks in the same order; guards branch to cold blocks that hand the live values to the runtime.
//!
//! Everything foreign is a 64-bit constant: the code refers to nothing outside of itself by name.

mod arrays;
mod frames;
mod guards;
mod instructions;
mod lists;
mod look;
mod refs;

use std::collections::HashMap;
use std::rc::Rc;

use hotstamp_job::{ExitPlan, Job};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::{Builder, BuilderError};
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::{BasicMetadataTypeEnum, BasicType, BasicTypeEnum};
use inkwell::values::{
    BasicMetadataValueEnum, BasicValue, BasicValueEnum, FloatValue, FunctionValue,
    InstructionValue, IntValue, PhiValue, PointerValue,
};
use inkwell::{FloatPredicate, IntPredicate};

use crate::hir::verify::Dominators;
use crate::hir::{BlockId, End, FrameState, Graph, Op, Reason, Type, Value};
use crate::llvm::ENTRY_NAME;

/// Why a graph could not be lowered: a defect.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// LLVM's builder refused.
    #[error("LLVM's builder: {0}")]
    Builder(#[from] BuilderError),
    /// A value is used that no instruction gave.
    #[error("{0} has no value")]
    Missing(Value),
    /// LLVM gave another kind of value than was asked for.
    #[error("a value of an unexpected kind")]
    Kind,
}

type Lowered<T> = Result<T, LowerError>;

/// See the module.
pub(crate) struct Lower<'c, 'g> {
    context: &'c Context,
    module: &'g Module<'c>,
    b: Builder<'c>,
    graph: &'g Graph,
    job: &'g Job,
    function: FunctionValue<'c>,
    frame: PointerValue<'c>,
    data: PointerValue<'c>,
    tstate: PointerValue<'c>,
    /// Room for the values of an exit.
    buffer: PointerValue<'c>,
    values: HashMap<Value, BasicValueEnum<'c>>,
    /// Untagged addresses of references, where known.
    pointers: HashMap<Value, PointerValue<'c>>,
    blocks: HashMap<BlockId, BasicBlock<'c>>,
    /// The LLVM block that ends a HIR block.
    ends: HashMap<BlockId, BasicBlock<'c>>,
    phis: Vec<(Value, BlockId, PhiValue<'c>)>,
    plans: Vec<ExitPlan>,
    max_values: usize,
    /// Cold blocks of guards that leave alike.
    exits: HashMap<(*const FrameState, Reason), BasicBlock<'c>>,
    /// Where all exits end, with the number of the plan.
    leave_block: Option<(BasicBlock<'c>, PhiValue<'c>)>,
    /// Where the values of a state are stored, with the number of the plan.
    store_blocks: HashMap<*const FrameState, (BasicBlock<'c>, PhiValue<'c>)>,
    /// Keeps the states alive whose addresses are keys above.
    kept: Vec<Rc<FrameState>>,
    block: BlockId,
}

/// Lowers a graph into a module. Gives the plans of its exits and the words that their values take.
///
/// # Errors
/// A defect of this crate.
pub fn lower(
    context: &Context,
    module: &Module<'_>,
    graph: &Graph,
    job: &Job,
) -> Result<(Vec<ExitPlan>, usize), LowerError> {
    // SAFETY: not memory: the two lifetimes are of the same context, which inkwell cannot tell.
    let module: &Module<'_> = unsafe { std::mem::transmute::<&Module<'_>, &Module<'_>>(module) };
    Lower::new(context, module, graph, job)?.run()
}

impl<'c, 'g> Lower<'c, 'g> {
    fn new(
        context: &'c Context,
        module: &'g Module<'c>,
        graph: &'g Graph,
        job: &'g Job,
    ) -> Lowered<Self> {
        let pointer = context.ptr_type(Default::default());
        let ty = context
            .i64_type()
            .fn_type(&[pointer.into(), pointer.into(), pointer.into()], false);
        let function = module.add_function(ENTRY_NAME, ty, None);
        let b = context.create_builder();
        let entry = context.append_basic_block(function, "entry");
        b.position_at_end(entry);
        let param = |index: u32| {
            function
                .get_nth_param(index)
                .map(|param| param.into_pointer_value())
                .ok_or(LowerError::Kind)
        };
        let (frame, data, tstate) = (param(0)?, param(1)?, param(2)?);
        let buffer = b.build_alloca(context.i64_type().array_type(1), "values")?;
        Ok(Lower {
            context,
            module,
            b,
            graph,
            job,
            function,
            frame,
            data,
            tstate,
            buffer,
            values: HashMap::new(),
            pointers: HashMap::new(),
            blocks: HashMap::new(),
            ends: HashMap::new(),
            phis: Vec::new(),
            plans: Vec::new(),
            max_values: 1,
            exits: HashMap::new(),
            leave_block: None,
            store_blocks: HashMap::new(),
            kept: Vec::new(),
            block: BlockId(0),
        })
    }

    fn run(mut self) -> Lowered<(Vec<ExitPlan>, usize)> {
        let order = Dominators::new(self.graph).order;
        for &id in &order {
            let block = self
                .context
                .append_basic_block(self.function, &id.to_string());
            self.blocks.insert(id, block);
        }
        let entry = self.current();
        self.prologue(self.blocks[&BlockId(0)])?;
        for &id in &order {
            self.block = id;
            self.b.position_at_end(self.blocks[&id]);
            for &value in &self.graph.block(id).insts {
                self.instruction(value)?;
            }
            self.finish_block(id)?;
        }
        for (value, block, phi) in std::mem::take(&mut self.phis) {
            let inst = self.graph.inst(value);
            for (&arg, pred) in inst.args.iter().zip(&self.graph.block(block).preds) {
                let Some(&end) = self.ends.get(pred) else {
                    continue;
                };
                let incoming = self.value(arg)?;
                phi.add_incoming(&[(&incoming, end)]);
            }
        }
        // The buffer is as large as the largest exit wants it.
        if let Some(first) = entry.get_first_instruction() {
            self.b.position_before(&first);
            let size = self.context.i64_type().array_type(self.max_values as u32);
            let buffer = self.b.build_alloca(size, "values")?;
            first.replace_all_uses_with(&buffer.as_instruction().ok_or(LowerError::Kind)?);
            first.erase_from_basic_block();
        }
        Ok((self.plans, self.max_values))
    }

    fn finish_block(&mut self, id: BlockId) -> Lowered<()> {
        let graph = self.graph;
        let block = graph.block(id);
        match &block.end {
            End::None => {
                self.b.build_unreachable()?;
            }
            End::Jump(to) => {
                self.ends.insert(id, self.current());
                self.b.build_unconditional_branch(self.blocks[to])?;
            }
            End::Branch(value, yes, no, odds) => {
                self.ends.insert(id, self.current());
                let condition = self.bool(*value)?;
                let branch = self.b.build_conditional_branch(
                    condition,
                    self.blocks[yes],
                    self.blocks[no],
                )?;
                if *odds != 128 {
                    self.weights(branch, u64::from(*odds), 256 - u64::from(*odds))?;
                }
            }
            End::Return(value, locals) => self.epilogue(*value, locals, block.state.as_ref())?,
            End::Exit(reason) => {
                let state = block.state.clone().ok_or(LowerError::Kind)?;
                let exit = self.exit_block(*reason, &state)?;
                self.b.build_unconditional_branch(exit)?;
            }
        }
        Ok(())
    }

    // ---- what everybody uses ----

    fn current(&self) -> BasicBlock<'c> {
        self.b
            .get_insert_block()
            .expect("the builder is in a block")
    }

    fn new_block(&self, name: &str) -> BasicBlock<'c> {
        self.context.append_basic_block(self.function, name)
    }

    fn value(&self, value: Value) -> Lowered<BasicValueEnum<'c>> {
        self.values
            .get(&value)
            .copied()
            .ok_or(LowerError::Missing(value))
    }

    fn int(&self, value: Value) -> Lowered<IntValue<'c>> {
        match self.value(value)? {
            BasicValueEnum::IntValue(int) => Ok(int),
            _ => Err(LowerError::Kind),
        }
    }

    fn bool(&self, value: Value) -> Lowered<IntValue<'c>> {
        self.int(value)
    }

    fn float(&self, value: Value) -> Lowered<FloatValue<'c>> {
        match self.value(value)? {
            BasicValueEnum::FloatValue(float) => Ok(float),
            _ => Err(LowerError::Kind),
        }
    }

    fn i64(&self, value: u64) -> IntValue<'c> {
        self.context.i64_type().const_int(value, false)
    }

    fn i32(&self, value: u64) -> IntValue<'c> {
        self.context.i32_type().const_int(value, false)
    }

    /// An address as a pointer.
    fn address(&self, value: u64) -> PointerValue<'c> {
        self.i64(value)
            .const_to_pointer(self.context.ptr_type(Default::default()))
    }

    /// `base + offset` bytes.
    fn at(&self, base: PointerValue<'c>, offset: usize) -> Lowered<PointerValue<'c>> {
        if offset == 0 {
            return Ok(base);
        }
        // SAFETY: an address computation; nothing is accessed here.
        Ok(unsafe {
            self.b
                .build_gep(self.context.i8_type(), base, &[self.i64(offset as u64)], "")?
        })
    }

    /// `base + index * 8`.
    fn indexed(&self, base: PointerValue<'c>, index: IntValue<'c>) -> Lowered<PointerValue<'c>> {
        // SAFETY: an address computation; nothing is accessed here.
        Ok(unsafe {
            self.b
                .build_gep(self.context.i64_type(), base, &[index], "")?
        })
    }

    fn load(
        &self,
        ty: impl BasicType<'c>,
        base: PointerValue<'c>,
        offset: usize,
    ) -> Lowered<BasicValueEnum<'c>> {
        Ok(self.b.build_load(ty, self.at(base, offset)?, "")?)
    }

    fn load64(&self, base: PointerValue<'c>, offset: usize) -> Lowered<IntValue<'c>> {
        Ok(self
            .load(self.context.i64_type(), base, offset)?
            .into_int_value())
    }

    fn load32(&self, base: PointerValue<'c>, offset: usize) -> Lowered<IntValue<'c>> {
        Ok(self
            .load(self.context.i32_type(), base, offset)?
            .into_int_value())
    }

    fn load8(&self, base: PointerValue<'c>, offset: usize) -> Lowered<IntValue<'c>> {
        Ok(self
            .load(self.context.i8_type(), base, offset)?
            .into_int_value())
    }

    /// Loads the address of an object, which is aligned.
    fn load_pointer(&self, base: PointerValue<'c>, offset: usize) -> Lowered<PointerValue<'c>> {
        let loaded = self.load(self.context.ptr_type(Default::default()), base, offset)?;
        if let Some(instruction) = loaded.as_instruction_value() {
            let kind = self.context.get_kind_id("align");
            let node = self.context.metadata_node(&[self.i64(8).into()]);
            let _ = instruction.set_metadata(node, kind);
        }
        Ok(loaded.into_pointer_value())
    }

    fn store(
        &self,
        base: PointerValue<'c>,
        offset: usize,
        value: BasicValueEnum<'c>,
    ) -> Lowered<()> {
        self.b.build_store(self.at(base, offset)?, value)?;
        Ok(())
    }

    fn compare(
        &self,
        predicate: IntPredicate,
        a: IntValue<'c>,
        b: IntValue<'c>,
    ) -> Lowered<IntValue<'c>> {
        Ok(self.b.build_int_compare(predicate, a, b, "")?)
    }

    fn compare_float(
        &self,
        predicate: FloatPredicate,
        a: FloatValue<'c>,
        b: FloatValue<'c>,
    ) -> Lowered<IntValue<'c>> {
        Ok(self.b.build_float_compare(predicate, a, b, "")?)
    }

    fn is_null(&self, pointer: PointerValue<'c>) -> Lowered<IntValue<'c>> {
        Ok(self.b.build_is_null(pointer, "")?)
    }

    /// Calls a C function at an address.
    fn call(
        &self,
        address: u64,
        result: Option<BasicTypeEnum<'c>>,
        args: &[BasicMetadataValueEnum<'c>],
    ) -> Lowered<Option<BasicValueEnum<'c>>> {
        self.call_pointer(self.address(address), result, args)
    }

    fn call_pointer(
        &self,
        target: PointerValue<'c>,
        result: Option<BasicTypeEnum<'c>>,
        args: &[BasicMetadataValueEnum<'c>],
    ) -> Lowered<Option<BasicValueEnum<'c>>> {
        let types: Vec<BasicMetadataTypeEnum<'c>> = args
            .iter()
            .map(|arg| match arg {
                BasicMetadataValueEnum::IntValue(value) => value.get_type().into(),
                BasicMetadataValueEnum::FloatValue(value) => value.get_type().into(),
                BasicMetadataValueEnum::PointerValue(value) => value.get_type().into(),
                _ => self.context.i64_type().into(),
            })
            .collect();
        let ty = match result {
            Some(result) => result.fn_type(&types, false),
            None => self.context.void_type().fn_type(&types, false),
        };
        let call = self.b.build_indirect_call(ty, target, args, "")?;
        Ok(call.try_as_basic_value().basic())
    }

    /// Calls a C function that gives 64 bits.
    fn call64(&self, address: u64, args: &[BasicMetadataValueEnum<'c>]) -> Lowered<IntValue<'c>> {
        match self.call(address, Some(self.context.i64_type().into()), args)? {
            Some(BasicValueEnum::IntValue(value)) => Ok(value),
            _ => Err(LowerError::Kind),
        }
    }

    /// How likely the ways of a branch are.
    fn weights(&self, branch: InstructionValue<'c>, yes: u64, no: u64) -> Lowered<()> {
        let kind = self.context.get_kind_id("prof");
        let name = self.context.metadata_string("branch_weights");
        let node =
            self.context
                .metadata_node(&[name.into(), self.i32(yes).into(), self.i32(no).into()]);
        branch
            .set_metadata(node, kind)
            .map_err(|_| LowerError::Kind)
    }

    /// Branches to `cold` where the condition holds, which is rare; goes on otherwise.
    fn unlikely(&self, condition: IntValue<'c>, cold: BasicBlock<'c>) -> Lowered<()> {
        let next = self.new_block("");
        let branch = self.b.build_conditional_branch(condition, cold, next)?;
        self.weights(branch, 1, 4000)?;
        self.b.position_at_end(next);
        Ok(())
    }

    /// Branches to `cold` unless the condition holds.
    fn expect(&self, condition: IntValue<'c>, cold: BasicBlock<'c>) -> Lowered<()> {
        let next = self.new_block("");
        let branch = self.b.build_conditional_branch(condition, next, cold)?;
        self.weights(branch, 4000, 1)?;
        self.b.position_at_end(next);
        Ok(())
    }

    fn llvm_type(&self, ty: Type) -> BasicTypeEnum<'c> {
        match ty {
            Type::Float => self.context.f64_type().into(),
            Type::Bool => self.context.bool_type().into(),
            _ => self.context.i64_type().into(),
        }
    }

    fn op(&self, value: Value) -> &'g Op {
        &self.graph.inst(value).op
    }
}
