//! Attributes and globals.

use hotstamp_runtime::caches::{attributes, globals};
use hotstamp_runtime::site::RegisterHelper;

use crate::compiler::{Cold, Compiler};
use crate::error::CompileError;
use crate::masm::{Cond, MacroAssembler, Reg};
use crate::stubs::NULL_BITS;
use crate::vstack::Entry;

impl<M: MacroAssembler> Compiler<'_, M> {
    /// `LOAD_ATTR`: the low bit of the argument asks for callable and self instead of a value; these the stubs write to the operand stack.
    pub(crate) fn emit_load_attr(&mut self, oparg: u32) -> Result<(), CompileError> {
        self.pop_operands::<1>();
        if oparg & 1 == 0 {
            let helper: RegisterHelper = attributes::load_attr;
            let site = self.plan_site(
                self.stubs.register,
                helper as *const (),
                self.stack.depth(),
                true,
            );
            self.call_site(site);
            self.stack.push(Entry::Acc);
        } else {
            let helper: RegisterHelper = attributes::load_method;
            let site = self.plan_site(
                self.stubs.register_void,
                helper as *const (),
                self.stack.depth(),
                true,
            );
            self.call_site(site);
            self.stack.push(Entry::Memory);
            self.stack.push(Entry::Memory);
        }
        Ok(())
    }

    /// `STORE_ATTR`: value, owner.
    pub(crate) fn emit_store_attr(&mut self) -> Result<(), CompileError> {
        self.pop_operands::<2>();
        let helper: RegisterHelper = attributes::store_attr;
        let site = self.plan_site(
            self.stubs.register_void,
            helper as *const (),
            self.stack.depth(),
            true,
        );
        self.call_site(site);
        Ok(())
    }

    /// `LOAD_GLOBAL`: one load from the cell that a dictionary watcher keeps current; the low bit of the argument pushes a null behind it.
    pub(crate) fn emit_load_global(&mut self, oparg: u32) -> Result<(), CompileError> {
        self.stack.flush(&mut self.m);
        let helper: RegisterHelper = globals::load_global;
        let site = self.plan_site(
            self.stubs.register,
            helper as *const (),
            self.stack.depth(),
            true,
        );
        if oparg & 1 != 0 {
            self.mark_pushes_null();
        }
        self.initialize_word(site, 1, (&raw const globals::UNBOUND) as u64);
        let (from, back) = (self.m.new_label(), self.m.new_label());
        self.m.load(Reg::Acc, self.payload_word(site, 1));
        self.m.load(Reg::Acc, Reg::Acc.at(0));
        self.m.branch_cmp_imm(Cond::Eq, Reg::Acc, 0, from);
        self.emit_incref(Reg::Acc);
        self.m.bind(back);
        self.cold.push(Cold::Call { from, back, site });
        self.stack.push(Entry::Acc);
        if oparg & 1 != 0 {
            self.stack.push(Entry::Const(NULL_BITS as u64));
        }
        Ok(())
    }
}
