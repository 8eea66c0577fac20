//! The transforms of one line of a tile: weights and inputs to their values at the points, products
//! back to outputs. `N` inputs: 4 for tiles of two outputs, 6 for tiles of four.

use crate::vector::Vector;

/// a, the smaller of the two points of the larger tile; the other is 2a, and a² = ½.
const POINT: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// The transform of a line of weights: their polynomial at each point over the product of the
/// distances to the other points, and its highest coefficient.
#[inline(always)]
pub(super) fn weight_line<V: Vector, const N: usize>(x: [V; 3]) -> [V; N] {
    let mut y = [x[0]; N];
    let mut pair = |first: usize, point: f32, over: f32| {
        let even = (x[2] * V::splat(point * point) + x[0]) * V::splat(over);
        let odd = x[1] * V::splat(point * over);
        y[first] = even + odd;
        y[first + 1] = even - odd;
    };
    if N == 4 {
        pair(1, 1.0, 0.5);
    } else {
        pair(1, POINT, -2.0 / 3.0);
        pair(3, 2.0 * POINT, 1.0 / 6.0);
    }
    y[N - 1] = x[2];
    y
}

/// The transform of a line of inputs.
#[inline(always)]
pub(super) fn input_line<V: Vector, const N: usize>(x: [V; N]) -> [V; N] {
    let mut y = x;
    if N == 4 {
        y[0] = x[0] - x[2];
        y[1] = x[1] + x[2];
        y[2] = x[2] - x[1];
        y[3] = x[1] - x[3];
    } else {
        let minus = |factor: f32| V::splat(-factor);
        y[0] = x[2].mul_add(minus(2.5), x[0] + x[4]);
        let (even, odd) = (x[2].mul_add(minus(2.0), x[4]), x[1].mul_add(minus(2.0), x[3]));
        let odd = odd * V::splat(POINT);
        y[1] = even + odd;
        y[2] = even - odd;
        let (even, odd) = (x[2].mul_add(minus(0.5), x[4]), x[1].mul_add(minus(0.5), x[3]));
        let odd = odd * V::splat(2.0 * POINT);
        y[3] = even + odd;
        y[4] = even - odd;
        y[5] = x[3].mul_add(minus(2.5), x[1] + x[5]);
    }
    y
}

/// The transform of a line of products.
#[inline(always)]
pub(super) fn output_line<V: Vector, const N: usize, const OUT: usize>(x: [V; N]) -> [V; OUT] {
    let mut y = [x[0]; OUT];
    if N == 4 {
        y[0] = x[0] + x[1] + x[2];
        y[1] = x[1] - x[2] - x[3];
    } else {
        let (near, near_odd) = (x[1] + x[2], x[1] - x[2]);
        let (far, far_odd) = (x[3] + x[4], x[3] - x[4]);
        let odd = far_odd.mul_add(V::splat(2.0), near_odd);
        y[0] = x[0] + near + far;
        y[1] = odd * V::splat(POINT);
        y[2] = far.mul_add(V::splat(2.0), near * V::splat(0.5));
        // a³ = a / 2, and of the other point 8 times that.
        let odd = far_odd.mul_add(V::splat(8.0), near_odd);
        y[3] = odd.mul_add(V::splat(0.5 * POINT), x[5]);
    }
    y
}
