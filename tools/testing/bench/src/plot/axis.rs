// SPDX-License-Identifier: GPL-2.0

//! Axes: the positions of values, and the labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The distribution of values over an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// Evenly, starting at 0.
    Linear,
    /// Evenly by decade.
    Logarithmic,
}

/// An axis.
pub struct Axis {
    /// The label: a quantity and its unit.
    pub title: &'static str,
    scale: Scale,
    ticks: Vec<(f64, String)>,
}

/// An axis with the range and the ticks for its values: a coordinate of a chart.
pub struct Fitted {
    scale: Scale,
    /// The range of positions.
    places: Range<f64>,
    /// Values, ascending, with their labels.
    ticks: Vec<(f64, String)>,
}

impl Scale {
    /// Returns the position of `value`.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
        }
    }

    /// Returns the value at `place`.
    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Logarithmic => 10_f64.powf(place),
        }
    }
}

impl Axis {
    pub fn linear(title: &'static str) -> Self {
        Self {
            title,
            scale: Scale::Linear,
            ticks: Vec::new(),
        }
    }

    pub fn logarithmic(title: &'static str) -> Self {
        Self {
            title,
            scale: Scale::Logarithmic,
            ticks: Vec::new(),
        }
    }

    /// Replaces the default ticks by these values and labels.
    pub fn ticks(mut self, ticks: impl IntoIterator<Item = (f64, String)>) -> Self {
        self.ticks = ticks.into_iter().collect();
        self
    }

    /// Returns the axis for `values`, which are not negative.
    pub fn fit(&self, values: impl IntoIterator<Item = f64>) -> Fitted {
        /// The empty fraction of the range at each end.
        const MARGIN: f64 = 0.06;
        let places = values.into_iter().map(|value| self.scale.place(value));
        let (least, most) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), at| {
            (least.min(at), most.max(at))
        });
        let places = match self.scale {
            Scale::Linear if most > 0.0 => 0.0..most * (1.0 + MARGIN),
            Scale::Logarithmic if least < most => {
                let margin = (most - least) * MARGIN;
                least - margin..most + margin
            }
            Scale::Logarithmic if least.is_finite() => least - 1.0..most + 1.0,
            _ => 0.0..1.0,
        };
        let ticks = match self.scale {
            _ if !self.ticks.is_empty() => self.ticks.clone(),
            Scale::Linear => round_values(places.end),
            Scale::Logarithmic => decades(&places),
        };
        Fitted {
            scale: self.scale,
            places,
            ticks,
        }
    }
}

impl Ranged for Fitted {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let Range { start, end } = self.places;
        let part = (self.scale.place(*value) - start) / (end - start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.scale.value(self.places.start)..self.scale.value(self.places.end)
    }
}

impl ValueFormatter<f64> for Fitted {
    /// Returns the label of the tick `value`.
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *value);
        tick.map_or_else(String::new, |tick| tick.1.clone())
    }
}

/// Returns round values from 0 to `most`.
fn round_values(most: f64) -> Vec<(f64, String)> {
    let decade = 10_f64.powf(most.log10().floor());
    let step = [0.1, 0.2, 0.5, 1.0, 2.0]
        .map(|part| part * decade)
        .into_iter()
        .find(|step| most / step <= 6.0)
        .unwrap_or(decade);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    (0..)
        .map(|at| f64::from(at) * step)
        .take_while(|value| *value <= most)
        .map(|value| (value, format!("{value:.digits$}")))
        .collect()
}

/// Returns the powers of ten in `range`, which is a range of exponents.
fn decades(range: &Range<f64>) -> Vec<(f64, String)> {
    let exponents = range.start.ceil() as i32..=range.end.floor() as i32;
    exponents
        .map(|exponent| {
            let digits = (-exponent).max(0) as usize;
            let value = 10_f64.powi(exponent);
            (value, format!("{value:.digits$}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(fitted: &Fitted) -> Vec<&str> {
        fitted.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn linear_axis_begins_at_zero() {
        let fitted = Axis::linear("").fit([300.0, 690.0]);
        assert_eq!(fitted.range().start, 0.0);
        assert!(fitted.range().end > 690.0);
        assert_eq!(texts(&fitted), ["0", "200", "400", "600"]);
    }

    #[test]
    fn small_values_have_digits() {
        let fitted = Axis::linear("").fit([0.9]);
        assert_eq!(texts(&fitted), ["0.0", "0.2", "0.4", "0.6", "0.8"]);
    }

    #[test]
    fn logarithmic_axis_has_decades() {
        let fitted = Axis::logarithmic("").fit([0.05, 200.0]);
        assert_eq!(texts(&fitted), ["0.1", "1", "10", "100"]);
        assert_eq!(fitted.format_ext(&10.0), "10");
    }

    #[test]
    fn decades_stand_apart_evenly() {
        let fitted = Axis::logarithmic("").fit([1.0, 1000.0]);
        let at = [1.0, 10.0, 100.0].map(|value| fitted.map(&value, (0, 3000)));
        // To the pixel.
        assert!((at[1] - at[0]).abs_diff(at[2] - at[1]) <= 1, "{at:?}");
    }

    #[test]
    fn given_ticks_replace_others() {
        let axis = Axis::logarithmic("").ticks([(4.0, "four".into()), (64.0, "many".into())]);
        assert_eq!(texts(&axis.fit([4.0, 64.0])), ["four", "many"]);
    }

    #[test]
    fn single_value_has_room_around() {
        for axis in [Axis::linear(""), Axis::logarithmic("")] {
            let range = axis.fit([5.0]).range();
            assert!(range.start < 5.0 && 5.0 < range.end, "{range:?}");
        }
    }
}
