//! The kinds of relocations that LLVM uses in position-independent code of the small code model, for both architectures.
//!
//! Kinds of both are known on both, so that tests of each run everywhere. What is not known is an error: nothing is guessed.

use object::elf::{self, RelocationType};
use thiserror::Error;

/// Why a relocation cannot be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RelocationError {
    /// A kind that is not known here.
    #[error("unknown relocation kind {0}")]
    Kind(u32),
    /// It does not refer to a symbol.
    #[error("a relocation without a symbol")]
    Target,
    /// It lies outside its section.
    #[error("a relocation outside its section")]
    Outside,
    /// The target is too far away, or not aligned as the instruction wants it.
    #[error("relocation kind {kind} does not reach ({distance:#x})")]
    Reach {
        /// The kind.
        kind: u32,
        /// What would have to be encoded.
        distance: i64,
    },
}

/// What a relocation refers to, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Address of the bytes that are changed.
    pub address: u64,
    /// Address of the symbol.
    pub target: u64,
    /// What is added to it.
    pub addend: i64,
    /// Address of the symbol's slot, if it has one.
    pub slot: Option<u64>,
}

impl Place {
    fn sum(&self) -> u64 {
        self.target.wrapping_add_signed(self.addend)
    }

    fn distance(&self) -> i64 {
        self.sum().wrapping_sub(self.address) as i64
    }

    /// The distance of the slot's code, for calls that do not reach.
    fn distance_of_slot(&self) -> Option<i64> {
        let slot = self.slot?.wrapping_add_signed(self.addend);
        Some(slot.wrapping_sub(self.address) as i64)
    }

    /// Address of the slot's word, which holds the symbol's address, plus the addend.
    fn word(&self) -> Option<u64> {
        Some((self.slot? + SLOT_WORD).wrapping_add_signed(self.addend))
    }
}

/// Bytes of a slot: code that jumps to an address, and that address as a word.
pub const SLOT_BYTES: usize = 16;

/// Where in the slot the address stands.
const SLOT_WORD: u64 = 8;

/// A slot that jumps to `target`.
pub fn slot_bytes(target: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    #[cfg(target_arch = "x86_64")]
    // jmp [rip + 2]; ud2
    bytes[..8].copy_from_slice(&[0xff, 0x25, 2, 0, 0, 0, 0x0f, 0x0b]);
    #[cfg(target_arch = "aarch64")]
    {
        bytes[..4].copy_from_slice(&0x5800_0050u32.to_le_bytes()); // ldr x16, #8
        bytes[4..8].copy_from_slice(&0xd61f_0200u32.to_le_bytes()); // br x16
    }
    bytes[8..].copy_from_slice(&target.to_le_bytes());
    bytes
}

/// Whether a kind refers to the slot's word, whatever the symbol is.
pub fn is_through_slot(kind: RelocationType) -> bool {
    if cfg!(target_arch = "x86_64") {
        matches!(
            kind,
            elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX
        )
    } else {
        matches!(
            kind,
            elf::R_AARCH64_ADR_GOT_PAGE | elf::R_AARCH64_LD64_GOT_LO12_NC
        )
    }
}

/// Makes a relocation of this machine's. `field` begins with the bytes that are changed.
pub fn apply(kind: RelocationType, place: &Place, field: &mut [u8]) -> Result<(), RelocationError> {
    if cfg!(target_arch = "x86_64") {
        x86_64(kind, place, field)
    } else {
        aarch64(kind, place, field)
    }
}

fn put<const N: usize>(field: &mut [u8], bytes: [u8; N]) -> Result<(), RelocationError> {
    field
        .first_chunk_mut::<N>()
        .map(|chunk| *chunk = bytes)
        .ok_or(RelocationError::Outside)
}

fn put_i32(field: &mut [u8], kind: RelocationType, value: i64) -> Result<(), RelocationError> {
    let narrow = i32::try_from(value).map_err(|_| out_of_reach(kind, value))?;
    put(field, narrow.to_le_bytes())
}

fn out_of_reach(kind: RelocationType, distance: i64) -> RelocationError {
    RelocationError::Reach {
        kind: kind.0,
        distance,
    }
}

