//! What running a model costs: a dated price list, USD per million inferences, machines needed.

use serde::{Deserialize, Serialize};

use crate::MeasureError;

/// One instance type in one region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The provider's name of the instance type.
    pub instance: String,
    /// The provider and its region.
    pub region: String,
    /// Instruction set: "x86_64" or "aarch64".
    pub arch: String,
    /// Virtual processors (hardware threads on most x86 types, whole cores on most Arm types).
    pub vcpu: u32,
    /// Memory in GiB.
    pub memory_gib: f64,
    /// On-demand price of an hour in US dollars.
    pub usd_hour: f64,
    /// Month the price was true, `YYYY-MM`; about that month in the shipped list.
    pub as_of: String,
    /// The page it can be checked against.
    pub source: String,
}

/// A list of prices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// The rows.
    pub price: Vec<Price>,
}

impl PriceList {
    /// The list that ships with Lepton: a first estimate, entered by hand and not compared with
    /// the pages it names. Prices change; give a list of your own for a decision.
    pub fn shipped() -> Self {
        PriceList::parse(include_str!("../prices.toml")).expect("the shipped list is tested")
    }

    /// Reads a list of `[[price]]` tables with the fields of [`Price`].
    pub fn parse(text: &str) -> Result<Self, MeasureError> {
        let list: PriceList = toml::from_str(text)
            .map_err(|error| MeasureError::PriceList(error.to_string().trim_end().to_owned()))?;
        for row in &list.price {
            let usable = row.usd_hour.is_finite() && row.usd_hour > 0.0 && row.vcpu > 0;
            if !usable || !row.memory_gib.is_finite() || row.memory_gib <= 0.0 {
                return Err(MeasureError::PriceList(format!(
                    "`{}` in {}: usd_hour, vcpu and memory_gib must be above 0",
                    row.instance, row.region
                )));
            }
        }
        Ok(list)
    }

    /// These rows, with those of `own` in their place where instance and region are the same, and
    /// the rest of `own` after them.
    pub fn overridden_by(mut self, own: PriceList) -> Self {
        for row in own.price {
            match self.find_mut(&row.instance, &row.region) {
                Some(old) => *old = row,
                None => self.price.push(row),
            }
        }
        self
    }

    /// The first row of this instance type, in any region.
    pub fn find(&self, instance: &str) -> Option<&Price> {
        self.price.iter().find(|row| row.instance == instance)
    }

    fn find_mut(&mut self, instance: &str, region: &str) -> Option<&mut Price> {
        self.price.iter_mut().find(|row| row.instance == instance && row.region == region)
    }
}

/// USD for a million inferences on a machine of `usd_hour` that serves `rate_per_second` within
/// the latency objective and is busy for the share `utilisation` (0..=1] of the time.
pub fn usd_per_million(
    usd_hour: f64,
    rate_per_second: f64,
    utilisation: f64,
) -> Result<f64, MeasureError> {
    positive("usd_hour", usd_hour)?;
    positive("rate_per_second", rate_per_second)?;
    positive("utilisation", utilisation)?;
    if utilisation > 1.0 {
        return Err(MeasureError::Argument(format!("utilisation {utilisation} is above 1")));
    }
    Ok(usd_hour / (3600.0 * rate_per_second * utilisation) * 1e6)
}

/// Machines for a peak of `peak_per_second` where one serves `rate_per_second` within the latency
/// objective, with `spare` more.
pub fn machines_needed(
    peak_per_second: f64,
    rate_per_second: f64,
    spare: u32,
) -> Result<u64, MeasureError> {
    positive("peak_per_second", peak_per_second)?;
    positive("rate_per_second", rate_per_second)?;
    Ok((peak_per_second / rate_per_second).ceil() as u64 + u64::from(spare))
}

fn positive(name: &str, value: f64) -> Result<(), MeasureError> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(MeasureError::Argument(format!("{name} is {value}; it must be a number above 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_list_is_whole() {
        let list = PriceList::shipped();
        assert!(list.price.len() >= 12);
        for row in &list.price {
            assert!(matches!(row.arch.as_str(), "x86_64" | "aarch64"), "{row:?}");
            assert!(row.as_of.len() == 7 && row.source.starts_with("https://"), "{row:?}");
            let same =
                |other: &&Price| (&other.instance, &other.region) == (&row.instance, &row.region);
            assert_eq!(list.price.iter().filter(same).count(), 1, "{row:?}");
        }
    }

    #[test]
    fn cost_follows_the_formula() {
        // 0.36 USD an hour at 100 a second and half busy: 180 000 an hour, 2 USD per million.
        assert!((usd_per_million(0.36, 100.0, 0.5).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(machines_needed(1000.0, 300.0, 1), Ok(5));
        assert!(usd_per_million(0.36, 0.0, 0.5).is_err());
        assert!(usd_per_million(0.36, 1.0, 1.5).is_err());
        assert!(machines_needed(f64::NAN, 1.0, 0).is_err());
    }

    #[test]
    fn users_override_rows() {
        let shipped = PriceList::shipped();
        let (rows, mut own) = (shipped.price.len(), shipped.price[0].clone());
        own.usd_hour = 0.01;
        let mut other = own.clone();
        other.instance = "in-house".into();
        let list = shipped.overridden_by(PriceList { price: vec![own.clone(), other] });
        assert_eq!(list.price.len(), rows + 1);
        assert_eq!(list.find(&own.instance).unwrap().usd_hour, 0.01);
    }

    #[test]
    fn mistakes_are_named() {
        let error = PriceList::parse("[[price]]\ninstance = \"a\"\nusd_hours = 1").unwrap_err();
        assert!(error.to_string().contains("usd_hours"), "{error}");
    }
}
