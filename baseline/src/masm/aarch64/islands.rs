//! Islands: what `aarch64.rs` puts between instructions so that every branch and every literal stays within its encoding's reach.
//!
//! `tbz` and `tbnz` reach 32 KiB, conditional branches, `cbz`, `cbnz` and literal loads 1 MiB, `b` 128 MiB. A forward branch with a shorter reach
//! than `b` does not name its target but a **landing** for it. If the target is bound in time, the landing is bound with it and costs nothing.
//! Otherwise an island is emitted before the branch loses its reach: a `b` over it, then for each landing a `b` to the target. Literals, and landings for
//! code outside of the function, wait for the same islands, or for the end of the code.
//!
//! An island changes neither registers nor flags, so it may stand between any two instructions.

use std::collections::{HashMap, VecDeque};

use dynasmrt::aarch64::Aarch64Relocation;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};

type Assembler = VecAssembler<Aarch64Relocation>;

/// Bytes that `tbz` and `tbnz` reach in each direction.
const SHORT_REACH: usize = 32 << 10;
/// Bytes that conditional branches, `cbz`, `cbnz` and literal loads reach in each direction.
const LONG_REACH: usize = 1 << 20;
/// More than the bytes that are ever emitted between two calls of `Islands::keep_reach`, with the branch over an island and the padding in it.
const SLACK: usize = 256;

/// Landings of forward branches that share a reach.
struct Landings {
    reach: usize,
    /// By number of the target label: the landing that stands for it.
    by_target: Vec<Option<DynamicLabel>>,
    /// Targets in the order of the first branch to their landing, and where that branch stands. Targets bound since are still in it.
    oldest_first: VecDeque<(usize, DynamicLabel)>,
    /// Landings not bound.
    open: usize,
}

impl Landings {
    fn new(reach: usize) -> Landings {
        Landings {
            reach,
            by_target: Vec::new(),
            oldest_first: VecDeque::new(),
            open: 0,
        }
    }

    /// The landing for `target`, which is not bound, to be branched to by the next instruction.
    fn landing(&mut self, asm: &mut Assembler, target: DynamicLabel) -> DynamicLabel {
        let id = target.get_id();
        if self.by_target.len() <= id {
            self.by_target.resize(id + 1, None);
        }
        *self.by_target[id].get_or_insert_with(|| {
            self.oldest_first.push_back((asm.offset().0, target));
            self.open += 1;
            asm.new_dynamic_label()
        })
    }

    /// `target` is being bound: binds its landing.
    fn bind(&mut self, asm: &mut Assembler, target: DynamicLabel) {
        if let Some(landing) = self
            .by_target
            .get_mut(target.get_id())
            .and_then(Option::take)
        {
            asm.dynamic_label(landing);
            self.open -= 1;
        }
    }

    /// Bytes that `emit` would emit.
    fn size(&self) -> usize {
        4 * self.open
    }

    /// The position from which on the oldest landing could not be reached.
    fn deadline(&mut self) -> usize {
        while let Some((position, target)) = self.oldest_first.front() {
            if self.by_target[target.get_id()].is_some() {
                return position + self.reach;
            }
            self.oldest_first.pop_front();
        }
        usize::MAX
    }

    /// Binds all landings here, each with a branch to its target.
    fn emit(&mut self, asm: &mut Assembler) {
        for (_, target) in std::mem::take(&mut self.oldest_first) {
            if let Some(landing) = self.by_target[target.get_id()].take() {
                dynasm!(asm ; .arch aarch64 ; =>landing ; b =>target);
            }
        }
        self.open = 0;
    }
}

/// Values with a label each, to be emitted in an island once: literals, and addresses of code outside.
#[derive(Default)]
struct Shared<T> {
    labels: HashMap<T, DynamicLabel>,
    in_order: Vec<(T, DynamicLabel)>,
    first_use: Option<usize>,
}

impl<T: Copy + Eq + std::hash::Hash> Shared<T> {
    fn label(&mut self, asm: &mut Assembler, value: T) -> DynamicLabel {
        self.first_use.get_or_insert(asm.offset().0);
        *self.labels.entry(value).or_insert_with(|| {
            let label = asm.new_dynamic_label();
            self.in_order.push((value, label));
            label
        })
    }

    fn deadline(&self) -> usize {
        self.first_use
            .map_or(usize::MAX, |position| position + LONG_REACH)
    }

    fn take(&mut self) -> Vec<(T, DynamicLabel)> {
        self.labels.clear();
        self.first_use = None;
        std::mem::take(&mut self.in_order)
    }
}

