//! Which rows of a data set a verb evaluates on.

use std::path::Path;

use anyhow::Result;
use lepton::{DataOptions, DataSet, Error, Split, Subset};

/// The test rows of a description; every row of anything else.
pub fn evaluation_rows(path: &Path) -> Result<Subset> {
    let data = DataSet::open(path, &DataOptions::default()).map_err(Error::from)?;
    let described = path.extension().is_some_and(|extension| extension == "toml");
    let split = if described { Split::Test } else { Split::All };
    Ok(data.split(split).map_err(Error::from)?)
}
