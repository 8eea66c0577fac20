//! Walks down decision trees in plain Rust.

use crate::trees::{EQUAL, FLAGS, Forest, Lanes, MEMBER, MISSING};

/// Takes each walk to its leaf.
pub(crate) fn walk(forest: &Forest, x: &[f32], lanes: &mut Lanes) {
    let shift = forest.feature_bits + FLAGS;
    let features = (1u32 << forest.feature_bits) - 1;
    let count = lanes.count;
    for (at, &row) in lanes.at[..count].iter_mut().zip(&lanes.rows) {
        let mut place = *at as usize;
        *at = loop {
            let node = forest.nodes[place];
            let (split, link) = (node as u32, (node >> 32) as u32);
            if link == 0 {
                break split;
            }
            let value = x[row as usize + (link >> FLAGS & features) as usize];
            let holds = match link & (EQUAL | MEMBER) {
                0 => value <= f32::from_bits(split),
                EQUAL => value == f32::from_bits(split),
                _ => forest.sets[split as usize].contains(&f64::from(value)),
            };
            let missing = value.is_nan() && link & MISSING != 0;
            place += (link >> shift) as usize + usize::from(!(holds || missing));
        };
    }
}
