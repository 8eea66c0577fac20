//! From bytes to an instruction: the VEX encodings that the kernels of AMX use (Intel's Software
//! Developer's Manual, volume 2), and where their operands lie.

use std::fmt;

/// What a processor does with a tile or with all of them. Tiles are numbers below 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// `ldtilecfg`
    Configure(Address),
    /// `tilerelease`
    Release,
    /// `tilezero`
    Zero(u8),
    /// `tileloadd` and `tileloaddt1`, which differ in what they leave in caches.
    Load(u8, Address),
    /// `tilestored`
    Store(Address, u8),
    /// Adds to the first tile the product of the other two.
    Multiply(Product, [u8; 3]),
}

/// What elements are multiplied as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    /// `tdpbusd`: u8 by s8, sums in s32.
    Bytes,
    /// `tdpbf16ps`: bf16 by bf16, sums in f32.
    Halves,
}

/// An address in memory, as written: rows of a tile begin at base and displacement, index and scale
/// are the stride between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub base: Base,
    /// A register, and by how many bits it is shifted.
    pub index: Option<(u8, u8)>,
    pub displacement: i32,
}

/// Where an address begins. Registers have the numbers of their encoding: rax, rcx, rdx, rbx, rsp, rbp,
/// rsi, rdi, r8 to r15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Nothing,
    Register(u8),
    /// The instruction that follows.
    Next,
}

impl Address {
    /// Base and displacement, and what the index adds, given the registers and where the next
    /// instruction lies.
    pub fn resolve(self, register: impl Fn(u8) -> u64, next: u64) -> (u64, u64) {
        let base = match self.base {
            Base::Nothing => 0,
            Base::Register(number) => register(number),
            Base::Next => next,
        };
        let index = self.index.map_or(0, |(number, shift)| register(number) << shift);
        (base.wrapping_add_signed(i64::from(self.displacement)), index)
    }
}

/// Bits of a VEX prefix that lengthen the numbers of registers, as 0 or 8.
struct Lengthened {
    reg: u8,
    index: u8,
    rm: u8,
}

/// The instruction that the bytes begin with, and how many of them it has; `None` where it is none of
/// those above. Asks for no byte behind the instruction.
pub(super) fn decode(bytes: impl Iterator<Item = u8>) -> Option<(Instruction, u64)> {
    let mut length = 0;
    let mut bytes = bytes.inspect(|_| length += 1);
    let instruction = instruction(&mut bytes)?;
    Some((instruction, length))
}

fn instruction(bytes: &mut impl Iterator<Item = u8>) -> Option<Instruction> {
    const THREE_BYTES: u8 = 0xc4;
    const MAP_0F38: u8 = 2;
    const NONE: u8 = 0;
    const P66: u8 = 1;
    const PF3: u8 = 2;
    const PF2: u8 = 3;
    if bytes.next()? != THREE_BYTES {
        return None;
    }
    let (map, rest) = (bytes.next()?, bytes.next()?);
    // Registers are encoded inverted; the other bits are W and L, which are zero, and the prefix.
    let bit = |at: u8| ((!map >> at) & 1) * 8;
    let longer = Lengthened { reg: bit(7), index: bit(6), rm: bit(5) };
    let (second, prefix) = (!rest >> 3 & 15, rest & 3);
    if map & 0x1f != MAP_0F38 || rest & 0x84 != 0 {
        return None;
    }
    let (opcode, modrm) = (bytes.next()?, bytes.next()?);
    let in_memory = modrm >> 6 != 3;
    let (reg, rm) = ((modrm >> 3 & 7) | longer.reg, modrm & 7);
    let tiles = || [reg, rm | longer.rm, second];
    let instruction = match (opcode, prefix, in_memory) {
        (0x49, NONE, true) if reg == 0 => Instruction::Configure(address(modrm, &longer, bytes)?),
        (0x49, NONE, false) if modrm == 0xc0 => Instruction::Release,
        (0x49, PF2, false) if rm == 0 => Instruction::Zero(reg),
        (0x4b, PF2 | P66, true) if rm == 4 => {
            Instruction::Load(reg, address(modrm, &longer, bytes)?)
        }
        (0x4b, PF3, true) if rm == 4 => Instruction::Store(address(modrm, &longer, bytes)?, reg),
        (0x5e, P66, false) => Instruction::Multiply(Product::Bytes, tiles()),
        (0x5c, PF3, false) => Instruction::Multiply(Product::Halves, tiles()),
        _ => return None,
    };
    let exists = match instruction {
        Instruction::Multiply(_, tiles) => tiles.iter().all(|&tile| tile < 8),
        _ => reg < 8 && second == 0,
    };
    exists.then_some(instruction)
}

