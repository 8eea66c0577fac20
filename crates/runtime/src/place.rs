//! Where an operand lies, and how a step finds it during a run.

use lepton_kernels::Isa;

use crate::watch::Watch;
use crate::workers::Workers;

/// Which block of memory an operand lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// The arena of the run.
    Arena,
    /// A constant that the plan keeps alive; the offset is its address.
    Constant,
    /// A tensor of the caller.
    Input(u16),
    /// A tensor the run returns.
    Output(u16),
}

/// The first byte of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub base: Base,
    pub offset: usize,
}

/// The memory of one run, and who works on it.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'a> {
    pub isa: Isa,
    pub threads: Workers<'a>,
    /// Asked by any thread between pieces of a step; steps that run others hand it on.
    pub watch: &'a Watch<'a>,
    pub arena: *mut u8,
    pub inputs: &'a [*const u8],
    pub outputs: &'a [*mut u8],
}

// SAFETY: the pointers are only turned into slices by steps, which the plan keeps from
// overlapping: tasks of one step write disjoint parts. Everything else is `Sync`, as the constant
// below checks of the watch.
unsafe impl Sync for Memory<'_> {}

const _: () = {
    const fn shared<T: Sync>() {}
    shared::<Watch<'static>>();
};

impl Memory<'_> {
    /// The address of a place, for reading.
    pub fn read<T>(&self, place: Place) -> *const T {
        let address = match place.base {
            Base::Arena => self.arena.cast_const(),
            Base::Constant => return std::ptr::with_exposed_provenance(place.offset),
            Base::Input(index) => self.inputs[index as usize],
            Base::Output(index) => self.outputs[index as usize].cast_const(),
        };
        address.wrapping_add(place.offset).cast()
    }

    /// The address of a place, for writing; never a constant or an input.
    pub fn write<T>(&self, place: Place) -> *mut T {
        let address = match place.base {
            Base::Arena => self.arena,
            Base::Output(index) => self.outputs[index as usize],
            Base::Constant | Base::Input(_) => unreachable!("the plan writes only its own memory"),
        };
        address.wrapping_add(place.offset).cast()
    }

    /// `count` elements at a place.
    ///
    /// # Safety
    /// The plan put at least `count` elements of `T` there and nobody writes them meanwhile.
    pub unsafe fn slice<T>(&self, place: Place, count: usize) -> &[T] {
        if count == 0 {
            return &[];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.read(place), count) }
    }

    /// `count` elements from element `start` of a place, for writing.
    ///
    /// # Safety
    /// The plan put at least `start + count` elements of `T` there and nobody else touches the
    /// range meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut<T>(&self, place: Place, start: usize, count: usize) -> &mut [T] {
        if count == 0 {
            return &mut [];
        }
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.write::<T>(place).add(start), count) }
    }
}
