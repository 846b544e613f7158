//! Items of `array.array`.

use std::mem::offset_of;

use hotstamp_layout::array::ArrayObject;
use hotstamp_layout::ffi;
use inkwell::IntPredicate;
use inkwell::types::{BasicTypeEnum, IntType};
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::{Lower, LowerError, Lowered};
use crate::hir::{ArrayItems, Reason, Value};

impl<'c> Lower<'c, '_> {
    /// The machine's type of an item; ints with their width.
    fn item_type(&self, items: ArrayItems) -> BasicTypeEnum<'c> {
        match items {
            ArrayItems::Float(4) => self.context.f32_type().into(),
            ArrayItems::Float(_) => self.context.f64_type().into(),
            ArrayItems::Signed(bytes) | ArrayItems::Unsigned(bytes) => self.int_type(bytes).into(),
        }
    }

    fn int_type(&self, bytes: u8) -> IntType<'c> {
        match bytes {
            1 => self.context.i8_type(),
            2 => self.context.i16_type(),
            4 => self.context.i32_type(),
            _ => self.context.i64_type(),
        }
    }

    /// Where an item is.
    fn item_place(
        &self,
        array: PointerValue<'c>,
        index: IntValue<'c>,
        items: ArrayItems,
    ) -> Lowered<PointerValue<'c>> {
        let first = self.load_pointer(array, offset_of!(ArrayObject, ob_item))?;
        // SAFETY: an address computation; nothing is accessed here.
        Ok(unsafe {
            self.b
                .build_gep(self.item_type(items), first, &[index], "")?
        })
    }

    /// `ArrayItem`.
    pub(super) fn array_item(
        &mut self,
        value: Value,
        items: ArrayItems,
    ) -> Lowered<BasicValueEnum<'c>> {
        let args = &self.graph.inst(value).args;
        let array = self.object(args[0])?;
        let index = self.int(args[1])?;
        let length = self.load64(array, offset_of!(ffi::PyVarObject, ob_size))?;
        let inside = self.compare(IntPredicate::ULT, index, length)?;
        let state = self.state_of(value)?;
        let exit = self.exit_block(Reason::RareCase, &state)?;
        self.expect(inside, exit)?;
        let place = self.item_place(array, index, items)?;
        let item = self.load_unboxed(self.item_type(items), place)?;
        let wide = self.context.i64_type();
        Ok(match (items, item) {
            (ArrayItems::Float(4), BasicValueEnum::FloatValue(item)) => self
                .b
                .build_float_ext(item, self.context.f64_type(), "")?
                .into(),
            (ArrayItems::Signed(bytes), BasicValueEnum::IntValue(item)) if bytes < 8 => {
                self.b.build_int_s_extend(item, wide, "")?.into()
            }
            (ArrayItems::Unsigned(_), BasicValueEnum::IntValue(item)) => {
                self.b.build_int_z_extend(item, wide, "")?.into()
            }
            (_, item) => item,
        })
    }

    /// `ArrayStore`.
    pub(super) fn array_store(&mut self, value: Value, items: ArrayItems) -> Lowered<()> {
        let args = &self.graph.inst(value).args;
        let array = self.object(args[0])?;
        let index = self.int(args[1])?;
        let place = self.item_place(array, index, items)?;
        let item: BasicValueEnum<'c> = match (items, self.value(args[2])?) {
            (ArrayItems::Float(4), BasicValueEnum::FloatValue(item)) => self
                .b
                .build_float_trunc(item, self.context.f32_type(), "")?
                .into(),
            (
                ArrayItems::Signed(bytes) | ArrayItems::Unsigned(bytes),
                BasicValueEnum::IntValue(item),
            ) if bytes < 8 => self
                .b
                .build_int_truncate(item, self.int_type(bytes), "")?
                .into(),
            (ArrayItems::Float(_), item @ BasicValueEnum::FloatValue(_)) => item,
            (ArrayItems::Signed(_), item @ BasicValueEnum::IntValue(_)) => item,
            _ => return Err(LowerError::Kind),
        };
        self.store_unboxed(place, item)
    }

    /// Loads a number from where nothing but such numbers is.
    fn load_unboxed(
        &self,
        ty: BasicTypeEnum<'c>,
        place: PointerValue<'c>,
    ) -> Lowered<BasicValueEnum<'c>> {
        self.load(ty, place, 0)
    }

    /// Stores a number where nothing but such numbers is.
    fn store_unboxed(&self, place: PointerValue<'c>, item: BasicValueEnum<'c>) -> Lowered<()> {
        self.store(place, 0, item)
    }
}