/// An operand in memory, from the bytes that follow `modrm`.
fn address(
    modrm: u8,
    longer: &Lengthened,
    bytes: &mut impl Iterator<Item = u8>,
) -> Option<Address> {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let (low, index) = match rm {
        4 => {
            let sib = bytes.next()?;
            let index = (sib >> 3 & 7) | longer.index;
            // Four, which is rsp, stands for none; twelve is r12.
            (sib & 7, (index != 4).then_some((index, sib >> 6)))
        }
        _ => (rm, None),
    };
    let base = match (low, mode, rm) {
        (5, 0, 4) => Base::Nothing,
        (5, 0, _) => Base::Next,
        _ => Base::Register(low | longer.rm),
    };
    let mut byte = || bytes.next();
    let displacement = match (mode, base) {
        (1, _) => i32::from(byte()? as i8),
        (0, Base::Register(_)) => 0,
        _ => i32::from_le_bytes([byte()?, byte()?, byte()?, byte()?]),
    };
    Some(Address { base, index, displacement })
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instruction::Configure(_) => f.write_str("ldtilecfg"),
            Instruction::Release => f.write_str("tilerelease"),
            Instruction::Zero(tile) => write!(f, "tilezero tmm{tile}"),
            Instruction::Load(tile, _) => write!(f, "tileloadd tmm{tile}"),
            Instruction::Store(_, tile) => write!(f, "tilestored tmm{tile}"),
            Instruction::Multiply(product, [sums, a, b]) => {
                let name = match product {
                    Product::Bytes => "tdpbusd",
                    Product::Halves => "tdpbf16ps",
                };
                write!(f, "{name} tmm{sums}, tmm{a}, tmm{b}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::arch::asm;

    use super::*;

    /// The bytes that the assembler makes of a line.
    macro_rules! assembled {
        ($line:expr) => {{
            let (from, to): (*const u8, *const u8);
            // SAFETY: the line is jumped over, and its bytes lie between the labels.
            unsafe {
                asm!(
                    "lea {from}, [rip + 2f]", "lea {to}, [rip + 3f]", "jmp 3f", "2:", $line, "3:",
                    from = out(reg) from, to = out(reg) to, options(nomem, nostack, preserves_flags),
                );
                std::slice::from_raw_parts(from, to.offset_from_unsigned(from))
            }
        }};
    }

    /// A line is the instruction, and all of its bytes are; whatever follows is not asked for.
    macro_rules! holds {
        ($($line:expr => $instruction:expr,)+) => {
            $({
                let bytes = assembled!($line);
                let found = decode(bytes.iter().copied());
                assert_eq!(found, Some(($instruction, bytes.len() as u64)), "{} {bytes:x?}", $line);
            })+
        };
    }

    fn at(base: Base, index: Option<(u8, u8)>, displacement: i32) -> Address {
        Address { base, index, displacement }
    }

    #[test]
    fn every_form_is_read() {
        holds! {
            "tilerelease" => Instruction::Release,
            "tilezero tmm0" => Instruction::Zero(0),
            "tilezero tmm7" => Instruction::Zero(7),
            "tdpbusd tmm1, tmm2, tmm3" => Instruction::Multiply(Product::Bytes, [1, 2, 3]),
            "tdpbusd tmm7, tmm0, tmm6" => Instruction::Multiply(Product::Bytes, [7, 0, 6]),
            "tdpbf16ps tmm1, tmm2, tmm3" => Instruction::Multiply(Product::Halves, [1, 2, 3]),
            "tdpbf16ps tmm0, tmm7, tmm5" => Instruction::Multiply(Product::Halves, [0, 7, 5]),
            "ldtilecfg [rax]" => Instruction::Configure(at(Base::Register(0), None, 0)),
            "ldtilecfg [rsp]" => Instruction::Configure(at(Base::Register(4), None, 0)),
            "ldtilecfg [rbp]" => Instruction::Configure(at(Base::Register(5), None, 0)),
            "ldtilecfg [r12 + 64]" => Instruction::Configure(at(Base::Register(12), None, 64)),
            "ldtilecfg [r13 - 4096]" => Instruction::Configure(at(Base::Register(13), None, -4096)),
            "ldtilecfg [rip + 4660]" => Instruction::Configure(at(Base::Next, None, 4660)),
            "ldtilecfg [rdi + r9*4]" => Instruction::Configure(at(Base::Register(7), Some((9, 2)), 0)),
        }
    }

    #[test]
    fn rows_are_where_the_assembler_wrote_them() {
        let registers = |base, index| (Base::Register(base), Some(index));
        let load = |tile, (base, index), by| Instruction::Load(tile, at(base, index, by));
        let store = |tile, (base, index), by| Instruction::Store(at(base, index, by), tile);
        holds! {
            "tileloadd tmm4, [rax + rcx*1]" => load(4, registers(0, (1, 0)), 0),
            "tileloadd tmm5, [rsp + rbx*2]" => load(5, registers(4, (3, 1)), 0),
            "tileloadd tmm6, [rbp + rdx*4]" => load(6, registers(5, (2, 2)), 0),
            "tileloadd tmm7, [r13 + r12*8]" => load(7, registers(13, (12, 3)), 0),
            "tileloadd tmm0, [r12 + r13*1 + 127]" => load(0, registers(12, (13, 0)), 127),
            "tileloadd tmm1, [r8 + rbp*1 - 128]" => load(1, registers(8, (5, 0)), -128),
            "tileloadd tmm2, [rsi + r15*1 + 128]" => load(2, registers(6, (15, 0)), 128),
            "tileloadd tmm3, [r9 + rdi*1 - 70000]" => load(3, registers(9, (7, 0)), -70000),
            "tileloadd tmm3, [r10]" => load(3, (Base::Register(10), None), 0),
            "tileloadd tmm3, [rsp]" => load(3, (Base::Register(4), None), 0),
            "tileloadd tmm3, [r11*1 + 4096]" => load(3, registers(11, (0, 0)), 4096).without_base((11, 0)),
            "tileloadd tmm3, [rax*8]" => load(3, registers(0, (0, 3)), 0).without_base((0, 3)),
            "tileloadd tmm3, [4096]" => load(3, (Base::Nothing, None), 4096),
            "tileloaddt1 tmm6, [r14 + rsi*1]" => load(6, registers(14, (6, 0)), 0),
            "tilestored [rdx + r8*1], tmm0" => store(0, registers(2, (8, 0)), 0),
            "tilestored [r15 + r10*2 + 64], tmm7" => store(7, registers(15, (10, 1)), 64),
            "tilestored [rbx + r11*1 + 192], tmm1" => store(1, registers(3, (11, 0)), 192),
        }
    }

    impl Instruction {
        /// The same with an index alone.
        fn without_base(self, index: (u8, u8)) -> Self {
            match self {
                Instruction::Load(tile, from) => {
                    let base = Base::Nothing;
                    Instruction::Load(tile, Address { base, index: Some(index), ..from })
                }
                other => other,
            }
        }
    }

    #[test]
    fn what_is_no_instruction_of_tiles_is_none() {
        for bytes in [
            assembled!("ud2"),
            assembled!("nop"),
            assembled!("vpdpbusd zmm1, zmm2, zmm3"),
            assembled!("vfmadd231ps ymm1, ymm2, ymm3"),
            assembled!("andn rax, rbx, rcx"),
            assembled!("vpermq ymm1, ymm2, 3"),
        ] {
            assert_eq!(decode(bytes.iter().copied()), None, "{bytes:x?}");
        }
        // tdpbusd tmm1, tmm2, tmm3, and the same with W, with L, of tiles above 7 and in memory.
        let right = [0xc4, 0xe2, 0x61, 0x5e, 0xca];
        assert!(decode(right.into_iter()).is_some());
        for (at, with) in
            [(2, 0xe1), (2, 0x65), (2, 0x21), (1, 0x62), (1, 0xc2), (4, 0x0a), (0, 0xc5)]
        {
            let mut bytes = right;
            bytes[at] = with;
            assert_eq!(decode(bytes.into_iter()), None, "{bytes:x?}");
        }
    }

    #[test]
    fn addresses_are_sums_of_registers() {
        let register = |number: u8| 1000 * u64::from(number) + 7;
        let both = at(Base::Register(3), Some((12, 2)), -9);
        assert_eq!(both.resolve(register, 1), (2998, 12_007 * 4));
        assert_eq!(at(Base::Next, None, 5).resolve(register, 1), (6, 0));
        assert_eq!(at(Base::Nothing, None, 5).resolve(register, 1), (5, 0));
    }
}