fn x86_64(kind: RelocationType, place: &Place, field: &mut [u8]) -> Result<(), RelocationError> {
    match kind {
        elf::R_X86_64_NONE => Ok(()),
        elf::R_X86_64_64 => put(field, place.sum().to_le_bytes()),
        elf::R_X86_64_PC64 => put(field, place.distance().to_le_bytes()),
        elf::R_X86_64_PC32 => put_i32(field, kind, place.distance()),
        elf::R_X86_64_PLT32 => {
            let direct = place.distance();
            let distance = match (i32::try_from(direct), place.distance_of_slot()) {
                (Err(_), Some(through_slot)) => through_slot,
                _ => direct,
            };
            put_i32(field, kind, distance)
        }
        elf::R_X86_64_32S => put_i32(field, kind, place.sum() as i64),
        elf::R_X86_64_32 => {
            let sum = place.sum();
            let narrow = u32::try_from(sum).map_err(|_| out_of_reach(kind, sum as i64))?;
            put(field, narrow.to_le_bytes())
        }
        elf::R_X86_64_GOTPCREL | elf::R_X86_64_GOTPCRELX | elf::R_X86_64_REX_GOTPCRELX => {
            let word = place.word().ok_or(RelocationError::Target)?;
            put_i32(field, kind, word.wrapping_sub(place.address) as i64)
        }
        _ => Err(RelocationError::Kind(kind.0)),
    }
}

/// Replaces bits of an instruction.
fn patch(field: &mut [u8], mask: u32, bits: u32) -> Result<(), RelocationError> {
    let word = field
        .first_chunk::<4>()
        .map(|bytes| u32::from_le_bytes(*bytes))
        .ok_or(RelocationError::Outside)?;
    put(field, (word & !mask | bits & mask).to_le_bytes())
}

/// A distance in units of four bytes, in `bits` bits from bit `at` on.
fn patch_branch(
    field: &mut [u8],
    kind: RelocationType,
    distance: i64,
    bits: u32,
    at: u32,
) -> Result<(), RelocationError> {
    if !reaches(distance, bits) {
        return Err(out_of_reach(kind, distance));
    }
    let mask = (1 << bits) - 1;
    patch(field, mask << at, ((distance >> 2) as u32 & mask) << at)
}

fn reaches(distance: i64, bits: u32) -> bool {
    let limit = 1i64 << (bits + 1);
    distance & 3 == 0 && (-limit..limit).contains(&distance)
}

/// The two fields of `adr` and `adrp`.
fn patch_adr(field: &mut [u8], kind: RelocationType, value: i64) -> Result<(), RelocationError> {
    if !(-(1 << 20)..1 << 20).contains(&value) {
        return Err(out_of_reach(kind, value));
    }
    let value = value as u32;
    patch(
        field,
        0x60ff_ffe0,
        (value & 3) << 29 | (value >> 2 & 0x7_ffff) << 5,
    )
}

/// Distance between the 4 KiB pages of two addresses, in pages.
fn pages(to: u64, from: u64) -> i64 {
    ((to & !0xfff).wrapping_sub(from & !0xfff) as i64) >> 12
}

/// The low twelve bits of an address, in units of `1 << scale` bytes, as the offset of a load, store or `add`.
fn patch_low(
    field: &mut [u8],
    kind: RelocationType,
    address: u64,
    scale: u32,
) -> Result<(), RelocationError> {
    let low = address as u32 & 0xfff;
    if low & ((1 << scale) - 1) != 0 {
        return Err(out_of_reach(kind, i64::from(low)));
    }
    patch(field, 0xfff << 10, low >> scale << 10)
}

