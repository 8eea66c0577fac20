//! Eight tiles, and what instructions do to them (palette 1 of Intel's Software Developer's Manual,
//! volume 2, whose pseudo code this follows).

use std::arch::asm;
use std::arch::x86_64::*;
use std::fmt;

use super::decode::Product;

/// Rows of a tile, and its four-byte elements in a row.
pub(super) const LINES: usize = 16;
const ROW_BYTES: u16 = 64;
const COUNT: usize = 8;

/// Rows of a tile; what the configuration leaves out is zero.
pub(super) type Tile = [Row; LINES];

/// A row of four-byte elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Row(pub [u32; LINES]);

const ZERO: Tile = [Row([0; LINES]); LINES];

/// Rows of a tile, and bytes of a row, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub rows: u8,
    pub row_bytes: u16,
}

const NO_ROWS: Shape = Shape { rows: 0, row_bytes: 0 };

/// All tiles of a thread.
pub(super) struct Tiles {
    configured: bool,
    start_row: u8,
    shapes: [Shape; COUNT],
    tiles: [Tile; COUNT],
}

/// Why a processor would refuse an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotConfigured,
    NoTile(u8),
    Elements(u8),
    StartRow(u8, Shape),
    SameTiles,
    Shapes([Shape; 3]),
    Palette(u8),
    Reserved(usize),
    TooLarge(usize, Shape),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotConfigured => f.write_str("tiles are not configured"),
            Refusal::NoTile(tile) => write!(f, "the configuration leaves out tmm{tile}"),
            Refusal::Elements(tile) => {
                write!(f, "rows of tmm{tile} are not whole elements of 4 bytes")
            }
            Refusal::StartRow(start, shape) => write!(f, "start row {start} of {shape}"),
            Refusal::SameTiles => f.write_str("two operands are the same tile"),
            Refusal::Shapes([sums, a, b]) => {
                write!(f, "the tiles do not fit: sums of {sums}, from {a} by {b}")
            }
            Refusal::Palette(palette) => write!(f, "there is no palette {palette}"),
            Refusal::Reserved(byte) => write!(f, "byte {byte} of the configuration is not zero"),
            Refusal::TooLarge(tile, shape) => write!(f, "tmm{tile} cannot have {shape}"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows of {} bytes", self.rows, self.row_bytes)
    }
}

impl Tiles {
    /// Tiles that nobody configured.
    pub const fn new() -> Self {
        let shapes = [NO_ROWS; COUNT];
        Tiles { configured: false, start_row: 0, shapes, tiles: [ZERO; COUNT] }
    }

    /// `tilerelease`
    pub fn release(&mut self) {
        *self = Tiles::new();
    }

