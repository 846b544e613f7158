//! HIR as text, for dumps and tests.

use std::fmt::{self, Display, Formatter};

use super::{BlockId, End, Entry, FrameState, Graph, Inst, Type, Value};

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl Display for BlockId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

impl Display for Entry {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Null => write!(f, "-"),
            Entry::Owned(v) => write!(f, "{v}"),
            Entry::Borrowed(v) => write!(f, "&{v}"),
            Entry::Lent(v) => write!(f, "+{v}"),
            Entry::Unboxed(v) => write!(f, "#{v}"),
            Entry::Maybe(flag, v) => write!(f, "#{v}?{flag}"),
            Entry::Tuple(tuple) => write!(f, "tuple{tuple}"),
            Entry::Backwards(list, last) => write!(f, "{list}[{last}::-1]"),
            Entry::Range(next, left, step) => write!(f, "range({next}, {left} left, {step})"),
        }
    }
}

impl Display for FrameState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent} > ")?;
        }
        write!(f, "{}@{} [", self.context, self.offset)?;
        for (index, entry) in self.locals.iter().enumerate() {
            write!(f, "{}{entry}", if index == 0 { "" } else { " " })?;
        }
        write!(f, " |")?;
        for entry in &self.stack {
            write!(f, " {entry}")?;
        }
        write!(f, "]")
    }
}

fn list(f: &mut Formatter<'_>, values: &[Value]) -> fmt::Result {
    for (index, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if index == 0 { " " } else { ", " })?;
    }
    Ok(())
}

impl Display for Inst {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.op)?;
        list(f, &self.args)?;
        if let Some(state) = &self.state {
            write!(f, "  ; {state}")?;
        }
        Ok(())
    }
}

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, tuple) in self.tuples.iter().enumerate() {
            write!(f, "tuple{index}: of tuple{} (", tuple.origin)?;
            for (index, item) in tuple.items.iter().enumerate() {
                write!(f, "{}{item}", if index == 0 { "" } else { " " })?;
            }
            writeln!(f, ")")?;
        }
        for (index, block) in self.blocks.iter().enumerate() {
            if block.end == End::None && block.insts.is_empty() {
                continue;
            }
            write!(f, "b{index}:")?;
            if !block.preds.is_empty() {
                write!(f, "  ; from")?;
                for pred in &block.preds {
                    write!(f, " {pred}")?;
                }
            }
            if block.cold {
                write!(f, " cold")?;
            }
            writeln!(f)?;
            for &value in &block.insts {
                let inst = self.inst(value);
                match inst.ty {
                    Type::Void => writeln!(f, "  {inst}")?,
                    ty => writeln!(f, "  {value}: {ty:?} = {inst}")?,
                }
            }
            match &block.end {
                End::None => writeln!(f, "  (unfinished)")?,
                End::Jump(to) => writeln!(f, "  jump {to}")?,
                End::Branch(value, yes, no, odds) => {
                    writeln!(f, "  branch {value} {yes} {no} ({odds}/256)")?
                }
                End::Return(value, locals) => {
                    write!(f, "  return {value} releasing")?;
                    list(f, locals)?;
                    writeln!(f)?;
                }
                End::Exit(reason) => {
                    write!(f, "  exit {reason:?}")?;
                    if let Some(state) = &block.state {
                        write!(f, "  ; {state}")?;
                    }
                    writeln!(f)?;
                }
            }
        }
        Ok(())
    }
}