fn aarch64(kind: RelocationType, place: &Place, field: &mut [u8]) -> Result<(), RelocationError> {
    match kind {
        elf::R_AARCH64_NONE => Ok(()),
        elf::R_AARCH64_ABS64 => put(field, place.sum().to_le_bytes()),
        elf::R_AARCH64_PREL64 => put(field, place.distance().to_le_bytes()),
        elf::R_AARCH64_PREL32 => put_i32(field, kind, place.distance()),
        elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26 => {
            let direct = place.distance();
            let distance = match place.distance_of_slot() {
                Some(through_slot) if !reaches(direct, 26) => through_slot,
                _ => direct,
            };
            patch_branch(field, kind, distance, 26, 0)
        }
        elf::R_AARCH64_CONDBR19 | elf::R_AARCH64_LD_PREL_LO19 => {
            patch_branch(field, kind, place.distance(), 19, 5)
        }
        elf::R_AARCH64_TSTBR14 => patch_branch(field, kind, place.distance(), 14, 5),
        elf::R_AARCH64_ADR_PREL_LO21 => patch_adr(field, kind, place.distance()),
        elf::R_AARCH64_ADR_PREL_PG_HI21 | elf::R_AARCH64_ADR_PREL_PG_HI21_NC => {
            patch_adr(field, kind, pages(place.sum(), place.address))
        }
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => {
            patch_low(field, kind, place.sum(), 0)
        }
        elf::R_AARCH64_LDST16_ABS_LO12_NC => patch_low(field, kind, place.sum(), 1),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => patch_low(field, kind, place.sum(), 2),
        elf::R_AARCH64_LDST64_ABS_LO12_NC => patch_low(field, kind, place.sum(), 3),
        elf::R_AARCH64_LDST128_ABS_LO12_NC => patch_low(field, kind, place.sum(), 4),
        elf::R_AARCH64_ADR_GOT_PAGE => {
            let word = place.word().ok_or(RelocationError::Target)?;
            patch_adr(field, kind, pages(word, place.address))
        }
        elf::R_AARCH64_LD64_GOT_LO12_NC => {
            let word = place.word().ok_or(RelocationError::Target)?;
            patch_low(field, kind, word, 3)
        }
        _ => Err(RelocationError::Kind(kind.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: u64, target: u64, addend: i64, slot: Option<u64>) -> Place {
        Place {
            address,
            target,
            addend,
            slot,
        }
    }

    fn word(
        apply: impl Fn(RelocationType, &Place, &mut [u8]) -> Result<(), RelocationError>,
        kind: RelocationType,
        before: u32,
        place: Place,
    ) -> Result<u32, RelocationError> {
        let mut field = before.to_le_bytes();
        apply(kind, &place, &mut field)?;
        Ok(u32::from_le_bytes(field))
    }

    #[test]
    fn x86_64_kinds() {
        let pc32 = |p| word(x86_64, elf::R_X86_64_PC32, 0, p);
        assert_eq!(pc32(place(0x1000, 0x2000, -4, None)), Ok(0xffc));
        assert_eq!(pc32(place(0x2000, 0x1000, -4, None)), Ok(0xffff_effc));
        let far = place(0x1000, 0x1_0000_2000, -4, None);
        assert_eq!(
            pc32(far),
            Err(RelocationError::Reach {
                kind: 2,
                distance: 0x1_0000_0ffc
            })
        );
        // A call goes through the slot only where it does not reach.
        let call = |p| word(x86_64, elf::R_X86_64_PLT32, 0, p);
        assert_eq!(call(place(0x1000, 0x2000, -4, Some(0x1800))), Ok(0xffc));
        assert_eq!(
            call(Place {
                slot: Some(0x1800),
                ..far
            }),
            Ok(0x7fc)
        );
        assert!(call(far).is_err());
        // The word of the slot, not its code.
        let load = |p| word(x86_64, elf::R_X86_64_REX_GOTPCRELX, 0, p);
        assert_eq!(load(place(0x1000, 0x9000, -4, Some(0x1800))), Ok(0x804));
        assert_eq!(
            load(place(0x1000, 0x9000, -4, None)),
            Err(RelocationError::Target)
        );
        let absolute = |p| word(x86_64, elf::R_X86_64_32S, 0, p);
        assert_eq!(absolute(place(0, u64::MAX - 1, 0, None)), Ok(0xffff_fffe));
        assert!(absolute(place(0, 0x8000_0000, 0, None)).is_err());
        let unsigned = |p| word(x86_64, elf::R_X86_64_32, 0, p);
        assert_eq!(unsigned(place(0, 0x8000_0000, 0, None)), Ok(0x8000_0000));
        let mut field = [0; 8];
        x86_64(
            elf::R_X86_64_64,
            &place(0, 0x1122_3344_5566_7788, 1, None),
            &mut field,
        )
        .unwrap();
        assert_eq!(u64::from_le_bytes(field), 0x1122_3344_5566_7789);
        assert_eq!(
            x86_64(elf::R_X86_64_64, &place(0, 0, 0, None), &mut field[..7]),
            Err(RelocationError::Outside)
        );
        assert_eq!(
            x86_64(elf::R_X86_64_TPOFF32, &place(0, 0, 0, None), &mut field),
            Err(RelocationError::Kind(23))
        );
    }

    // Expected words are worked out by hand from the encodings in the comments.
    #[test]
    fn aarch64_kinds() {
        let at = |kind, before, p| word(aarch64, kind, before, p);
        let bl = 0x9400_0000;
        let call = |p| at(elf::R_AARCH64_CALL26, bl, p);
        assert_eq!(call(place(0x1000, 0x2000, 0, None)), Ok(bl | 0x400));
        assert_eq!(call(place(0x2000, 0x1000, 0, None)), Ok(0x97ff_fc00));
        // 128 MiB is out of reach forwards, in reach backwards.
        let limit = 128 << 20;
        assert!(call(place(0, limit, 0, None)).is_err());
        assert_eq!(call(place(limit, 0, 0, None)), Ok(0x9600_0000));
        assert_eq!(call(place(0, limit, 0, Some(0x40))), Ok(bl | 0x10));
        // b.eq, tbz, ldr literal
        assert_eq!(
            at(
                elf::R_AARCH64_CONDBR19,
                0x5400_0000,
                place(0x1000, 0x1010, 0, None)
            ),
            Ok(0x5400_0080)
        );
        assert_eq!(
            at(
                elf::R_AARCH64_TSTBR14,
                0x3600_0000,
                place(0x1000, 0xffc, 0, None)
            ),
            Ok(0x3607_ffe0)
        );
        assert!(
            at(
                elf::R_AARCH64_TSTBR14,
                0x3600_0000,
                place(0, 0x8000, 0, None)
            )
            .is_err()
        );
        // adrp x0, three pages on: immlo 3, immhi 0; adr x0, one byte back: all ones.
        assert_eq!(
            at(
                elf::R_AARCH64_ADR_PREL_PG_HI21,
                0x9000_0000,
                place(0x1ffc, 0x4008, 0, None)
            ),
            Ok(0xf000_0000)
        );
        assert_eq!(
            at(
                elf::R_AARCH64_ADR_PREL_LO21,
                0x1000_0000,
                place(0x1000, 0xfff, 0, None)
            ),
            Ok(0x70ff_ffe0)
        );
        assert!(
            at(
                elf::R_AARCH64_ADR_PREL_PG_HI21,
                0x9000_0000,
                place(0, 1 << 32, 0, None)
            )
            .is_err()
        );
        // add x0, x0, #0x123; ldr d0, [x0, #0x128]; ldr q0, [x0, #0x120]
        assert_eq!(
            at(
                elf::R_AARCH64_ADD_ABS_LO12_NC,
                0x9100_0000,
                place(0, 0x7123, 0, None)
            ),
            Ok(0x9104_8c00)
        );
        assert_eq!(
            at(
                elf::R_AARCH64_LDST64_ABS_LO12_NC,
                0xfd40_0000,
                place(0, 0x7120, 8, None)
            ),
            Ok(0xfd40_9400)
        );
        assert_eq!(
            at(
                elf::R_AARCH64_LDST128_ABS_LO12_NC,
                0x3dc0_0000,
                place(0, 0x7120, 0, None)
            ),
            Ok(0x3dc0_4800)
        );
        assert!(
            at(
                elf::R_AARCH64_LDST64_ABS_LO12_NC,
                0xfd40_0000,
                place(0, 0x7121, 0, None)
            )
            .is_err()
        );
        // ldr x0, [x0, word of the slot]
        assert_eq!(
            at(
                elf::R_AARCH64_LD64_GOT_LO12_NC,
                0xf940_0000,
                place(0, 0, 0, Some(0x7100))
            ),
            Ok(0xf940_8400)
        );
        assert_eq!(
            at(elf::R_AARCH64_PREL32, 0, place(0x1000, 0x800, 4, None)),
            Ok(0xffff_f804)
        );
        assert_eq!(
            at(elf::R_AARCH64_TLSDESC_CALL, 0, place(0, 0, 0, None)),
            Err(RelocationError::Kind(569))
        );
    }
}