    /// `ldtilecfg`
    pub fn configure(&mut self, bytes: &[u8; 64]) -> Result<(), Refusal> {
        match bytes[0] {
            0 => {
                self.release();
                return Ok(());
            }
            1 => {}
            palette => return Err(Refusal::Palette(palette)),
        }
        let reserved = [2..16, 32..48, 56..64].into_iter().flatten();
        if let Some(byte) = reserved.into_iter().find(|&byte| bytes[byte] != 0) {
            return Err(Refusal::Reserved(byte));
        }
        let mut shapes = [NO_ROWS; COUNT];
        for (tile, shape) in shapes.iter_mut().enumerate() {
            let row_bytes = u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]);
            *shape = Shape { rows: bytes[48 + tile], row_bytes };
            let half = (shape.rows == 0) != (row_bytes == 0);
            if half || row_bytes > ROW_BYTES || usize::from(shape.rows) > LINES {
                return Err(Refusal::TooLarge(tile, *shape));
            }
        }
        *self = Tiles { configured: true, start_row: bytes[1], shapes, tiles: [ZERO; COUNT] };
        Ok(())
    }

    /// The shape of a tile of the configuration.
    fn shape(&self, tile: u8) -> Result<Shape, Refusal> {
        match self.shapes[usize::from(tile)] {
            _ if !self.configured => Err(Refusal::NotConfigured),
            NO_ROWS => Err(Refusal::NoTile(tile)),
            shape => Ok(shape),
        }
    }

    /// The shape of a tile of whole elements.
    fn elements(&self, tile: u8) -> Result<Shape, Refusal> {
        let whole = |shape: Shape| match shape.row_bytes.is_multiple_of(4) {
            true => Ok(shape),
            false => Err(Refusal::Elements(tile)),
        };
        self.shape(tile).and_then(whole)
    }

    /// The rows that a load or a store moves, and the bytes of each.
    fn moved(&mut self, tile: u8) -> Result<(std::ops::Range<usize>, usize), Refusal> {
        let shape = self.elements(tile)?;
        let start = std::mem::take(&mut self.start_row);
        match start < shape.rows {
            true => Ok((start.into()..shape.rows.into(), shape.row_bytes.into())),
            false => Err(Refusal::StartRow(start, shape)),
        }
    }

    /// `tilezero`
    pub fn zero(&mut self, tile: u8) -> Result<(), Refusal> {
        self.shape(tile)?;
        self.start_row = 0;
        self.tiles[usize::from(tile)] = ZERO;
        Ok(())
    }

    /// `tileloadd`: rows lie `stride` bytes apart.
    ///
    /// # Safety
    /// The rows of the configuration are readable.
    pub unsafe fn load(&mut self, tile: u8, from: u64, stride: u64) -> Result<(), Refusal> {
        let (rows, row_bytes) = self.moved(tile)?;
        let to = &mut self.tiles[usize::from(tile)];
        to[rows.start..].fill(Row([0; LINES]));
        for row in rows {
            let address = from.wrapping_add(stride.wrapping_mul(row as u64)) as usize;
            let from = std::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the caller's promise; a row has 64 bytes.
            unsafe { from.copy_to_nonoverlapping(to[row].0.as_mut_ptr().cast(), row_bytes) };
        }
        Ok(())
    }

    /// `tilestored`: rows lie `stride` bytes apart.
    ///
    /// # Safety
    /// The rows of the configuration are writable.
    pub unsafe fn store(&mut self, tile: u8, to: u64, stride: u64) -> Result<(), Refusal> {
        let (rows, row_bytes) = self.moved(tile)?;
        for row in rows {
            let address = to.wrapping_add(stride.wrapping_mul(row as u64)) as usize;
            let to = std::ptr::with_exposed_provenance_mut::<u8>(address);
            let from = self.tiles[usize::from(tile)][row].0.as_ptr().cast::<u8>();
            // SAFETY: the caller's promise; a row has 64 bytes.
            unsafe { from.copy_to_nonoverlapping(to, row_bytes) };
        }
        Ok(())
    }

    /// `tdpbusd` and `tdpbf16ps`
    ///
    /// # Safety
    /// The processor has AVX-512 with VNNI.
    pub unsafe fn multiply(&mut self, product: Product, tiles: [u8; 3]) -> Result<(), Refusal> {
        let [c, a, b] = tiles;
        if c == a || c == b || a == b {
            return Err(Refusal::SameTiles);
        }
        let shapes = [self.elements(c)?, self.elements(a)?, self.elements(b)?];
        let [sums, left, right] = shapes;
        let fits = sums.rows == left.rows
            && sums.row_bytes == right.row_bytes
            && left.row_bytes / 4 == u16::from(right.rows);
        if !fits {
            return Err(Refusal::Shapes(shapes));
        }
        self.start_row = 0;
        let own = [c, a, b].map(usize::from);
        let [to, a, b] = self.tiles.get_disjoint_mut(own).expect("different tiles below 8");
        let (rows, depth) = (usize::from(sums.rows), usize::from(right.rows));
        // SAFETY: the caller's promise.
        unsafe {
            match product {
                Product::Bytes => multiply_bytes(&mut to[..rows], a, &b[..depth]),
                Product::Halves => multiply_halves_exactly(&mut to[..rows], a, &b[..depth]),
            }
        }
        // Zeros of B by what is infinite may have made something of columns that are not there.
        let columns = usize::from(sums.row_bytes / 4);
        to[..rows].iter_mut().for_each(|row| row.0[columns..].fill(0));
        Ok(())
    }
}

