//! Class probabilities from those of one class against another: the second method of Wu, Lin and
//! Weng 2004, in rounds that end as libsvm's do.

/// Most rounds.
const MOST_ROUNDS: usize = 100;
/// How far from the solution the rounds end, divided by the number of classes.
const TOLERANCE: f64 = 0.005;
/// Shares are kept this far from 0 and 1.
const LEAST_SHARE: f64 = 1e-7;

/// Room for one row after the other.
#[derive(Clone, Debug)]
pub struct Coupling {
    classes: usize,
    /// The share of class i against class j, and the quadratic form whose minimum is wanted, both
    /// `[classes,classes]`.
    against: Vec<f64>,
    form: Vec<f64>,
    slopes: Vec<f64>,
    shares: Vec<f64>,
}

impl Coupling {
    /// Room for so many classes.
    pub fn new(classes: usize) -> Self {
        let square = vec![0.0; classes * classes];
        let line = vec![0.0; classes];
        Coupling {
            classes,
            against: square.clone(),
            form: square,
            slopes: line.clone(),
            shares: line,
        }
    }

    /// The quadratic form of shares of the pairs (0,1), (0,2), …, (1,2), ….
    fn fill(&mut self, pairs: &[f32]) {
        let count = self.classes;
        let all = (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j)));
        for ((i, j), &p) in all.zip(pairs) {
            let share = f64::from(p).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
            self.against[i * count + j] = share;
            self.against[j * count + i] = 1.0 - share;
        }
        self.form.fill(0.0);
        for i in 0..count {
            for j in (0..count).filter(|&j| j != i) {
                let other = self.against[j * count + i];
                self.form[i * count + i] += other * other;
                self.form[i * count + j] = -other * self.against[i * count + j];
            }
        }
    }

    /// The probabilities `[classes]` that go best with the shares of the pairs.
    ///
    /// # Panics
    /// If there are not as many results as classes.
    pub fn row(&mut self, pairs: &[f32], output: &mut [f32]) {
        assert!(output.len() == self.classes, "a result for each class");
        self.fill(pairs);
        let count = self.classes;
        let (form, slopes, p) = (&self.form, &mut self.slopes, &mut self.shares);
        p.fill(1.0 / count as f64);
        for _ in 0..MOST_ROUNDS {
            for (slope, row) in slopes.iter_mut().zip(form.chunks_exact(count)) {
                *slope = row.iter().zip(&*p).map(|(q, p)| q * p).sum();
            }
            let mut value: f64 = slopes.iter().zip(&*p).map(|(s, p)| s * p).sum();
            let error = slopes.iter().map(|slope| (slope - value).abs()).fold(0.0, f64::max);
            if error < TOLERANCE / count as f64 {
                break;
            }
            for t in 0..count {
                let own = form[t * count + t];
                let step = (value - slopes[t]) / own;
                let scale = 1.0 + step;
                p[t] += step;
                value = (value + step * (step * own + 2.0 * slopes[t])) / scale / scale;
                for j in 0..count {
                    slopes[j] = (slopes[j] + step * form[t * count + j]) / scale;
                    p[j] /= scale;
                }
            }
        }
        output.iter_mut().zip(&*p).for_each(|(to, &share)| *to = share as f32);
    }
}
