//! Every kernel on every instruction set of this machine, on one thread and two, against the
//! portable one, and that against its definition. `PROPTEST_CASES` says how many cases a row has.

mod accuracy;
mod attention;
mod bytes;
mod complete;
mod data;
mod elements;
mod frame;
mod geometry;
mod guard;
mod images;
mod layers;
mod lines;
mod matrices;
mod plain;
mod pools;
mod products;

use frame::{Row, drive};

/// Makes the list of all kernels and a test for each family.
macro_rules! families {
    ($($test:ident: $family:ident,)+) => {
        /// All kernels, by family.
        const FAMILIES: &[&[Row]] = &[$($family::ROWS),+];
        $(
            #[test]
            fn $test() {
                drive($family::ROWS);
            }
        )+
    };
}

// Adding a kernel is a row in the list of its family.
families! {
    products_and_convolutions: products,
    products_and_convolutions_of_bytes: bytes,
    matrices_of_other_forms: matrices,
    heads_of_attention: attention,
    functions_of_elements: elements,
    images_and_planes: images,
    kernels_over_lines: lines,
    pools_of_every_geometry: pools,
    recurrent_steps_trees_and_boxes: layers,
}