/// Adds `a` by `b`, four bytes of each at a time, modulo 2^32.
#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply_bytes(sums: &mut [Row], a: &Tile, b: &[Row]) {
    for (sums, a) in sums.iter_mut().zip(a) {
        let mut sum = load(sums);
        for (b, &four) in b.iter().zip(&a.0) {
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi32(four as i32), load(b));
        }
        store(sums, sum);
    }
}

/// Adds `a` by `b` as the processor's tiles do, which look at no rounding mode: to nearest, what is
/// denormal is zero before and after each operation.
#[target_feature(enable = "avx512f")]
fn multiply_halves_exactly(sums: &mut [Row], a: &Tile, b: &[Row]) {
    const NEAREST_ZERO_DENORMALS_SILENT: u32 = 0x9fc0;
    let mut before = 0u32;
    // SAFETY: the mode is that of before again behind the call, which is not moved out of between:
    // it is not inlined, and works on memory.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack));
        asm!("ldmxcsr [{}]", in(reg) &NEAREST_ZERO_DENORMALS_SILENT, options(nostack));
        multiply_halves(sums, a, b);
        asm!("ldmxcsr [{}]", in(reg) &before, options(nostack));
    }
}

/// Even and odd products of a row in sums of their own, which are added to each other, and then to what
/// was there.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn multiply_halves(sums: &mut [Row], a: &Tile, b: &[Row]) {
    let even = |pairs: __m512i| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let odd = |pairs: __m512i| _mm512_castsi512_ps(_mm512_and_si512(pairs, upper));
    for (sums, a) in sums.iter_mut().zip(a) {
        let mut products = [_mm512_setzero_ps(); 2];
        for (b, &pair) in b.iter().zip(&a.0) {
            let (a, b) = (_mm512_set1_epi32(pair as i32), load(b));
            products[0] = _mm512_fmadd_ps(even(a), even(b), products[0]);
            products[1] = _mm512_fmadd_ps(odd(a), odd(b), products[1]);
        }
        let both = _mm512_add_ps(products[0], products[1]);
        store(sums, _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(load(sums)), both)));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(row: &Row) -> __m512i {
    // SAFETY: a row is 64 bytes, and aligned.
    unsafe { _mm512_load_si512(row.0.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(row: &mut Row, value: __m512i) {
    // SAFETY: as above.
    unsafe { _mm512_store_si512(row.0.as_mut_ptr().cast(), value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration of rows and bytes of a row, tile by tile.
    fn configuration(shapes: &[(u8, u16)]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for (tile, (rows, row_bytes)) in shapes.iter().enumerate() {
            bytes[16 + 2 * tile..][..2].copy_from_slice(&row_bytes.to_le_bytes());
            bytes[48 + tile] = *rows;
        }
        bytes
    }

    fn configured(shapes: &[(u8, u16)]) -> Tiles {
        let mut tiles = Tiles::new();
        assert_eq!(tiles.configure(&configuration(shapes)), Ok(()));
        tiles
    }

    #[test]
    fn configurations_are_held_to_the_rules() {
        let refused = |change: &dyn Fn(&mut [u8; 64])| {
            let mut bytes = configuration(&[(16, 64), (1, 4)]);
            change(&mut bytes);
            Tiles::new().configure(&bytes).expect_err("a processor refuses it")
        };
        assert_eq!(refused(&|bytes| bytes[0] = 2), Refusal::Palette(2));
        for byte in [2, 15, 32, 47, 56, 63] {
            assert_eq!(refused(&|bytes| bytes[byte] = 1), Refusal::Reserved(byte));
        }
        let shape = |rows, row_bytes| Shape { rows, row_bytes };
        assert_eq!(refused(&|bytes| bytes[48] = 17), Refusal::TooLarge(0, shape(17, 64)));
        assert_eq!(refused(&|bytes| bytes[18] = 65), Refusal::TooLarge(1, shape(1, 65)));
        assert_eq!(refused(&|bytes| bytes[19] = 1), Refusal::TooLarge(1, shape(1, 260)));
        assert_eq!(refused(&|bytes| bytes[49] = 0), Refusal::TooLarge(1, shape(0, 4)));
        assert_eq!(refused(&|bytes| bytes[30] = 4), Refusal::TooLarge(7, shape(0, 4)));
    }

    #[test]
    fn tiles_are_there_between_configuration_and_release() {
        let mut tiles = Tiles::new();
        assert_eq!(tiles.zero(0), Err(Refusal::NotConfigured));
        assert_eq!(tiles.configure(&configuration(&[(16, 64)])), Ok(()));
        assert_eq!((tiles.zero(0), tiles.zero(1)), (Ok(()), Err(Refusal::NoTile(1))));
        tiles.release();
        assert_eq!(tiles.zero(0), Err(Refusal::NotConfigured));
        assert_eq!(tiles.configure(&configuration(&[(16, 64)])), Ok(()));
        assert_eq!(tiles.configure(&[0; 64]), Ok(()));
        assert_eq!(tiles.zero(0), Err(Refusal::NotConfigured));
    }

    #[test]
    fn operands_have_to_fit() {
        let multiply = |shapes: [(u8, u16); 3], tiles| {
            // SAFETY: refused before anything is multiplied.
            unsafe { configured(&shapes).multiply(Product::Bytes, tiles) }
        };
        let fit = [(3, 8), (3, 20), (5, 8)];
        for tiles in [[0, 0, 2], [0, 1, 0], [0, 1, 1]] {
            assert_eq!(multiply(fit, tiles), Err(Refusal::SameTiles));
        }
        assert_eq!(multiply(fit, [0, 1, 3]), Err(Refusal::NoTile(3)));
        assert_eq!(multiply([(3, 8), (3, 22), (5, 8)], [0, 1, 2]), Err(Refusal::Elements(1)));
        for other in
            [[(4, 8), (3, 20), (5, 8)], [(3, 12), (3, 20), (5, 8)], [(3, 8), (3, 24), (5, 8)]]
        {
            let refused = multiply(other, [0, 1, 2]);
            assert!(matches!(refused, Err(Refusal::Shapes(_))), "{refused:?}");
        }
    }

    #[test]
    fn a_load_begins_at_the_start_row_and_leaves_zeros_around_it() {
        let memory: [u32; 64] = std::array::from_fn(|i| i as u32 + 1);
        let from = memory.as_ptr().expose_provenance() as u64;
        let mut tiles = configured(&[(4, 12)]);
        tiles.tiles[0] = [Row([77; LINES]); LINES];
        tiles.start_row = 2;
        // SAFETY: four rows of 12 bytes, 40 bytes apart, are in memory.
        assert_eq!(unsafe { tiles.load(0, from, 40) }, Ok(()));
        let mut want = ZERO;
        want[..2].fill(Row([77; LINES]));
        want[2].0[..3].copy_from_slice(&[21, 22, 23]);
        want[3].0[..3].copy_from_slice(&[31, 32, 33]);
        assert_eq!((tiles.tiles[0], tiles.start_row), (want, 0));
        // SAFETY: as above.
        assert_eq!(unsafe { tiles.load(0, from, 40) }, Ok(()));
        assert_eq!(tiles.tiles[0][0].0[..4], [1, 2, 3, 0]);
        tiles.start_row = 4;
        let of_four = Shape { rows: 4, row_bytes: 12 };
        // SAFETY: refused before anything is read.
        assert_eq!(unsafe { tiles.load(0, from, 40) }, Err(Refusal::StartRow(4, of_four)));
    }

    #[test]
    fn a_store_writes_rows_of_the_configuration_alone() {
        let mut memory = [9_u32; 64];
        let to = memory.as_mut_ptr().expose_provenance() as u64;
        let mut tiles = configured(&[(3, 8)]);
        tiles.tiles[0] = [Row([77; LINES]); LINES];
        tiles.start_row = 1;
        let last = to + 2 * 32;
        // SAFETY: three rows of 8 bytes, 32 bytes apart from the last to the first, are in memory.
        assert_eq!(unsafe { tiles.store(0, last, 32_u64.wrapping_neg()) }, Ok(()));
        let want: [u32; 64] = std::array::from_fn(|i| match i {
            0 | 1 | 8 | 9 => 77,
            _ => 9,
        });
        assert_eq!(memory, want);
    }
}
