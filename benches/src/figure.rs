//! Formats figures. All follow one rule, so that a figure is the same everywhere.

use std::fmt;

/// Three significant digits, and at most two decimals.
pub fn figure(value: f64) -> String {
    written(value, value)
}

/// A value, rounded to the precision of another one.
fn written(value: f64, as_much_as: f64) -> String {
    let size = if as_much_as == 0.0 { 0.0 } else { as_much_as.abs().log10().floor() };
    let decimals = (2.0 - size).min(2.0);
    let unit = 10_f64.powf(-decimals);
    let rounded = (value / unit).round() * unit;
    format!("{:.*}", decimals.max(0.0) as usize, if rounded == 0.0 { 0.0 } else { rounded })
}

/// A median, with the least and the greatest value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least value.
    pub min: f64,
    /// The value in the middle.
    pub median: f64,
    /// The greatest value.
    pub max: f64,
}

impl Spread {
    /// The spread of these values, if there are any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { min: first, median, max: last })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [min, median, max] = [self.min, self.median, self.max].map(|value| written(value, self.median));
        write!(f, "{median} ({min} to {max})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_three_digits_and_at_most_two_decimals() {
        for (value, expected) in [
            (20_801.3, "20800"),
            (273.43, "273"),
            (47.04, "47.0"),
            (1.376, "1.38"),
            (0.856, "0.86"),
            (0.004, "0.00"),
            (-0.001, "0.00"),
            (-3.126, "-3.13"),
            (0.0, "0.00"),
        ] {
            assert_eq!(figure(value), expected);
        }
    }

    #[test]
    fn the_limits_of_a_spread_are_as_precise_as_its_median() {
        let spread = Spread::of([126.0, 9.96, 145.44]).unwrap();
        assert_eq!(spread.to_string(), "126 (10 to 145)");
        assert_eq!(Spread::of([0.5, 0.25]).unwrap().to_string(), "0.38 (0.25 to 0.50)");
        assert_eq!(Spread::of([]), None);
    }
}
