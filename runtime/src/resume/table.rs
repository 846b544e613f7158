//! The resume table of a baseline body: for each instruction, where its machine code begins, and which entries of the operand stack are elsewhere than in their slots.
//!
//! The baseline compiler writes it while it compiles; it is read from its beginning whenever a frame is resumed. An instruction takes two bytes as a rule:
//!
//! - byte A: bits 0 to 2 the code units since the instruction before (0: numbers follow, units and then EXTENDED_ARG prefixes), bits 3 to 7 the bytes of machine code since
//!   then (31: a number follows);
//! - byte B, how the operand stack differs: bits 0 and 1 entries dropped (3: a number follows), bit 2 all that are left are in memory now, bits 3 and 4 entries pushed (3: the
//!   whole stack follows, as its depth and four places a byte), bits 5 to 7 the places of the one or two pushed.
//!
//! Numbers have seven bits a byte, the least significant first.

/// Where baseline code keeps an entry of the operand stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// In its slot of the frame.
    Memory = 0,
    /// Nowhere: it is a local or a constant, read again where it is used.
    Implied = 1,
    /// In the accumulator.
    Acc = 2,
}

impl Place {
    fn from_bits(bits: u8) -> Place {
        match bits {
            0 => Place::Memory,
            1 => Place::Implied,
            _ => Place::Acc,
        }
    }
}

const NUMBER_FOLLOWS_CODE: u32 = 31;
const DROP_NUMBER: u8 = 3;
const IN_MEMORY: u8 = 1 << 2;
const WHOLE: u8 = 3;

/// How many entries of an operand stack have their places in one word, two bits each from the lowest. Deeper stacks are shown as a whole.
pub const PACKED: usize = 31;

/// Writes a table. Instructions come in order.
#[derive(Debug)]
pub struct TableBuilder {
    bytes: Vec<u8>,
    start: u32,
    code_offset: u32,
    /// The operand stack of the instruction before: its depth and places.
    depth: usize,
    packed: u64,
    /// The two bits behind the last place.
    end: u64,
}

impl TableBuilder {
    /// In the memory of another table.
    pub fn new_in(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        TableBuilder {
            bytes,
            start: 0,
            code_offset: 0,
            depth: 0,
            packed: 0,
            end: 3,
        }
    }

    /// Adds the instruction whose EXTENDED_ARG prefixes, if any, begin at `start` and which itself stands at `offset` (both in code units). Its machine code begins `code_offset` bytes
    /// from the body's start. The operand stack has `depth` entries, the lowest of them packed in `packed` (bits above are 0), and `place` gives each.
    #[inline]
    pub fn add(
        &mut self,
        start: u32,
        offset: u32,
        code_offset: u32,
        depth: usize,
        packed: u64,
        place: impl Fn(usize) -> Place,
    ) {
        let units = start - self.start;
        let prefixes = offset - start;
        let code = code_offset - self.code_offset;
        // Entries from the bottom that are as before, and that are in memory. Bits behind the last entry end both: no place has them.
        let (end, end_before) = (3_u64.wrapping_shl(2 * depth as u32), self.end);
        let differing = packed ^ self.packed | end | end_before;
        let same = differing.trailing_zeros() as usize / 2;
        let in_memory = (packed | end | end_before).trailing_zeros() as usize / 2;
        // The fewest dropped that leave at most two to push.
        let flushed = depth.wrapping_sub(same) > 2;
        let kept = if flushed { in_memory } else { same };
        let (pushed, dropped) = (depth.wrapping_sub(kept), self.depth.wrapping_sub(kept));
        let small = pushed <= 2 && depth.max(self.depth) <= PACKED;
        (self.start, self.code_offset) = (start, code_offset);
        (self.depth, self.packed, self.end) = (depth, packed, end);
        if !small {
            self.position(units, prefixes, code);
            self.whole(depth, place);
            return;
        }
        let rest = packed >> kept >> kept;
        let kinds = if pushed == 2 {
            (rest & 3) * 3 + (rest >> 2 & 3)
        } else {
            rest & 3
        };
        let change = dropped.min(DROP_NUMBER as usize) as u8
            | if flushed { IN_MEMORY } else { 0 }
            | (pushed as u8) << 3
            | (kinds as u8) << 5;
        if (1..=7).contains(&units) && prefixes == 0 && code < NUMBER_FOLLOWS_CODE {
            let first = units as u8 | (code as u8) << 3;
            self.bytes.extend_from_slice(&[first, change]);
        } else {
            self.position(units, prefixes, code);
            self.bytes.push(change);
        }
        if dropped >= DROP_NUMBER as usize {
            self.number(dropped as u32);
        }
    }

