//! The cases of all passes.

/// Name of the pass, graph before, graph after; both without the frame.
pub const CASES: &[(&str, &str, &str)] = &[
    (
        "fold-constants",
        "input %x: f32[n,4] const %a: f32[2] = [1, 2] const %b: f32[2] = [3, -4]
         %s: f32[2] = Binary(%a, %b)
         %d: i64[2] = Shape(%x)
         %r: f32[n,4] = Reshape(%x, %d)
         output %s, %r",
        "input %x: f32[n,4] const %a: f32[2] = [1, 2] const %b: f32[2] = [3, -4]
         %s: f32[2] = Binary(%a, %b)
         %d: i64[2] = Shape(%x)
         %r: f32[n,4] = Reshape(%x, %d)
         output %s, %r",
    ),
    (
        "fold-constants",
        "input %x: f32[3,2] const %a: f32[2] = [1, 2] const %b: f32[2] = [3, -4]
         %s: f32[2] = Binary(%a, %b)
         %y: f32[3,2] = Binary(%x, %s)
         output %y",
        "input %x: f32[3,2] const %s: f32[2] = [4, -2]
         %y: f32[3,2] = Binary(%x, %s)
         output %y",
    ),
    (
        "copy-extents",
        "input %x: f32[n,s,4] input %y: f32[s,n,4]
         const %0: i64[1] = [0] const %1: i64[1] = [1] const %r: i64[1] = [-1] const %2: i64[1] = [2]
         %d: i64[3] = Shape(%x)
         %n: i64[1] = Gather(%d, %0)
         %s: i64[1] = Gather(%d, %1)
         %t: i64[4] = Concat(%n, %s, %r, %2)
         %a: f32[n,s,2,2] = Reshape(%x, %t)
         %b: f32[n,s,2,2] = Reshape(%y, %t)
         output %a, %b",
        "input %x: f32[n,s,4] input %y: f32[s,n,4]
         const %0: i64[1] = [0] const %1: i64[1] = [1] const %r: i64[1] = [-1] const %2: i64[1] = [2]
         %d: i64[3] = Shape(%x)
         %n: i64[1] = Gather(%d, %0)
         %s: i64[1] = Gather(%d, %1)
         %t: i64[4] = Concat(%n, %s, %r, %2)
         const %c: i64[4] = [0, 0, -1, 2]
         %a: f32[n,s,2,2] = Reshape(%x, %c)
         %b: f32[n,s,2,2] = Reshape(%y, %t)
         output %a, %b",
    ),
    (
        "enclose-bodies",
        "input %x: f32[2,3] const %w: f32[3,3] = [1, 2, 0, 0, 1, 0, 0, 0.5, 1] const %n: i64[] = [3]
         %y: f32[2,3], %z: f32[3,3], %s: f32[3,2,3] = Loop(%n, _, %x, %w) {body=graph \"b\" {
             input %i: i64[] input %c: bool[] input %h: f32[2,3] input %k: f32[3,3]
             %m: f32[2,3] = MatMul(%h, %k)
             output %c, %m, %k, %m
         }, states=2}
         %v: f32[3,3] = Unary(%z) {function=\"neg\"}
         output %y, %s, %v",
        "input %x: f32[2,3] const %w: f32[3,3] = [1, 2, 0, 0, 1, 0, 0, 0.5, 1] const %n: i64[] = [3]
         %v: f32[3,3] = Unary(%w) {function=\"neg\"}
         %y: f32[2,3], %s: f32[3,2,3] = Loop(%n, _, %x) {body=graph \"b\" {
             input %i: i64[] input %c: bool[] input %h: f32[2,3]
             const %k: f32[3,3] = [1, 2, 0, 0, 1, 0, 0, 0.5, 1] %m: f32[2,3] = MatMul(%h, %k)
             output %c, %m, %m
         }, states=1}
         output %y, %s, %v",
    ),
    (
        "attention",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         input %m: f32[1,1,1,5] const %s: f32[] = [0.5]
         %a: f32[1,2,3,4] = Transpose(%q) {permutation=[0, 2, 1, 3]}
         %b: f32[1,2,4,5] = Transpose(%k) {permutation=[0, 2, 3, 1]}
         %c: f32[1,2,5,4] = Transpose(%v) {permutation=[0, 2, 1, 3]}
         %p: f32[1,2,3,5] = MatMul(%a, %b)
         %d: f32[1,2,3,5] = Binary(%p, %s) {function=\"mul\"}
         %e: f32[1,2,3,5] = Binary(%d, %m)
         %w: f32[1,2,3,5] = Softmax(%e)
         %r: f32[1,2,3,4] = MatMul(%w, %c)
         %y: f32[1,3,2,4] = Transpose(%r) {permutation=[0, 2, 1, 3]}
         output %y",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         input %m: f32[1,1,1,5]
         %y: f32[1,3,2,4] = Attention(%q, %k, %v, %m) {scale=0.5}
         output %y",
    ),
    (
        "attention",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         const %s: f32[] = [2]
         %a: f32[1,2,3,4] = Transpose(%q) {permutation=[0, 2, 1, 3]}
         %t: f32[1,2,5,4] = Transpose(%k) {permutation=[0, 2, 1, 3]}
         %b: f32[1,2,4,5] = Transpose(%t) {permutation=[0, 1, 3, 2]}
         %c: f32[1,2,5,4] = Transpose(%v) {permutation=[0, 2, 1, 3]}
         %p: f32[1,2,3,5] = MatMul(%a, %b)
         %d: f32[1,2,3,5] = Binary(%p, %s) {function=\"div\"}
         %w: f32[1,2,3,5] = Softmax(%d) {axis=3}
         %r: f32[1,2,3,4] = MatMul(%w, %c)
         %y: f32[1,3,2,4] = Transpose(%r) {permutation=[0, 2, 1, 3]}
         output %y",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         %y: f32[1,3,2,4] = Attention(%q, %k, %v) {scale=0.5}
         output %y",
    ),
    (
        "attention",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         %a: f32[1,2,3,4] = Transpose(%q) {permutation=[0, 2, 1, 3]}
         %b: f32[1,2,4,5] = Transpose(%k) {permutation=[0, 2, 3, 1]}
         %c: f32[1,2,5,4] = Transpose(%v) {permutation=[0, 2, 1, 3]}
         %p: f32[1,2,3,5] = MatMul(%a, %b)
         %w: f32[1,2,3,5] = Softmax(%p)
         %r: f32[1,2,3,4] = MatMul(%w, %c)
         %y: f32[1,3,2,4] = Transpose(%r) {permutation=[0, 2, 1, 3]}
         output %y, %w",
        "input %q: f32[1,3,2,4] input %k: f32[1,5,2,4] input %v: f32[1,5,2,4]
         %a: f32[1,2,3,4] = Transpose(%q) {permutation=[0, 2, 1, 3]}
         %b: f32[1,2,4,5] = Transpose(%k) {permutation=[0, 2, 3, 1]}
         %c: f32[1,2,5,4] = Transpose(%v) {permutation=[0, 2, 1, 3]}
         %p: f32[1,2,3,5] = MatMul(%a, %b)
         %w: f32[1,2,3,5] = Softmax(%p)
         %r: f32[1,2,3,4] = MatMul(%w, %c)
         %y: f32[1,3,2,4] = Transpose(%r) {permutation=[0, 2, 1, 3]}
         output %y, %w",
    ),
    (
        "remove-identities",
        "input %x: f32[3,2] const %d: i64[2] = [3, 2]
         %i: f32[3,2] = Unary(%x) {function=\"identity\"}
         %r: f32[3,2] = Reshape(%i, %d)
         %t: f32[3,2] = Transpose(%r) {permutation=[0, 1]}
         %y: f32[3,2] = Unary(%t) {function=\"abs\"}
         output %y",
        "input %x: f32[3,2]
         %y: f32[3,2] = Unary(%x) {function=\"abs\"}
         output %y",
    ),
    (
        "remove-identities",
        "input %x: f32[3,1,2] const %d: i64[1] = [1]
         %q: f32[3,2] = Squeeze(%x, %d)
         %u: f32[3,1,2] = Unsqueeze(%q, %d)
         %y: f32[3,1,2] = Unary(%u) {function=\"abs\"}
         output %y",
        "input %x: f32[3,1,2]
         %y: f32[3,1,2] = Unary(%x) {function=\"abs\"}
         output %y",
    ),
    (
        "fold-batch-norm",
        "input %x: f32[1,1,2,2] const %w: f32[2,1,1,1] = [1, 2] const %b: f32[2] = [0.5, 1]
         const %g: f32[2] = [2, 4] const %h: f32[2] = [1, -1] const %m: f32[2] = [0.5, 3]
         const %v: f32[2] = [4, 16]
         %c: f32[1,2,2,2] = Conv(%x, %w, %b)
         %y: f32[1,2,2,2] = BatchNormalization(%c, %g, %h, %m, %v) {epsilon=0.0}
         output %y",
        "input %x: f32[1,1,2,2] const %w: f32[2,1,1,1] = [1, 2] const %b: f32[2] = [1, -3]
         %y: f32[1,2,2,2] = Conv(%x, %w, %b)
         output %y",
    ),
    (
        "spread-batch-norm",
        "input %x: f32[3,2,4] const %g: f32[2] = [2, 4] const %h: f32[2] = [1, -1]
         const %m: f32[2] = [0.5, 3] const %v: f32[2] = [4, 16]
         %y: f32[3,2,4] = BatchNormalization(%x, %g, %h, %m, %v) {epsilon=0.0}
         output %y",
        "input %x: f32[3,2,4] const %f: f32[2,1] = [1, 1] const %s: f32[2,1] = [0.5, -4]
         %p: f32[3,2,4] = Binary(%x, %f) {function=\"mul\"}
         %y: f32[3,2,4] = Binary(%p, %s)
         output %y",
    ),
    (
        "bounds",
        "input %x: f32[5] const %l: f32[] = [-0.5] const %h: f32[] = [1]
         %c: f32[5] = Clip(%x, %l, %h)
         %d: f32[5] = Clip(%x, _, %h)
         output %c, %d",
        "input %x: f32[5]
         %c: f32[5] = Unary(%x) {function=\"clip\", alpha=-0.5, beta=1.0}
         %d: f32[5] = Unary(%x) {function=\"clip\", alpha=-inf, beta=1.0}
         output %c, %d",
    ),
    (
        "gates",
        "input %x: f32[7] const %r: f32[] = [1.4142135] const %o: f32[] = [1] const %h: f32[] = [0.5]
         %a: f32[7] = Binary(%x, %r) {function=\"div\"}
         %e: f32[7] = Unary(%a) {function=\"erf\"}
         %g: f32[7] = Binary(%e, %o)
         %p: f32[7] = Binary(%x, %g) {function=\"mul\"}
         %y: f32[7] = Binary(%p, %h) {function=\"mul\"}
         output %y",
        "input %x: f32[7] %y: f32[7] = Unary(%x) {function=\"gelu\"} output %y",
    ),
    (
        "gates",
        "input %x: f32[7] const %k: f32[] = [0.044715] const %o: f32[] = [1]
         const %h: f32[] = [0.5] const %n: f32[] = [3] const %q: f32[] = [0.7978846]
         %c: f32[7] = Binary(%x, %n) {function=\"pow\"}
         %d: f32[7] = Binary(%k, %c) {function=\"mul\"}
         %s: f32[7] = Binary(%x, %d)
         %a: f32[7] = Binary(%s, %q) {function=\"mul\"}
         %e: f32[7] = Unary(%a) {function=\"tanh\"}
         %g: f32[7] = Binary(%o, %e)
         %p: f32[7] = Binary(%h, %x) {function=\"mul\"}
         %y: f32[7] = Binary(%p, %g) {function=\"mul\"}
         output %y",
        "input %x: f32[7] %y: f32[7] = Unary(%x) {function=\"gelu_tanh\"} output %y",
    ),
    (
        "gates",
        "input %x: f32[7]
         %s: f32[7] = Unary(%x) {function=\"sigmoid\"}
         %y: f32[7] = Binary(%s, %x) {function=\"mul\"}
         %t: f32[7] = Unary(%y) {function=\"hard_sigmoid\", alpha=0.16666667, beta=0.5}
         %z: f32[7] = Binary(%y, %t) {function=\"mul\"}
         output %z",
        "input %x: f32[7]
         %y: f32[7] = Unary(%x) {function=\"silu\", alpha=1.0}
         %z: f32[7] = Unary(%y) {function=\"hard_swish\"}
         output %z",
    ),
    (
        "layer-normalization",
        "input %x: f32[5,3] const %a: i64[1] = [-1] const %n: f32[] = [2]
         const %i: f32[] = [0.001] const %g: f32[3] = [1, 2, 3] const %b: f32[3] = [4, 5, 6]
         %m: f32[5,1] = Reduce(%x, %a) {function=\"mean\"}
         %d: f32[5,3] = Binary(%x, %m) {function=\"sub\"}
         %q: f32[5,3] = Binary(%d, %n) {function=\"pow\"}
         %v: f32[5,1] = Reduce(%q, %a) {function=\"mean\"}
         %e: f32[5,1] = Binary(%v, %i)
         %s: f32[5,1] = Unary(%e) {function=\"sqrt\"}
         %f: f32[5,3] = Binary(%d, %s) {function=\"div\"}
         %p: f32[5,3] = Binary(%f, %g) {function=\"mul\"}
         %y: f32[5,3] = Binary(%p, %b)
         output %y",
        "input %x: f32[5,3] const %g: f32[3] = [1, 2, 3] const %b: f32[3] = [4, 5, 6]
         %y: f32[5,3] = LayerNormalization(%x, %g, %b) {axis=1, epsilon=0.001}
         output %y",
    ),
    (
        "linear",
        "input %x: f32[5,2] const %w: f32[3,2] = [1, 2, 3, 4, 5, 6] const %c: f32[3] = [1, 2, 3]
         %y: f32[5,3] = Gemm(%x, %w, %c) {trans_b=1, alpha=2.0, beta=0.5}
         output %y",
        "input %x: f32[5,2] const %w: f32[2,3] = [2, 6, 10, 4, 8, 12]
         const %c: f32[3] = [0.5, 1, 1.5]
         %y: f32[5,3] = Linear(%x, %w, %c)
         output %y",
    ),
    (
        "linear",
        "input %x: f32[5,2] input %w: f32[3,2] const %c: f32[3] = [1, 2, 3]
         %y: f32[5,3] = Gemm(%x, %w, %c) {trans_b=1}
         output %y",
        "input %x: f32[5,2] input %w: f32[3,2] const %c: f32[3] = [1, 2, 3]
         %t: f32[2,3] = Transpose(%w) {permutation=[1, 0]}
         %p: f32[5,3] = MatMul(%x, %t)
         %y: f32[5,3] = Binary(%p, %c)
         output %y",
    ),
    (
        "fuse-bias",
        "input %x: f32[5,2] const %w: f32[2,1] = [1, 2] const %c: f32[1] = [3]
         %l: f32[5,1] = Linear(%x, %w)
         %y: f32[5,1] = Binary(%c, %l)
         output %y",
        "input %x: f32[5,2] const %w: f32[2,1] = [1, 2] const %c: f32[1] = [3]
         %y: f32[5,1] = Linear(%x, %w, %c)
         output %y",
    ),
    (
        "fuse-residual",
        "input %x: f32[5,2] const %w: f32[2,2] = [1, 2, 3, 4]
         %l: f32[5,2] = Linear(%x, %w)
         %r: f32[5,2] = Unary(%x) {function=\"abs\"}
         %y: f32[5,2] = Binary(%l, %r)
         output %y",
        "input %x: f32[5,2] const %w: f32[2,2] = [1, 2, 3, 4]
         %r: f32[5,2] = Unary(%x) {function=\"abs\"}
         %y: f32[5,2] = Linear(%x, %w, _, %r)
         output %y",
    ),
    (
        "fuse-activation",
        "input %x: f32[5,2] const %w: f32[2,2] = [1, 2, 3, 4]
         %l: f32[5,2] = Linear(%x, %w)
         %y: f32[5,2] = Unary(%l) {function=\"gelu\"}
         output %y",
        "input %x: f32[5,2] const %w: f32[2,2] = [1, 2, 3, 4]
         %y: f32[5,2] = Linear(%x, %w) {activation=\"gelu\"}
         output %y",
    ),
    (
        "sequences-as-images",
        "input %x: f32[1,2,5] const %w: f32[1,2,2] = [1, 2, 3, 4]
         %c: f32[1,1,3] = Conv(%x, %w) {strides=[2], pads=[0, 1]}
         %y: f32[1,1,2] = Pool(%c) {kernel=[2]}
         output %y",
        "input %x: f32[1,2,5] const %a: i64[1] = [2] const %w: f32[1,2,1,2] = [1, 2, 3, 4]
         const %b: i64[1] = [2]
         %u: f32[1,2,1,5] = Unsqueeze(%x, %a)
         %d: f32[1,1,1,3] = Conv(%u, %w) {strides=[1, 2], pads=[0, 0, 0, 1]}
         %c: f32[1,1,3] = Squeeze(%d, %a)
         %v: f32[1,1,1,3] = Unsqueeze(%c, %b)
         %p: f32[1,1,1,2] = Pool(%v) {kernel=[1, 2]}
         %y: f32[1,1,2] = Squeeze(%p, %b)
         output %y",
    ),
    (
        "channels-last",
        "input %x: f32[1,2,4,4]
         %y: f32[1,2,2,2] = Pool(%x) {kernel=[2, 2], strides=[2, 2]}
         output %y",
        "input %x: f32[1,2,4,4]
         %t: f32[1,4,4,2] = Transpose(%x) {permutation=[0, 2, 3, 1]}
         %p: f32[1,2,2,2] = Pool(%t) {kernel=[2, 2], strides=[2, 2], layout=\"nhwc\"}
         %y: f32[1,2,2,2] = Transpose(%p) {permutation=[0, 3, 1, 2]}
         output %y",
    ),
    (
        "transposed-convolutions",
        "input %x: f32[1,1,2,3] const %w: f32[1,1,2,2] = [1, 2, 3, 4] const %b: f32[1] = [5]
         %y: f32[1,1,4,6] = ConvTranspose(%x, %w, %b) {strides=[2, 2]}
         output %y",
        "input %x: f32[1,1,2,3] const %w: f32[4,1,1,1] = [1, 2, 3, 4]
         const %b: f32[4] = [5, 5, 5, 5] const %s: i64[7] = [0, 2, 3, 1, 2, 2, 1]
         const %t: i64[4] = [0, 4, 6, 1]
         %i: f32[1,2,3,1] = Transpose(%x) {permutation=[0, 2, 3, 1]}
         %c: f32[1,2,3,4] = Conv(%i, %w, %b) {pads=[0, 0, 0, 0], dilations=[1, 1], layout=\"nhwc\"}
         %p: f32[1,2,3,1,2,2,1] = Reshape(%c, %s)
         %q: f32[1,2,2,3,2,1,1] = Transpose(%p) {permutation=[0, 1, 4, 2, 5, 3, 6]}
         %r: f32[1,4,6,1] = Reshape(%q, %t)
         %y: f32[1,1,4,6] = Transpose(%r) {permutation=[0, 3, 1, 2]}
         output %y",
    ),
    (
        "trim-windows",
        "input %x: f32[1,1,2,3] const %w: f32[1,1,3,3] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
         %y: f32[1,1,2,3] = Conv(%x, %w) {pads=[4, 2, 4, 2], dilations=[4, 2]}
         output %y",
        "input %x: f32[1,1,2,3] const %w: f32[1,1,1,3] = [4, 5, 6]
         %y: f32[1,1,2,3] = Conv(%x, %w) {pads=[0, 2, 0, 2], dilations=[4, 2]}
         output %y",
    ),
    (
        "trim-windows",
        "input %x: f32[1,2,2,1] const %w: f32[1,3,3,1] = [1, 2, 3, 4, 5, 6, 7, 8, 9]
         %y: f32[1,1,2,1] = Conv(%x, %w) {pads=[1, 1, 0, 1], strides=[2, 1], layout=\"nhwc\"}
         output %y",
        "input %x: f32[1,2,2,1] const %w: f32[1,2,3,1] = [4, 5, 6, 7, 8, 9]
         %y: f32[1,1,2,1] = Conv(%x, %w) {pads=[0, 1, 0, 1], strides=[2, 1], layout=\"nhwc\"}
         output %y",
    ),
    (
        "sink-transposes",
        "input %x: f32[1,2,3,4] const %s: f32[4] = [1, 1, 2, 4]
         %i: f32[1,4,2,3] = Transpose(%x) {permutation=[0, 3, 1, 2]}
         %y: f32[1,4,4,12] = Resize(%i, _, %s) {mode=\"linear\"}
         output %y",
        "input %x: f32[1,2,3,4] const %s: f32[4] = [1, 2, 4, 1]
         %r: f32[1,4,12,4] = Resize(%x, _, %s) {mode=\"linear\"}
         %y: f32[1,4,4,12] = Transpose(%r) {permutation=[0, 3, 1, 2]}
         output %y",
    ),
    (
        "sink-transposes",
        "input %x: f32[1,4,4,2] const %f: i64[1] = [1] const %e: i64[1] = [3]
         const %k: i64[1] = [2] const %p: i64[8] = [0, 1, 0, 0, 0, 0, 0, 0]
         const %s: f32[3,1,1] = [1, 2, 3] const %r: i64[2] = [2, 3]
         %t: f32[1,2,4,4] = Transpose(%x) {permutation=[0, 3, 1, 2]}
         %c: f32[1,2,2,4] = Slice(%t, %f, %e, %k)
         %d: f32[1,3,2,4] = Pad(%c, %p)
         %b: f32[1,3,2,4] = Binary(%d, %s) {function=\"mul\"}
         %y: f32[1,3] = Reduce(%b, %r) {function=\"mean\", keep_dims=0}
         output %y",
        "input %x: f32[1,4,4,2] const %f: i64[1] = [1] const %e: i64[1] = [3]
         const %k: i64[1] = [1] const %p: i64[8] = [0, 1, 0, 0, 0, 0, 0, 0]
         const %q: i64[4] = [0, 3, 1, 2] const %s: f32[1,1,1,3] = [1, 2, 3]
         const %r: i64[2] = [1, 2]
         %c: f32[1,2,4,2] = Slice(%x, %f, %e, %k)
         %d: f32[1,2,4,3] = Pad(%c, %p, _, %q)
         %b: f32[1,2,4,3] = Binary(%d, %s) {function=\"mul\"}
         %y: f32[1,3] = Reduce(%b, %r) {function=\"mean\", keep_dims=0}
         output %y",
    ),
    (
        "sink-transposes",
        "input %x: f32[5,2,3] input %u: f32[5,2,3]
         %t: f32[3,5,2] = Transpose(%x) {permutation=[2, 0, 1]}
         %v: f32[3,5,2] = Transpose(%u) {permutation=[2, 0, 1]}
         %c: f32[3,10,2] = Concat(%t, %v) {axis=1}
         %a: f32[3,5,2], %b: f32[3,5,2] = Split(%c) {axis=-2, parts=2}
         output %a, %b",
        "input %x: f32[5,2,3] input %u: f32[5,2,3]
         %c: f32[10,2,3] = Concat(%x, %u)
         %p: f32[5,2,3], %q: f32[5,2,3] = Split(%c) {parts=2}
         %a: f32[3,5,2] = Transpose(%p) {permutation=[2, 0, 1]}
         %b: f32[3,5,2] = Transpose(%q) {permutation=[2, 0, 1]}
         output %a, %b",
    ),
    (
        "sink-transposes",
        "input %x: f32[5,2,3] const %r: i64[1] = [1]
         %t: f32[3,5,2] = Transpose(%x) {permutation=[2, 0, 1]}
         %y: f32[3,2] = Reduce(%t, %r) {keep_dims=0}
         output %y",
        "input %x: f32[5,2,3] const %r: i64[1] = [0]
         %p: f32[2,3] = Reduce(%x, %r) {keep_dims=0}
         %y: f32[3,2] = Transpose(%p) {permutation=[1, 0]}
         output %y",
    ),
    (
        "sink-transposes",
        "input %x: f32[5,1,3] const %a: i64[1] = [2] const %b: i64[2] = [0, 3]
         %t: f32[3,5,1] = Transpose(%x) {permutation=[2, 0, 1]}
         %s: f32[3,5] = Squeeze(%t, %a)
         %y: f32[1,3,5,1] = Unsqueeze(%s, %b)
         output %y",
        "input %x: f32[5,1,3] const %a: i64[1] = [1] const %b: i64[2] = [0, 3]
         %s: f32[5,3] = Squeeze(%x, %a)
         %u: f32[1,5,3,1] = Unsqueeze(%s, %b)
         %y: f32[1,3,5,1] = Transpose(%u) {permutation=[0, 2, 1, 3]}
         output %y",
    ),
    (
        "merge-transposes",
        "input %x: f32[1,2] const %w: i8[3,2] = [1, 2, 3, 4, 5, 6]
         const %s: f32[3,1] = [0.5, 1, 2]
         %d: f32[3,2] = DequantizeLinear(%w, %s) {axis=1}
         %t: f32[2,3] = Transpose(%d) {permutation=[1, 0]}
         %y: f32[1,3] = MatMul(%x, %t)
         output %y",
        "input %x: f32[1,2] const %w: i8[2,3] = [1, 3, 5, 2, 4, 6]
         const %s: f32[1,3] = [0.5, 1, 2]
         %t: f32[2,3] = DequantizeLinear(%w, %s) {axis=0}
         %y: f32[1,3] = MatMul(%x, %t)
         output %y",
    ),
    (
        "merge-transposes",
        "input %x: f32[5,2,3] const %c: i64[1] = [0]
         %t: f32[3,5,2] = Transpose(%x) {permutation=[2, 0, 1]}
         %u: f32[2,3,5] = Transpose(%t) {permutation=[2, 0, 1]}
         %y: f32[2,3,5] = Unary(%u) {function=\"abs\"}
         output %y",
        "input %x: f32[5,2,3]
         %u: f32[2,3,5] = Transpose(%x) {permutation=[1, 2, 0]}
         %y: f32[2,3,5] = Unary(%u) {function=\"abs\"}
         output %y",
    ),
    (
        "weights-in-groups",
        "input %x: f32[5,16] const %w: u4[16,2] = [3, 8, 13, 2, 7, 12, 1, 6, 11, 0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11, 0, 5, 10, 15, 4, 9, 14]
         const %s: f32[2,2] = [0.5, 1, 2, 3] const %z: u4[2,2] = [8, 7, 3, 0]
         %d: f32[16,2] = DequantizeLinear(%w, %s, %z) {axis=0}
         %y: f32[5,2] = MatMul(%x, %d)
         output %y",
        "input %x: f32[5,16] const %w: u4[16,2] = [3, 8, 13, 2, 7, 12, 1, 6, 11, 0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11, 0, 5, 10, 15, 4, 9, 14]
         const %s: f32[2,2] = [0.5, 1, 2, 3] const %z: u4[2,2] = [8, 7, 3, 0]
         %y: f32[5,2] = Linear(%x, %w, _, _, %s, %z)
         output %y",
    ),
    (
        "quantise-tables",
        "input %x: f32[3] const %t: f32[3,2] = [0, 0.5, 1, -1, 2, 3]
         const %s: f32[] = [0.5] const %z: u8[] = [4]
         %i: i64[3] = Cast(%x) {to=\"i64\"}
         %g: f32[3,2] = Gather(%t, %i)
         %y: u8[3,2] = QuantizeLinear(%g, %s, %z)
         output %y",
        "input %x: f32[3] const %t: u8[3,2] = [4, 5, 6, 2, 8, 10]
         %i: i64[3] = Cast(%x) {to=\"i64\"}
         %y: u8[3,2] = Gather(%t, %i)
         output %y",
    ),
    (
        "weights-in-groups",
        "input %x: f32[5,4] const %w: i8[4,2] = [1, 2, 3, 4, 5, 6, 7, 8]
         const %s: f32[2,2] = [0.5, 1, 2, 3]
         %d: f32[4,2] = DequantizeLinear(%w, %s) {axis=0}
         %y: f32[5,2] = MatMul(%x, %d)
         output %y",
        "input %x: f32[5,4] const %w: i8[4,2] = [1, 2, 3, 4, 5, 6, 7, 8]
         const %s: f32[2,2] = [0.5, 1, 2, 3]
         %d: f32[4,2] = DequantizeLinear(%w, %s) {axis=0}
         %y: f32[5,2] = MatMul(%x, %d)
         output %y",
    ),
];
