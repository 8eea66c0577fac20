//! `lepton convert`.

use anyhow::Result;
use lepton::{Error, Format};
use serde_json::json;

use crate::arguments::Convert;
use crate::output::{bytes, print_json, say};

/// The format that an extension names.
fn format_of(arguments: &Convert, extension: &str) -> Result<Format, Error> {
    let format = Format::ALL.iter().find(|format| format.extension() == extension);
    format.filter(|format| format.is_written()).copied().ok_or_else(|| {
        let path = arguments.output.display();
        let known = ".lepton, .onnx or .safetensors (weights alone)";
        Error::Inputs(format!("{path}: the extension names the format: {known}"))
    })
}

/// Writes the model in the format that the extension of the output names.
pub fn convert(arguments: &Convert) -> Result<()> {
    let model = arguments.model.open()?;
    let extension = arguments.output.extension().unwrap_or_default().to_string_lossy();
    let made = if extension == lepton::WEIGHTS_EXTENSION && !arguments.prepare {
        model.weights()?
    } else {
        lepton::convert(&model, format_of(arguments, &extension)?, arguments.prepare)?
    };
    lepton::write_whole(&arguments.output, &made).map_err(Error::from)?;
    if arguments.json {
        let told = json!({
            "output": arguments.output, "bytes": made.len(), "source_bytes": model.file_bytes(),
            "prepared": arguments.prepare,
        });
        return print_json("convert", told);
    }
    say!(
        "{}: {} (from {})",
        arguments.output.display(),
        bytes(made.len()),
        bytes(model.file_bytes())
    );
    Ok(())
}
