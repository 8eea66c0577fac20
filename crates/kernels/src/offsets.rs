//! Where the taps of a window lie in an image: told one by one, or listed once a kernel asks for many.

use std::sync::OnceLock;

use crate::conv::{GeometryError, Window};

/// Marks a tap that reads the padding row.
pub(crate) const PADDING: i32 = i32::MIN;

/// Bytes copied for a line of taps at most.
pub(crate) const LINE_BYTES: usize = 32;

/// The taps of a window over an image whose pixels are evenly apart.
#[derive(Clone, Debug)]
pub(crate) struct Offsets {
    window: Window,
    /// Output pixels, down and across.
    pub output: [usize; 2],
    /// Elements between pixels.
    pixel_stride: usize,
    /// Lines of the image there is room for: each lies where the one so many before it lay.
    kept: usize,
    table: OnceLock<Vec<i32>>,
    runs: OnceLock<Option<Runs>>,
}

/// The lines of taps that may be copied as one run of [`LINE_BYTES`] or half of that.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    /// Taps in a line of the kernel.
    pub taps: usize,
    /// Elements between pixels.
    pub pixel_stride: usize,
    /// `[line][row]`: no tap is in the padding, and the image does not end before the run.
    pub whole: Vec<bool>,
}

impl Offsets {
    /// Of images of which `kept` lines are there at a time; all of them where those are enough.
    ///
    /// # Errors
    /// If the window has no output, or what is kept of an image is too large.
    pub fn of(window: &Window, pixel_stride: usize, kept: usize) -> Result<Self, GeometryError> {
        let output = window.output().ok_or(GeometryError::NoOutput { window: *window })?;
        let elements = kept.min(window.input[0]) * window.input[1] * pixel_stride;
        if i32::try_from(elements).is_err() {
            return Err(GeometryError::ImageTooLarge { elements });
        }
        let (table, runs) = Default::default();
        Ok(Offsets { window: *window, output, pixel_stride, kept, table, runs })
    }

    /// Output pixels of an image.
    pub fn rows(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements from the image's first to where a line of taps meets a line of output.
    pub fn line(&self, output: usize, taps: usize) -> Option<usize> {
        let line = self.window.source(0, output, taps)?;
        Some(line % self.kept * self.window.input[1] * self.pixel_stride)
    }

    /// Elements from the image's first to a tap of an output pixel; `None` in the padding.
    #[cfg(test)]
    fn get(&self, row: usize, tap: usize) -> Option<usize> {
        let ([_, width], [_, taps]) = (self.output, self.window.kernel);
        let line = self.line(row / width, tap / taps)?;
        Some(line + self.window.source(1, row % width, tap % taps)? * self.pixel_stride)
    }

    /// All of them, `[tap][row]`.
    pub fn table(&self) -> &[i32] {
        self.table.get_or_init(|| self.list())
    }

    fn list(&self) -> Vec<i32> {
        let ([height, width], [_, taps]) = (self.output, self.window.kernel);
        let mut table = Vec::with_capacity(self.window.taps() * self.rows());
        for tap in 0..self.window.taps() {
            let place = |x| self.window.source(1, x, tap % taps);
            let place = |x| place(x).map_or(PADDING, |x| (x * self.pixel_stride) as i32);
            let across: Vec<i32> = (0..width).map(place).collect();
            for y in 0..height {
                let Some(line) = self.line(y, tap / taps) else {
                    table.resize(table.len() + width, PADDING);
                    continue;
                };
                let moved = |&x: &i32| if x == PADDING { x } else { x + line as i32 };
                table.extend(across.iter().map(moved));
            }
        }
        table
    }

    /// `None` where taps are not neighbours or a line of them is too long.
    pub fn runs(&self) -> Option<&Runs> {
        self.runs.get_or_init(|| self.find_runs()).as_ref()
    }

    fn find_runs(&self) -> Option<Runs> {
        let [height, taps] = self.window.kernel;
        if self.window.dilation[1] != 1 || taps * self.pixel_stride > LINE_BYTES {
            return None;
        }
        let image = self.window.input[0] * self.window.input[1] * self.pixel_stride;
        let (table, count) = (self.table(), self.rows());
        let whole = |i: usize| {
            let (line, row) = (i / count, i % count);
            let at = |tap: usize| table[(line * taps + tap) * count + row];
            let inside = (0..taps).all(|tap| at(tap) != PADDING);
            inside && at(0) as usize + LINE_BYTES <= image
        };
        let whole = (0..height * count).map(whole).collect();
        Some(Runs { taps, pixel_stride: self.pixel_stride, whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_what_is_told_one_by_one() {
        let window = Window {
            input: [5, 4],
            kernel: [3, 2],
            stride: [1, 2],
            dilation: [1, 2],
            pad_before: [1, 1],
            pad_after: [1, 1],
        };
        for kept in [3, 5, usize::MAX] {
            let offsets = Offsets::of(&window, 7, kept).unwrap();
            let places = (0..6).flat_map(|tap| (0..offsets.rows()).map(move |row| (row, tap)));
            let told = places.map(|(row, tap)| offsets.get(row, tap));
            let told: Vec<i32> = told.map(|at| at.map_or(PADDING, |at| at as i32)).collect();
            assert_eq!(offsets.table(), told);
        }
    }

    #[test]
    fn impossible_windows_are_errors() {
        let window = Window {
            input: [2, 2],
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pad_before: [0, 0],
            pad_after: [0, 0],
        };
        let refused =
            |window: Window, stride| Offsets::of(&window, stride, usize::MAX).unwrap_err();
        assert!(matches!(refused(window, 1), GeometryError::NoOutput { .. }));
        assert!(matches!(
            refused(Window { stride: [0, 1], ..window }, 1),
            GeometryError::NoOutput { .. }
        ));
        let one = Window { kernel: [1, 1], ..window };
        assert_eq!(refused(one, 1 << 29), GeometryError::ImageTooLarge { elements: 1 << 31 });
    }
}