/// See the module.
pub(super) struct Islands {
    short: Landings,
    long: Landings,
    outside: Shared<usize>,
    literals: Shared<u64>,
    /// Nothing can be out of reach before this position.
    limit: usize,
}

impl Islands {
    pub(super) fn new() -> Islands {
        Islands {
            short: Landings::new(SHORT_REACH),
            long: Landings::new(LONG_REACH),
            outside: Shared::default(),
            literals: Shared::default(),
            limit: usize::MAX,
        }
    }

    /// To be called before every few instructions.
    #[inline]
    pub(super) fn keep_reach(&mut self, asm: &mut Assembler) {
        if asm.offset().0 >= self.limit {
            self.emit_due(asm);
        }
    }

    /// What the next instruction, a `tbz` or `tbnz`, must name to reach `target`.
    pub(super) fn short(&mut self, asm: &mut Assembler, target: DynamicLabel) -> DynamicLabel {
        Self::within(&mut self.short, asm, target, &mut self.limit)
    }

    /// What the next instruction, a conditional branch, `cbz` or `cbnz`, must name to reach `target`.
    pub(super) fn long(&mut self, asm: &mut Assembler, target: DynamicLabel) -> DynamicLabel {
        Self::within(&mut self.long, asm, target, &mut self.limit)
    }

    fn within(
        landings: &mut Landings,
        asm: &mut Assembler,
        target: DynamicLabel,
        limit: &mut usize,
    ) -> DynamicLabel {
        match asm.labels().resolve_dynamic(target) {
            Ok(bound) if asm.offset().0 - bound.0 <= landings.reach - SLACK => target,
            Ok(_) => {
                let (landing, over) = (asm.new_dynamic_label(), asm.new_dynamic_label());
                dynasm!(asm ; .arch aarch64 ; b =>over ; =>landing ; b =>target ; =>over);
                landing
            }
            Err(_) => {
                // Looking again at the next instruction sets the right limit.
                *limit = 0;
                landings.landing(asm, target)
            }
        }
    }

    /// What the next instruction, a conditional branch, `cbz` or `cbnz`, must name to reach the code at `address`, which `b` reaches.
    pub(super) fn outside(&mut self, asm: &mut Assembler, address: usize) -> DynamicLabel {
        self.limit = 0;
        self.outside.label(asm, address)
    }

    /// What the next instruction, a literal load, must name to load `value`.
    pub(super) fn literal(&mut self, asm: &mut Assembler, value: u64) -> DynamicLabel {
        self.limit = 0;
        self.literals.label(asm, value)
    }

    /// `target` is being bound.
    pub(super) fn bind(&mut self, asm: &mut Assembler, target: DynamicLabel) {
        self.short.bind(asm, target);
        self.long.bind(asm, target);
    }

    /// At the end of the code, which does not run on into what is emitted here.
    pub(super) fn finish(&mut self, asm: &mut Assembler) {
        // Landings that are open here have a target that was never bound: the assembler reports it.
        self.short.emit(asm);
        self.emit_long(asm);
    }

    /// Positions from which on the short landings, or all, have to be emitted.
    fn limits(&mut self) -> (usize, usize) {
        let long_size =
            self.long.size() + 4 * self.outside.in_order.len() + 8 * self.literals.in_order.len();
        // The island has the oldest landing first, and landings are no farther apart than the branches to them: its size does not matter.
        let short = self.short.deadline().saturating_sub(SLACK);
        let long = self
            .long
            .deadline()
            .min(self.outside.deadline())
            .min(self.literals.deadline());
        // What is emitted for the short landings pushes the others away.
        (
            short,
            long.saturating_sub(long_size + self.short.size() + SLACK),
        )
    }

    #[inline(never)]
    fn emit_due(&mut self, asm: &mut Assembler) {
        let position = asm.offset().0;
        let (short, long) = self.limits();
        if position >= short.min(long) {
            let over = asm.new_dynamic_label();
            dynasm!(asm ; .arch aarch64 ; b =>over);
            self.short.emit(asm);
            if position >= long {
                self.emit_long(asm);
            }
            dynasm!(asm ; .arch aarch64 ; =>over);
        }
        let (short, long) = self.limits();
        self.limit = short.min(long);
    }

    fn emit_long(&mut self, asm: &mut Assembler) {
        self.long.emit(asm);
        for (address, label) in self.outside.take() {
            dynasm!(asm ; .arch aarch64 ; =>label ; b extern address);
        }
        let literals = self.literals.take();
        if !literals.is_empty() && !asm.offset().0.is_multiple_of(8) {
            dynasm!(asm ; .arch aarch64 ; brk 0);
        }
        for (value, label) in literals {
            dynasm!(asm ; .arch aarch64 ; =>label ; .u64 value);
        }
    }
}