    /// Byte A and its numbers.
    #[inline(never)]
    fn position(&mut self, units: u32, prefixes: u32, code: u32) {
        let direct = (1..=7).contains(&units) && prefixes == 0;
        let short = code.min(NUMBER_FOLLOWS_CODE);
        self.bytes
            .push(if direct { units as u8 } else { 0 } | (short as u8) << 3);
        if !direct {
            self.number(units);
            self.number(prefixes);
        }
        if short == NUMBER_FOLLOWS_CODE {
            self.number(code);
        }
    }

    /// Byte B for a stack that is shown as a whole, and the stack.
    #[cold]
    fn whole(&mut self, depth: usize, place: impl Fn(usize) -> Place) {
        self.bytes.push(WHOLE << 3);
        self.number(depth as u32);
        for first in (0..depth).step_by(4) {
            let four = first..depth.min(first + 4);
            let packed = four.map(|index| (place(index) as u8) << (2 * (index - first)));
            let packed = packed.sum();
            self.bytes.push(packed);
        }
    }

    #[inline]
    fn number(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// The finished table.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// What a table says of one instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Where the instruction begins, EXTENDED_ARG prefixes included, in code units.
    pub start: u32,
    /// Where the instruction itself stands: what `instr_ptr` holds while it runs.
    pub offset: u32,
    /// Its machine code, in bytes from the body's start.
    pub code_offset: u32,
    /// The operand stack in front of it, from the bottom.
    pub places: Vec<Place>,
}

/// Reads a table.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    point: ResumePoint,
}

impl<'a> Reader<'a> {
    /// Starts in front of the first instruction.
    pub fn new(table: &'a [u8]) -> Self {
        Reader {
            rest: table,
            point: ResumePoint {
                start: 0,
                offset: 0,
                code_offset: 0,
                places: Vec::new(),
            },
        }
    }

    /// The next instruction, in the order of the code; `None` behind the last one.
    pub fn advance(&mut self) -> Option<&ResumePoint> {
        let first = self.byte()?;
        let mut units = u32::from(first & 7);
        let mut prefixes = 0;
        if units == 0 {
            units = self.number()?;
            prefixes = self.number()?;
        }
        let mut code = u32::from(first >> 3);
        if code == NUMBER_FOLLOWS_CODE {
            code = self.number()?;
        }
        self.point.start += units;
        self.point.offset = self.point.start + prefixes;
        self.point.code_offset += code;
        let change = self.byte()?;
        let pushed = change >> 3 & 3;
        if pushed == WHOLE {
            let depth = self.number()? as usize;
            self.point.places.clear();
            let mut packed = 0;
            for index in 0..depth {
                if index % 4 == 0 {
                    packed = self.byte()?;
                }
                self.point.places.push(Place::from_bits(packed & 3));
                packed >>= 2;
            }
            return Some(&self.point);
        }
        let mut dropped = usize::from(change & 3);
        if dropped == usize::from(DROP_NUMBER) {
            dropped = self.number()? as usize;
        }
        let places = &mut self.point.places;
        places.truncate(places.len().saturating_sub(dropped));
        if change & IN_MEMORY != 0 {
            places.fill(Place::Memory);
        }
        let kinds = change >> 5;
        match pushed {
            0 => {}
            1 => places.push(Place::from_bits(kinds)),
            _ => {
                places.push(Place::from_bits(kinds / 3));
                places.push(Place::from_bits(kinds % 3));
            }
        }
        Some(&self.point)
    }

