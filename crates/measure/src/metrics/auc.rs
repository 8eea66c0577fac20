//! The area under the ROC curve: its value by ranks, its variance by DeLong, DeLong and
//! Clarke-Pearson (1988).

use crate::statistics::{Interval, Z};

/// Scores in ascending order with equal scores side by side, ready for many weightings.
pub(crate) struct Ranking<'a> {
    order: Vec<u32>,
    scores: &'a [f32],
    positive: &'a [bool],
}

impl<'a> Ranking<'a> {
    pub(crate) fn new(scores: &'a [f32], positive: &'a [bool]) -> Self {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        Ranking { order, scores, positive }
    }

    /// Runs of equal score.
    fn ties(&self) -> impl Iterator<Item = &[u32]> {
        self.order.chunk_by(|&a, &b| self.scores[a as usize] == self.scores[b as usize])
    }

    /// The area where sample `i` counts `weights[i]` times; `None` without both classes.
    pub(crate) fn area(&self, weights: Option<&[u32]>) -> Option<f64> {
        let (mut negatives, mut positives, mut wins) = (0.0, 0.0, 0.0);
        for tie in self.ties() {
            let (mut here_positive, mut here_negative) = (0.0, 0.0);
            for &i in tie {
                let weight = weights.map_or(1.0, |w| w[i as usize] as f64);
                match self.positive[i as usize] {
                    true => here_positive += weight,
                    false => here_negative += weight,
                }
            }
            wins += here_positive * (negatives + here_negative / 2.0);
            negatives += here_negative;
            positives += here_positive;
        }
        (negatives > 0.0 && positives > 0.0).then(|| wins / (negatives * positives))
    }

    /// The interval of the area. Where the classes are separated completely DeLong's variance is
    /// zero; the open end then comes from the smaller class, as the one-sided bound of a share
    /// that was never missed.
    pub(crate) fn interval(&self) -> Option<Interval> {
        let area = self.area(None)?;
        let positives = self.positive.iter().filter(|&&p| p).count() as f64;
        let negatives = self.positive.len() as f64 - positives;
        let smaller = positives.min(negatives);
        let bound = 0.05f64.powf(1.0 / smaller);
        if area == 1.0 || area == 0.0 {
            let (low, high) = if area == 1.0 { (bound, 1.0) } else { (0.0, 1.0 - bound) };
            return Some(Interval { low, high });
        }
        let (mut below_negative, mut below_positive) = (0.0, 0.0);
        let (mut variance_positive, mut variance_negative) = (0.0, 0.0);
        for tie in self.ties() {
            let here = tie.iter().filter(|&&i| self.positive[i as usize]).count() as f64;
            let other = tie.len() as f64 - here;
            // Share of the other class that each sample of this run ranks correctly against.
            let placed_positive = (below_negative + other / 2.0) / negatives;
            let placed_negative = 1.0 - (below_positive + here / 2.0) / positives;
            variance_positive += here * (placed_positive - area).powi(2);
            variance_negative += other * (placed_negative - area).powi(2);
            below_negative += other;
            below_positive += here;
        }
        let term = |sum: f64, n: f64| sum / (n - 1.0).max(1.0) / n;
        let deviation =
            (term(variance_positive, positives) + term(variance_negative, negatives)).sqrt();
        Some(Interval {
            low: (area - Z * deviation).max(0.0),
            high: (area + Z * deviation).min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(scores: &[f32], positive: &[bool]) -> f64 {
        let (mut wins, mut all) = (0.0, 0.0);
        for (i, _) in positive.iter().enumerate().filter(|(_, p)| **p) {
            for (j, _) in positive.iter().enumerate().filter(|(_, p)| !**p) {
                all += 1.0;
                wins += match scores[i].partial_cmp(&scores[j]) {
                    Some(std::cmp::Ordering::Greater) => 1.0,
                    Some(std::cmp::Ordering::Equal) => 0.5,
                    _ => 0.0,
                };
            }
        }
        wins / all
    }

    #[test]
    fn the_area_is_the_share_of_ordered_pairs() {
        let scores = [0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.9, -1.0];
        let positive = [false, false, true, true, true, false, false, true];
        let ranking = Ranking::new(&scores, &positive);
        assert!((ranking.area(None).unwrap() - pairs(&scores, &positive)).abs() < 1e-12);
        let twice = Ranking::area(&ranking, Some(&[2; 8])).unwrap();
        assert!((twice - pairs(&scores, &positive)).abs() < 1e-12);
        assert_eq!(ranking.area(Some(&[1, 1, 0, 0, 0, 1, 1, 0])), None);
    }

    #[test]
    fn delong_matches_the_definition() {
        let scores: Vec<f32> = (0..60).map(|i| ((i * 37) % 23) as f32).collect();
        let positive: Vec<bool> = (0..60).map(|i| (i * i) % 7 < 3).collect();
        let area = pairs(&scores, &positive);
        let component = |of: bool| {
            let values: Vec<f64> = (0..60)
                .filter(|&i| positive[i] == of)
                .map(|i| {
                    let others = (0..60).filter(|&j| positive[j] != of);
                    let (mut wins, mut n) = (0.0, 0.0);
                    for j in others {
                        let (high, low) =
                            if of { (scores[i], scores[j]) } else { (scores[j], scores[i]) };
                        wins += if high > low { 1.0 } else { 0.5 * f64::from(high == low) };
                        n += 1.0;
                    }
                    wins / n
                })
                .collect();
            let n = values.len() as f64;
            values.iter().map(|v| (v - area).powi(2)).sum::<f64>() / (n - 1.0) / n
        };
        let deviation = (component(true) + component(false)).sqrt();
        let interval = Ranking::new(&scores, &positive).interval().unwrap();
        assert!((interval.low - (area - Z * deviation)).abs() < 1e-9, "{interval:?}");
        assert!((interval.high - (area + Z * deviation)).abs() < 1e-9, "{interval:?}");
    }

    #[test]
    fn complete_separation_still_has_a_width() {
        let interval =
            Ranking::new(&[0.0, 1.0, 2.0, 3.0], &[false, false, true, true]).interval().unwrap();
        assert!(interval.low < 0.5 && interval.high == 1.0, "{interval:?}");
    }
}
