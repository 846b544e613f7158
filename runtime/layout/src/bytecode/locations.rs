//! The location table: which source lines and columns each range of code comes from.

use super::{BytecodeOffset, DecodeError};
use crate::ffi;

const NO_COLUMNS: u8 = ffi::PY_CODE_LOCATION_INFO_NO_COLUMNS as u8;
const LONG: u8 = ffi::PY_CODE_LOCATION_INFO_LONG as u8;
const NONE: u8 = ffi::PY_CODE_LOCATION_INFO_NONE as u8;
const ONE_LINE0: u8 = ffi::PY_CODE_LOCATION_INFO_ONE_LINE0 as u8;
const ONE_LINE2: u8 = ffi::PY_CODE_LOCATION_INFO_ONE_LINE2 as u8;

/// A range of code units and its place in the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// The first code unit.
    pub start: BytecodeOffset,
    /// The first code unit behind the range.
    pub end: BytecodeOffset,
    /// The line, `None` for code without one.
    pub line: Option<i32>,
    /// The line where the expression ends.
    pub end_line: Option<i32>,
    /// The column, in bytes, from 0.
    pub column: Option<u32>,
    /// The column where the expression ends.
    pub end_column: Option<u32>,
}

/// Iterates over a location table (`co_linetable`). It ends after the first error.
#[derive(Clone, Debug)]
pub struct Locations<'a> {
    table: &'a [u8],
    rest: &'a [u8],
    line: i32,
    at: u32,
}

impl<'a> Locations<'a> {
    /// Reads `co_linetable`, whose first line is relative to `co_firstlineno`.
    pub fn new(table: &'a [u8], first_line: i32) -> Self {
        Self {
            table,
            rest: table,
            line: first_line,
            at: 0,
        }
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    /// Six bits a byte, the least significant first; bit 6 says that more follow.
    #[inline]
    fn varint(&mut self) -> Option<u32> {
        let mut value: u32 = 0;
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            value |= u32::from(byte & 63).checked_shl(shift)?;
            if byte & 64 == 0 {
                return Some(value);
            }
            shift += 6;
        }
    }

    /// The sign is the lowest bit.
    #[inline]
    fn signed_varint(&mut self) -> Option<i32> {
        let value = self.varint()?;
        let magnitude = (value >> 1).cast_signed();
        Some(if value & 1 != 0 {
            -magnitude
        } else {
            magnitude
        })
    }

    #[inline]
    fn advance_line(&mut self, delta: i32) -> Option<i32> {
        self.line = self.line.checked_add(delta)?;
        Some(self.line)
    }

    fn entry(&mut self) -> Option<Location> {
        let first = self.byte().filter(|byte| byte & 128 != 0)?;
        let start = BytecodeOffset(self.at);
        self.at += u32::from(first & 7) + 1;
        let end = BytecodeOffset(self.at);
        let mut location = Location {
            start,
            end,
            line: None,
            end_line: None,
            column: None,
            end_column: None,
        };
        match first >> 3 & 15 {
            NONE => return Some(location),
            LONG => {
                let delta = self.signed_varint()?;
                let line = self.advance_line(delta)?;
                location.line = Some(line);
                location.end_line = Some(line.checked_add_unsigned(self.varint()?)?);
                // 0 stands for no column.
                location.column = self.varint()?.checked_sub(1);
                location.end_column = self.varint()?.checked_sub(1);
            }
            NO_COLUMNS => {
                let delta = self.signed_varint()?;
                location.line = Some(self.advance_line(delta)?);
                location.end_line = location.line;
            }
            kind @ ONE_LINE0..=ONE_LINE2 => {
                location.line = Some(self.advance_line(i32::from(kind - ONE_LINE0))?);
                location.end_line = location.line;
                location.column = Some(u32::from(self.byte()?));
                location.end_column = Some(u32::from(self.byte()?));
            }
            short => {
                let columns = self.byte()?;
                let column = u32::from(short) << 3 | u32::from(columns >> 4 & 7);
                location.line = Some(self.line);
                location.end_line = location.line;
                location.column = Some(column);
                location.end_column = Some(column + u32::from(columns & 15));
            }
        }
        Some(location)
    }
}

impl Iterator for Locations<'_> {
    type Item = Result<Location, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let at = self.table.len() - self.rest.len();
        let entry = self.entry();
        if entry.is_none() {
            self.rest = &[];
        }
        Some(entry.ok_or(DecodeError::LocationTable(at)))
    }
}