    /// The instruction that begins at `offset` or, behind its prefixes, stands there.
    pub fn find(&mut self, offset: u32) -> Option<ResumePoint> {
        while let Some(point) = self.advance() {
            if offset <= point.offset {
                return (point.start <= offset).then(|| point.clone());
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn number(&mut self) -> Option<u32> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: Place = Place::Memory;
    const I: Place = Place::Implied;
    const A: Place = Place::Acc;

    fn point(start: u32, prefixes: u32, code_offset: u32, places: &[Place]) -> ResumePoint {
        ResumePoint {
            start,
            offset: start + prefixes,
            code_offset,
            places: places.to_vec(),
        }
    }

    fn table(points: &[ResumePoint]) -> Vec<u8> {
        let mut builder = TableBuilder::new_in(Vec::new());
        for point in points {
            let packed = point.places.iter().take(PACKED).enumerate();
            let packed = packed.map(|(index, place)| (*place as u64) << (2 * index));
            builder.add(
                point.start,
                point.offset,
                point.code_offset,
                point.places.len(),
                packed.sum(),
                |index| point.places[index],
            );
        }
        builder.finish()
    }

    fn read(table: &[u8]) -> Vec<ResumePoint> {
        let mut reader = Reader::new(table);
        std::iter::from_fn(|| reader.advance().cloned()).collect()
    }

    #[test]
    fn reads_what_was_written() {
        let deep = vec![M; 300];
        let mut mixed = deep.clone();
        mixed.extend([I, A, I]);
        let points = [
            point(0, 0, 14, &[]),
            point(1, 0, 14, &[I]),
            point(2, 1, 14, &[I, I]),
            point(8, 0, 44, &[A]),
            point(9, 0, 75, &[M, A]),
            point(10, 0, 500, &[M, A, I]),
            point(300, 3, 100_000, &[M, M, M, A, I]),
            point(305, 0, 100_000, &deep),
            point(306, 0, 100_002, &mixed),
            point(313, 0, 100_003, &[M, I]),
            point(314, 0, 100_003, &[]),
            point(315, 0, 100_003, &[I, A]),
            point(316, 0, 100_004, &[I, M, M]),
        ];
        let written = table(&points);
        assert_eq!(read(&written), points);
    }

    #[test]
    fn reads_every_change_of_small_stacks() {
        let mut stacks: Vec<Vec<Place>> = vec![vec![]];
        for from in 0..40 {
            let grown: Vec<_> = [M, I, A]
                .iter()
                .filter(|&&place| place != A || !stacks[from].contains(&A))
                .map(|&place| [stacks[from].as_slice(), &[place]].concat())
                .collect();
            stacks.extend(grown);
        }
        for before in &stacks {
            for after in &stacks {
                let points = [point(0, 0, 0, before), point(1, 0, 1, after)];
                assert_eq!(read(&table(&points)), points);
            }
        }
    }

    #[test]
    fn reads_stacks_around_the_depth_that_is_packed() {
        let stack = |depth: usize, top: Place| {
            let mut places = vec![I; depth];
            places[depth / 2] = M;
            places[depth - 1] = top;
            places
        };
        for from in PACKED - 3..PACKED + 4 {
            for to in PACKED - 3..PACKED + 4 {
                for flushed in [false, true] {
                    let mut after = stack(to, A);
                    if flushed {
                        after[..to - 1].fill(M);
                    }
                    let points = [
                        point(0, 0, 0, &stack(from, I)),
                        point(1, 0, 3, &after),
                        point(2, 0, 9, &after[..1]),
                        point(3, 0, 9, &stack(from, M)),
                    ];
                    assert_eq!(read(&table(&points)), points);
                }
            }
        }
    }

    #[test]
    fn takes_two_bytes_for_what_is_common() {
        let points = [
            point(0, 0, 0, &[]),
            point(1, 0, 14, &[I, I]),
            point(2, 0, 14, &[A]),
            point(7, 0, 40, &[]),
            point(8, 0, 41, &[A, I]),
            point(9, 0, 50, &[M, M]),
        ];
        assert_eq!(table(&points).len(), 2 * points.len() + 2);
    }

    #[test]
    fn finds_by_start_and_by_offset() {
        let points = [
            point(0, 0, 0, &[]),
            point(1, 2, 4, &[I]),
            point(9, 0, 9, &[A]),
        ];
        let written = table(&points);
        let find = |offset| Reader::new(&written).find(offset);
        assert_eq!(find(0).as_ref(), Some(&points[0]));
        assert_eq!(find(1).as_ref(), Some(&points[1]));
        assert_eq!(find(3).as_ref(), Some(&points[1]));
        assert_eq!(find(9).as_ref(), Some(&points[2]));
        for missing in [4, 8, 10] {
            assert_eq!(find(missing), None);
        }
    }
}
