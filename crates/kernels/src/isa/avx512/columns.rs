//! The tables of the depthwise kernels that read columns of pixels: one for each size of kernel, step,
//! number of lines and of pixels.

/// The function `neighbours` of the module for one geometry, by pixels.
macro_rules! by_pixels {
    ($taps:literal, $step:literal, $lines:literal, $parts:literal: $($pixels:literal)*) => {
        [$(neighbours::<$taps, $step, $lines, $parts, $pixels>),*]
    };
}

macro_rules! micro {
    ($sum:ty, $kernels:ident) => {{
        /// # Safety
        /// As `neighbours`; at most as many pixels and lines as there are kernels.
        unsafe fn tile(pixels: usize, lines: usize, tile: &ColumnTile<$sum>) {
            // SAFETY: the caller's promise.
            unsafe { $kernels[lines - 1][pixels - 1](tile) }
        }
        MicroColumns { pixels: $kernels[0].len(), tile }
    }};
}

/// The tables and `micro`, which chooses among them. A column of pixels is read in `$three` parts for
/// kernels of three taps, in `$five` for those of five; for steps of two columns tiles are of `$by_two`
/// pixels.
macro_rules! by_size {
    ($sum:ty, $three:literal, $five:literal, $($by_two:literal)*) => {
        type Kernel = unsafe fn(&ColumnTile<$sum>);

        static THREE: [[Kernel; 8]; 2] = [
            by_pixels!(3, 1, 1, $three: 1 2 3 4 5 6 7 8),
            by_pixels!(3, 1, 2, $three: 1 2 3 4 5 6 7 8),
        ];
        static FIVE: [[Kernel; 8]; 2] = [
            by_pixels!(5, 1, 1, $five: 1 2 3 4 5 6 7 8),
            by_pixels!(5, 1, 2, $five: 1 2 3 4 5 6 7 8),
        ];
        const BY_TWO: usize = [$($by_two),*].len();
        static THREE_BY_TWO: [[Kernel; BY_TWO]; 1] = [by_pixels!(3, 2, 1, $three: $($by_two)*)];
        static FIVE_BY_TWO: [[Kernel; BY_TWO]; 1] = [by_pixels!(5, 2, 1, $five: $($by_two)*)];

        /// The kernels for `taps` by `taps` taps and pixels `step` columns apart.
        pub(crate) fn micro(taps: usize, step: usize) -> Option<MicroColumns<$sum>> {
            Some(match (taps, step) {
                (3, 1) => micro!($sum, THREE),
                (3, 2) => micro!($sum, THREE_BY_TWO),
                (5, 1) => micro!($sum, FIVE),
                (5, 2) => micro!($sum, FIVE_BY_TWO),
                _ => return None,
            })
        }
    };
}

pub(super) use {by_pixels, by_size, micro};