impl<'a> Locations<'a> {
    /// Where lines begin in the order of the code: each first code unit of a range with another line than the range before it. The interpreter has more of these, where jumps arrive.
    #[inline]
    pub fn line_starts(self) -> impl Iterator<Item = Result<BytecodeOffset, DecodeError>> {
        let (mut at, mut before) = (BytecodeOffset(0), None);
        self.lines().filter_map(move |run| {
            let (line, end) = match run {
                Ok(run) => run,
                Err(error) => return Some(Err(error)),
            };
            let start = std::mem::replace(&mut at, end);
            let changed = line != std::mem::replace(&mut before, line);
            (changed && line.is_some()).then_some(Ok(start))
        })
    }

    /// Only the lines, which is quicker.
    pub fn lines(self) -> Lines<'a> {
        Lines(self)
    }
}

/// Iterates over the lines of a location table: each with the first code unit behind it.
#[derive(Clone, Debug)]
pub struct Lines<'a>(Locations<'a>);

impl Lines<'_> {
    #[inline]
    fn entry(&mut self) -> Option<(Option<i32>, BytecodeOffset)> {
        let Self(locations) = self;
        let first = locations.byte().filter(|byte| byte & 128 != 0)?;
        locations.at += u32::from(first & 7) + 1;
        let end = BytecodeOffset(locations.at);
        let columns = match first >> 3 & 15 {
            NONE => return Some((None, end)),
            LONG | NO_COLUMNS => {
                let delta = locations.signed_varint()?;
                locations.advance_line(delta)?;
                if first >> 3 & 15 == LONG {
                    for _ in 0..3 {
                        locations.varint()?;
                    }
                }
                0
            }
            kind @ ONE_LINE0..=ONE_LINE2 => {
                locations.advance_line(i32::from(kind - ONE_LINE0))?;
                2
            }
            _ => 1,
        };
        locations.rest = locations.rest.get(columns..)?;
        Some((Some(locations.line), end))
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<(Option<i32>, BytecodeOffset), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.rest.is_empty() {
            return None;
        }
        let at = self.0.table.len() - self.0.rest.len();
        let entry = self.entry();
        if entry.is_none() {
            self.0.rest = &[];
        }
        Some(entry.ok_or(DecodeError::LocationTable(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_kind() {
        let first = |kind: u8, units: u8| 128 | kind << 3 | (units - 1);
        let table = [
            first(NO_COLUMNS, 1),
            0, // line + 0
            first(1, 2),
            0x25, // columns 10..15, same line
            first(ONE_LINE0 + 1, 3),
            4,
            9, // next line
            first(NONE, 8),
            first(LONG, 1),
            0x40 | 0b11,
            1,
            2,
            5,
            0, // line - 33, two lines long, from column 4
        ];
        let parsed: Vec<Location> = Locations::new(&table, 100).map(Result::unwrap).collect();
        let lines: Vec<_> = Locations::new(&table, 100)
            .lines()
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            lines,
            parsed.iter().map(|l| (l.line, l.end)).collect::<Vec<_>>()
        );
        let rows: Vec<_> = parsed
            .iter()
            .map(|l| {
                (
                    l.start.0,
                    l.end.0,
                    l.line,
                    l.end_line,
                    l.column,
                    l.end_column,
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                (0, 1, Some(100), Some(100), None, None),
                (1, 3, Some(100), Some(100), Some(10), Some(15)),
                (3, 6, Some(101), Some(101), Some(4), Some(9)),
                (6, 14, None, None, None, None),
                (14, 15, Some(68), Some(70), Some(4), None),
            ]
        );
    }

    #[test]
    fn refuses_malformed_tables() {
        let error = |table: &[u8]| {
            let error = Locations::new(table, 1).find_map(Result::err);
            assert_eq!(
                Locations::new(table, 1).lines().find_map(Result::err),
                error
            );
            error
        };
        assert_eq!(error(&[]), None);
        assert_eq!(error(&[0x05]), Some(DecodeError::LocationTable(0)));
        assert_eq!(
            error(&[128 | NONE << 3, 128 | LONG << 3, 2]),
            Some(DecodeError::LocationTable(1))
        );
        assert_eq!(
            error(&[128 | LONG << 3, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40]),
            Some(DecodeError::LocationTable(0))
        );
    }
}
