//! `lepton convert`.

use anyhow::Result;
use lepton::{Error, Format, Model};
use serde_json::json;

use crate::arguments::Convert;
use crate::output::{bytes, print_json, say};

/// Writes the model in the format that the extension of the output names.
pub fn convert(arguments: &Convert) -> Result<()> {
    let model = Model::open(&arguments.model)?;
    let extension = arguments.output.extension().unwrap_or_default().to_string_lossy();
    let format = Format::ALL.iter().find(|format| format.extension() == extension);
    let Some(&format) = format.filter(|format| format.is_written()) else {
        let path = arguments.output.display();
        let why = format!("{path}: the extension names the format: .lepton or .onnx");
        return Err(Error::Inputs(why).into());
    };
    let made = lepton::convert(&model, format, arguments.prepare)?;
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
