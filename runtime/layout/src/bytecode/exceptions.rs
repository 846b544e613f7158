//! The exception table: which handler covers which instructions.

use super::{BytecodeOffset, DecodeError};

/// One range of instructions and its handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExceptionEntry {
    /// The first covered code unit.
    pub start: BytecodeOffset,
    /// The first code unit that is not covered any more.
    pub end: BytecodeOffset,
    /// The handler.
    pub target: BytecodeOffset,
    /// The stack is cut down to this depth first.
    pub depth: u32,
    /// Then the offset of the raising instruction is pushed, as an integer; then, always, the exception.
    pub lasti: bool,
}

impl ExceptionEntry {
    /// The depth of the stack on entry to the handler.
    #[inline]
    pub fn handler_depth(&self) -> u32 {
        self.depth + u32::from(self.lasti) + 1
    }
}

/// Iterates over the entries of an exception table (`co_exceptiontable`), which stand in order. It ends after the first error.
#[derive(Clone, Debug)]
pub struct ExceptionEntries<'a> {
    table: &'a [u8],
    rest: &'a [u8],
    end: u32,
}

impl<'a> ExceptionEntries<'a> {
    /// Reads from the start.
    pub fn new(table: &'a [u8]) -> Self {
        Self {
            table,
            rest: table,
            end: 0,
        }
    }

    /// The entry that covers an instruction, given the offset of its opcode, without keeping the others. A malformed table covers nothing.
    pub fn covering(self, offset: BytecodeOffset) -> Option<ExceptionEntry> {
        self.map_while(Result::ok)
            .take_while(|entry| entry.start <= offset)
            .find(|entry| offset < entry.end)
    }

    fn entry(&mut self) -> Option<ExceptionEntry> {
        let mut number = || read_varint(&mut self.rest);
        let (start, size, target, depth_and_lasti) = (number()?, number()?, number()?, number()?);
        let end = start.checked_add(size)?;
        if self.end > start {
            return None;
        }
        self.end = end;
        Some(ExceptionEntry {
            start: BytecodeOffset(start),
            end: BytecodeOffset(end),
            target: BytecodeOffset(target),
            depth: depth_and_lasti >> 1,
            lasti: depth_and_lasti & 1 != 0,
        })
    }
}

impl Iterator for ExceptionEntries<'_> {
    type Item = Result<ExceptionEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.table.len() - self.rest.len();
        let entry = self.entry();
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry.ok_or(DecodeError::ExceptionTable(at)))
    }
}

/// A code object's parsed exception table: sorted, without overlap, as the interpreter's own search demands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExceptionTable(Vec<ExceptionEntry>);

impl ExceptionTable {
    /// Parses `co_exceptiontable`.
    pub fn parse(table: &[u8]) -> Result<Self, DecodeError> {
        ExceptionEntries::new(table)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The entry that covers an instruction, given the offset of its opcode.
    pub fn lookup(&self, offset: BytecodeOffset) -> Option<&ExceptionEntry> {
        let after = self.0.partition_point(|entry| entry.start <= offset);
        self.0[..after].last().filter(|entry| offset < entry.end)
    }

    /// The entry that covers an instruction, and the offset from which on the answer may be another.
    pub fn lookup_span(&self, offset: BytecodeOffset) -> (Option<&ExceptionEntry>, BytecodeOffset) {
        let after = self.0.partition_point(|entry| entry.start <= offset);
        match self.0[..after].last() {
            Some(entry) if offset < entry.end => (Some(entry), entry.end),
            _ => (
                None,
                self.0
                    .get(after)
                    .map_or(BytecodeOffset(u32::MAX), |next| next.start),
            ),
        }
    }

    /// All entries in order.
    pub fn entries(&self) -> &[ExceptionEntry] {
        &self.0
    }
}

/// Six bits a byte, the most significant first; bit 6 says that more follow (bit 7 marks an entry's first byte).
fn read_varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value: u32 = 0;
    loop {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        if value >> 25 != 0 {
            return None;
        }
        value = value << 6 | u32::from(byte & 63);
        if byte & 64 == 0 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(start: u32, end: u32, target: u32, depth: u32, lasti: bool) -> ExceptionEntry {
        let at = BytecodeOffset;
        ExceptionEntry {
            start: at(start),
            end: at(end),
            target: at(target),
            depth,
            lasti,
        }
    }

    #[test]
    fn parses_entries() {
        // 2..7 -> 70 at depth 1 with lasti; 10..12 -> 4096 at depth 0.
        let table = [
            0x80 | 2,
            5,
            0x40 | 1,
            6,
            3,
            0x80 | 10,
            2,
            0x40 | 1,
            0x40,
            0,
            0,
        ];
        let parsed = ExceptionTable::parse(&table).unwrap();
        assert_eq!(
            parsed.entries(),
            [entry(2, 7, 70, 1, true), entry(10, 12, 4096, 0, false)]
        );
        assert_eq!(parsed.entries()[0].handler_depth(), 3);
        let found: Vec<Option<u32>> = [1, 2, 6, 7, 9, 11, 12]
            .map(|o| parsed.lookup(BytecodeOffset(o)).map(|e| e.target.0))
            .into();
        assert_eq!(
            found,
            [None, Some(70), Some(70), None, None, Some(4096), None]
        );
        for offset in 0..14 {
            let offset = BytecodeOffset(offset);
            let read = ExceptionEntries::new(&table).covering(offset);
            assert_eq!(read.as_ref(), parsed.lookup(offset));
        }
    }

    #[test]
    fn refuses_malformed_tables() {
        assert_eq!(ExceptionTable::parse(&[]).unwrap().entries(), []);
        assert_eq!(
            ExceptionTable::parse(&[0x82, 5, 0x41]),
            Err(DecodeError::ExceptionTable(0))
        );
        assert_eq!(
            ExceptionTable::parse(&[0x80, 4, 9, 0, 0x83, 2, 9, 0]),
            Err(DecodeError::ExceptionTable(4))
        );
        assert_eq!(
            ExceptionTable::parse(&[0x7f; 9]),
            Err(DecodeError::ExceptionTable(0))
        );
    }
}
