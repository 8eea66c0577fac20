//! From encoded boxes and scores to detections, as TensorFlow Lite's `TFLite_Detection_PostProcess`.

use lepton_tensor::{DType, Tensor};

use super::facets::facets;
use super::find::overlap;
use super::walk::require_rank;
use crate::attributes;
use crate::dim::Dim;
use crate::error::Problem;
use crate::fact::Fact;
use crate::operator::{Arity, Operands, Operator, Quant};

/// Most detections of an image.
const MOST_DETECTIONS: usize = 1 << 20;

attributes! {
    /// The best boxes of one image that do not overlap (Liu et al. 2016, arXiv:1512.02325): boxes
    /// `[1,B,4]` (centre y, centre x, height, width, relative to the anchors), scores `[1,B,C]` or
    /// `[1,B,1+C]` with a background class first, anchors `[B,4]` (centre y, centre x, height,
    /// width), all f32. Results boxes `[1,D,4]` (y, x of the lower corner, then of the upper),
    /// classes `[1,D]` (from 0, without the background), scores `[1,D]`, the number found `[1]`, all
    /// f32; D is `most · classes_each`, and what was not found is zero.
    pub struct DetectBoxes {
        /// Most boxes.
        pub most: usize = 1,
        /// Most classes of a box; only the best one counts for `per_class`.
        pub classes_each: usize = 1,
        /// True if boxes of each class are chosen apart, false if each box is of its best classes.
        pub per_class: bool = false,
        /// Most boxes of a class where classes are apart.
        pub most_of_class: usize = 100,
        /// Number of classes without the background.
        pub classes: usize = 1,
        /// Boxes with a smaller score are left out.
        pub least_score: f32 = 0.0,
        /// A box that overlaps a better one by more than this (intersection over union) is left out.
        pub overlap: f32 = 0.5,
        /// What the encoded y, x, height and width are divided by.
        pub scales: Vec<f32> = vec![1.0; 4],
    }
}

/// A detection: which box, which class, how sure.
type Found = (usize, usize, f32);

/// What is seen of one image.
struct Seen<'a> {
    op: &'a DetectBoxes,
    corners: Vec<[f32; 4]>,
    scores: &'a [f32],
    /// Scores of a box, the background counted.
    columns: usize,
}

impl Seen<'_> {
    /// The scores of a box without the background.
    fn of_box(&self, index: usize) -> &[f32] {
        let row = &self.scores[index * self.columns..][..self.columns];
        &row[self.columns - self.op.classes..]
    }

    /// At most `most` boxes by falling score that do not overlap.
    fn suppressed(&self, score: &dyn Fn(usize) -> f32, most: usize) -> Vec<usize> {
        let good = |&index: &usize| score(index) >= self.op.least_score;
        let mut order: Vec<usize> = (0..self.corners.len()).filter(good).collect();
        order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        let mut kept: Vec<usize> = Vec::new();
        for index in order {
            if kept.len() >= most {
                break;
            }
            let own = &self.corners[index];
            let is_apart = |&other: &usize| overlap(&self.corners[other], own) <= self.op.overlap;
            if kept.iter().all(is_apart) {
                kept.push(index);
            }
        }
        kept
    }

    /// Boxes chosen by their best class, each with its best classes.
    fn by_box(&self) -> Vec<Found> {
        let best = |index: usize| self.of_box(index).iter().copied().fold(f32::MIN, f32::max);
        let mut found = Vec::new();
        for index in self.suppressed(&best, self.op.most) {
            let scores = self.of_box(index);
            let mut classes: Vec<usize> = (0..scores.len()).collect();
            classes.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            classes.truncate(self.op.classes_each);
            found.extend(classes.into_iter().map(|class| (index, class, scores[class])));
        }
        found
    }

    /// Boxes chosen class by class; of equal scores a later class comes first.
    fn by_class(&self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for class in 0..self.op.classes {
            let score = |index: usize| self.of_box(index)[class];
            let own = self.suppressed(&score, self.op.most_of_class.min(self.op.most));
            let own = own.into_iter().map(|index| (index, class, score(index)));
            let mut all: Vec<Found> = own.chain(found).collect();
            all.sort_by(|a, b| b.2.total_cmp(&a.2));
            all.truncate(self.op.most);
            found = all;
        }
        found
    }
}

impl DetectBoxes {
    /// The corners of encoded boxes.
    fn corners(&self, boxes: &[f32], anchors: &[f32]) -> Result<Vec<[f32; 4]>, Problem> {
        let corner = |(encoded, anchor): (&[f32], &[f32])| {
            let real = |i: usize| f64::from(encoded[i]) / f64::from(self.scales[i]);
            let side = |i: usize| f64::from(anchor[i]);
            let centre = [0, 1].map(|i| real(i) * side(i + 2) + side(i));
            let half = [2, 3].map(|i| 0.5 * real(i).exp() * side(i));
            let [low, high] = [-1.0, 1.0].map(|sign: f64| {
                [0, 1].map(|i| {
                    (f64::from(centre[i] as f32) + sign * f64::from(half[i] as f32)) as f32
                })
            });
            [low[0], low[1], high[0], high[1]]
        };
        let corners: Vec<[f32; 4]> =
            boxes.chunks_exact(4).zip(anchors.chunks_exact(4)).map(corner).collect();
        let is_box = |c: &[f32; 4]| c[0] <= c[2] && c[1] <= c[3];
        match corners.iter().position(|corner| !is_box(corner)) {
            None => Ok(corners),
            Some(index) => {
                let corner = corners[index];
                Err(Problem::value(format!("box {index} has the corners {corner:?}")))
            }
        }
    }

