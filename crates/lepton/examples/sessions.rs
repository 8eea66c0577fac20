//! What sessions of one process cost each other: `sessions MODEL` prints JSON with the median time
//! of a run alone, of two sessions that run at once on threads of their own, and the processor time
//! of a second in which a session of two threads does nothing.
#![allow(clippy::result_large_err)]

use std::sync::Barrier;
use std::time::{Duration, Instant};

use lepton::{Error, Model, Session, SessionOptions, Tensor, sample_inputs};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(500);

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Median time of a run during a round, in microseconds.
fn round(session: &Session, inputs: &[Tensor]) -> Result<f64, Error> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < ROUND || times.is_empty() {
        let run = Instant::now();
        session.run(inputs)?;
        times.push(run.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(times))
}

/// Processor time of this process, in milliseconds: fields 14 and 15 of `/proc/self/stat`, in
/// hundredths of a second.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: sessions MODEL")?;
    let model = Model::open(path)?;
    let inputs = sample_inputs(model.graph(), &[])?;
    let sessions =
        [model.session(SessionOptions::default())?, model.session(SessionOptions::default())?];
    for session in &sessions {
        session.run(&inputs)?;
    }
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for session in &sessions {
            alone.push(round(session, &inputs)?);
        }
        let start = Barrier::new(2);
        let both = std::thread::scope(|scope| {
            let workers = sessions.each_ref().map(|session| {
                let (start, inputs) = (&start, &inputs);
                scope.spawn(move || {
                    start.wait();
                    round(session, inputs)
                })
            });
            workers.map(|worker| worker.join().expect("a round does not panic"))
        });
        for time in both {
            together.push(time?);
        }
    }
    let idle = model.session(SessionOptions { threads: 2, ..SessionOptions::default() })?;
    idle.run(&inputs)?;
    std::thread::sleep(Duration::from_millis(50));
    let before = processor_ms();
    std::thread::sleep(Duration::from_secs(1));
    let idle_ms = processor_ms() - before;
    let (alone, together) = (median(alone), median(together));
    println!(
        "{}",
        serde_json::json!({
            "alone_us": alone, "together_us": together, "loss": together / alone - 1.0,
            "idle_processor_ms_per_s": idle_ms,
        })
    );
    Ok(())
}
