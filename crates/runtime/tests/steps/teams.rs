//! Steps that a team goes through together: the same answers, errors and stops as each for itself.

use lepton_ir::{Graph, interpret, text};
use lepton_runtime::{RuntimeError, Session, SessionOptions, SmallSteps};
use lepton_tensor::{DType, Tensor};

use crate::case::constant;

/// Layers of steps that divide and of such that do not, among them one that may fail.
fn network() -> Graph {
    let source = format!(
        "graph \"net\" {{ input %x: f32[1,16,12,12] input %i: i64[4]\n{}{}{}
         const %p: i64[8] = [0, 0, 1, 1, 0, 0, 1, 1]
         %c: f32[1,16,12,12] = Conv(%x, %w, %b) {{pads=[1, 1, 1, 1]}}
         %m: f32[1,16,14,14] = Pad(%c, %p) {{mode=\"reflect\"}}
         %g: f32[1,16,14,4] = Gather(%m, %i) {{axis=3}} \"pick\"
         %d: f32[1,16,14,4] = Conv(%g, %k) {{group=16, pads=[1, 1, 1, 1]}}
         %y: f32[1,16,14,4] = Softmax(%d) {{axis=1}}
         output %y }}",
        constant("w", &[16, 16, 3, 3], 1),
        constant("b", &[16], 2),
        constant("k", &[16, 1, 3, 3], 3),
    );
    text::parse(&source).unwrap()
}

fn inputs(indices: [i64; 4]) -> Vec<Tensor> {
    let values: Vec<f64> = (0..16 * 144).map(|i| f64::from(i * 7919 % 211) / 211.0).collect();
    let x = Tensor::from_f64_slice(DType::F32, vec![1, 16, 12, 12], &values).unwrap();
    vec![x, Tensor::from_slice([4], &indices).unwrap()]
}

fn session(threads: usize, small_steps: SmallSteps) -> Session {
    let options = SessionOptions { threads, small_steps, ..SessionOptions::default() };
    Session::new(&network(), options).unwrap()
}

#[test]
fn every_way_gives_the_same_answer() {
    let x = inputs([3, 0, 13, 7]);
    let want = session(1, SmallSteps::Apart).run(&x).unwrap();
    let reference = interpret::run(&network(), &x).unwrap();
    crate::case::close(&reference[0], &want[0], "alone");
    for threads in [2, 3] {
        let together = session(threads, SmallSteps::Together);
        let measured = session(threads, SmallSteps::Measured);
        // Enough for several trials.
        for _ in 0..300 {
            assert_eq!(together.run(&x).unwrap(), want, "{threads} threads");
            assert_eq!(measured.run(&x).unwrap(), want, "{threads} threads");
        }
    }
}

#[test]
fn an_error_ends_the_team_and_not_the_session() {
    for threads in [2, 3] {
        let session = session(threads, SmallSteps::Together);
        let want = session.run(&inputs([1, 2, 3, 4])).unwrap();
        for _ in 0..50 {
            let error = session.run(&inputs([0, 1, 14, 2])).unwrap_err().to_string();
            assert!(error.contains("`pick`") && error.contains("outside"), "{error}");
            assert_eq!(session.run(&inputs([1, 2, 3, 4])).unwrap(), want);
        }
    }
}

#[test]
fn a_run_by_a_team_stops() {
    let session = session(2, SmallSteps::Together);
    let stopped = session.run_while(&inputs([0; 4]), &|| false).unwrap_err();
    assert!(matches!(stopped, RuntimeError::Stopped), "{stopped}");
}

#[test]
fn callers_share_a_team() {
    let session = session(2, SmallSteps::Together);
    let x = inputs([5, 6, 7, 8]);
    let want = session.run(&x).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..100).for_each(|_| assert_eq!(session.run(&x).unwrap(), want)));
        }
    });
}