    /// Places of detections.
    fn places(&self) -> Result<usize, Problem> {
        let places = self.most.checked_mul(self.classes_each);
        places.filter(|places| (1..=MOST_DETECTIONS).contains(places)).ok_or_else(|| {
            let why = format!("{} boxes of {} classes each", self.most, self.classes_each);
            Problem::attribute("most", why)
        })
    }
}

impl Operator for DetectBoxes {
    facets! {
        arity = Arity::exactly(3).outputs(4, 4),
        stops = "which boxes remain is flat",
        frozen = "boxes are chosen by their scores",
        quant = Quant::FloatOnly("scores and overlaps decide by small differences"),
        element_ops = 1,
    }

    fn infer(&self, inputs: Operands<'_, Fact>) -> Result<Vec<Fact>, Problem> {
        let operands = [(0, "boxes", 3), (1, "scores", 3), (2, "anchors", 2)];
        for (index, name, rank) in operands {
            let fact = inputs.required(index, name)?;
            if fact.dtype != DType::F32 {
                return Err(Problem::dtype(name, "f32", fact.dtype));
            }
            require_rank(name, fact, rank)?;
        }
        let known =
            |index: usize, axis: usize| inputs.0[index].and_then(|f| f.dims[axis].as_usize());
        let differ = |a: Option<usize>, b: Option<usize>| a.zip(b).is_some_and(|(a, b)| a != b);
        let images = differ(known(0, 0), Some(1)) || differ(known(1, 0), Some(1));
        let sides = differ(known(0, 2), Some(4)) || differ(known(2, 1), Some(4));
        let boxes = differ(known(0, 1), known(1, 1)) || differ(known(0, 1), known(2, 0));
        let columns = known(1, 2);
        if images || sides || boxes {
            return Err(Problem::shape(
                "boxes [1,B,4], scores [1,B,C] and anchors [B,4] are needed, of one image",
            ));
        }
        if columns.is_some_and(|columns| columns != self.classes && columns != self.classes + 1) {
            let classes = self.classes;
            return Err(Problem::shape(format!("{columns:?} scores of {classes} classes")));
        }
        let scaled = self.scales.len() == 4 && self.scales.iter().all(|scale| *scale > 0.0);
        if !scaled || !(0.0..=1.0).contains(&self.overlap) || self.classes == 0 {
            let why = "classes, four positive scales and an overlap up to 1 are needed";
            return Err(Problem::attribute("scales", why));
        }
        let places = Dim::known(self.places()? as i64);
        let one = || Dim::known(1);
        let row = vec![one(), places.clone()];
        let dims = [vec![one(), places, Dim::known(4)], row.clone(), row, vec![one()]];
        Ok(dims.into_iter().map(|dims| Fact::new(DType::F32, dims)).collect())
    }

    fn eval(&self, inputs: Operands<'_, Tensor>) -> Result<Vec<Tensor>, Problem> {
        let facts: Vec<Option<Fact>> = inputs.0.iter().map(|t| t.map(Fact::of)).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        self.infer(Operands(&facts))?;
        let (boxes, scores) = (inputs.required(0, "boxes")?, inputs.required(1, "scores")?);
        let anchors = inputs.required(2, "anchors")?;
        let seen = Seen {
            op: self,
            corners: self.corners(boxes.as_slice()?, anchors.as_slice()?)?,
            scores: scores.as_slice()?,
            columns: scores.shape()[2],
        };
        let found = if self.per_class { seen.by_class() } else { seen.by_box() };
        // A box whose classes are fewer than its places leaves the rest of them empty.
        let each = if self.per_class { 1 } else { self.classes_each.min(self.classes) };
        let step = if self.per_class { 1 } else { self.classes_each };
        let places = self.places()?;
        let mut made = [vec![0f32; 4 * places], vec![0f32; places], vec![0f32; places]];
        for (number, &(index, class, score)) in found.iter().enumerate() {
            let place = number / each * step + number % each;
            made[0][4 * place..][..4].copy_from_slice(&seen.corners[index]);
            made[1][place] = class as f32;
            made[2][place] = score;
        }
        let count = (found.len() / each) as f32;
        let [boxes, classes, scores] = made;
        Ok(vec![
            Tensor::from_slice([1, places, 4], &boxes)?,
            Tensor::from_slice([1, places], &classes)?,
            Tensor::from_slice([1, places], &scores)?,
            Tensor::vector(&[count]),
        ])
    }
}
