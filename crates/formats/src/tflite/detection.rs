//! The operator that ends detectors and is not built in: `TFLite_Detection_PostProcess`.

use lepton_ir::ops::detection::DetectBoxes;

use super::call::{Call, Results};
use super::flexible;
use crate::error::FormatError;
use crate::steps::Steps;

/// Encoded boxes, scores and anchors to boxes, classes, scores and their number.
pub fn boxes(call: &mut Call<'_, '_>) -> Results {
    let options = flexible::numbers(call.node.custom)?;
    let find = |name: &str| options.iter().find(|(own, _)| own == name).map(|(_, number)| *number);
    let needed = |name: &str| -> Result<f64, FormatError> {
        find(name).ok_or_else(|| call.error(format!("its option `{name}` is missing")))
    };
    let count = |number: f64| number.clamp(0.0, 1e9) as usize;
    let defaults = DetectBoxes::default();
    let op = DetectBoxes {
        most: count(needed("max_detections")?),
        classes_each: count(needed("max_classes_per_detection")?),
        per_class: find("use_regular_nms").is_some_and(|truth| truth != 0.0),
        most_of_class: find("detections_per_class").map_or(defaults.most_of_class, count),
        classes: count(needed("num_classes")?),
        least_score: needed("nms_score_threshold")? as f32,
        overlap: needed("nms_iou_threshold")? as f32,
        scales: [needed("y_scale")?, needed("x_scale")?, needed("h_scale")?, needed("w_scale")?]
            .map(|scale| scale as f32)
            .to_vec(),
    };
    let inputs = [call.real(0)?, call.real(1)?, call.real(2)?].map(Some);
    call.emit(op, &inputs)
}
