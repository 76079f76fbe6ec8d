// SPDX-License-Identifier: GPL-2.0

//! Plots of the results as SVG: lines over a quantity, and bars. Both show the median, and a
//! whisker from the lowest to the highest value.

mod axis;
mod bars;
mod lines;

use std::io;

use anyhow::{anyhow, Result};
use plotters::{
    backend::SVGBackend,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::Rectangle,
    style::{
        text_anchor::{HPos, Pos, VPos},
        Color as _, IntoFont, RGBColor, TextStyle, BLACK, WHITE,
    },
};

pub use axis::Axis;
pub use bars::Group;
pub use lines::Line;

const WIDTH: u32 = 760;
const FONT: &str = "sans-serif";
const TEXT_HEIGHT: i32 = 13;
const TITLE_HEIGHT: u32 = 40;
const LEGEND_WIDTH: i32 = 190;

/// The colours of Okabe and Ito, which are distinguishable with any colour vision.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// A plot.
pub struct Plot {
    /// The name of its file, without ".svg".
    pub name: &'static str,
    title: &'static str,
    chart: Chart,
}

enum Chart {
    Lines {
        x: Axis,
        y: Axis,
        lines: Vec<Line>,
    },
    Bars {
        unit: &'static str,
        groups: Vec<Group>,
    },
}

impl Plot {
    /// Returns a plot of lines over `x`.
    pub fn lines(
        name: &'static str,
        title: &'static str,
        x: Axis,
        y: Axis,
        lines: Vec<Line>,
    ) -> Self {
        let chart = Chart::Lines { x, y, lines };
        Self { name, title, chart }
    }

    /// Returns a plot of bars, starting at 0, of values in `unit`.
    pub fn bars(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        groups: Vec<Group>,
    ) -> Self {
        let chart = Chart::Bars { unit, groups };
        Self { name, title, chart }
    }

    /// Returns the plot as SVG.
    pub fn draw(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw_to(&mut svg)
            .map_err(|error| anyhow!("plot {}: {error}", self.name))?;
        Ok(svg)
    }

    fn draw_to(&self, svg: &mut String) -> Drawn {
        let height = match &self.chart {
            Chart::Lines { .. } => 420,
            Chart::Bars { groups, .. } => bars::height(groups),
        };
        let area = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)?;
        area.draw_text(self.title, &text(17, HPos::Left, VPos::Top), (16, 14))?;
        let area = area.margin(TITLE_HEIGHT, 8, 8, 16);
        match &self.chart {
            Chart::Lines { x, y, lines } => lines::draw(&area, x, y, lines)?,
            Chart::Bars { unit, groups } => bars::draw(&area, unit, groups)?,
        }
        area.present()?;
        Ok(())
    }
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

fn text(size: i32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle {
        font: (FONT, size).into_font(),
        color: BLACK.to_backend_color(),
        pos: Pos::new(horizontal, vertical),
    }
}

/// Draws the colour of each of `names`.
fn draw_legend<'a>(area: &Area<'_>, names: impl IntoIterator<Item = &'a str>) -> Drawn {
    const LINE: i32 = TEXT_HEIGHT + 8;
    for (at, name) in names.into_iter().enumerate() {
        let top = 8 + LINE * at as i32;
        let square = [(8, top), (8 + TEXT_HEIGHT, top + TEXT_HEIGHT)];
        area.draw(&Rectangle::new(square, colour(at).filled()))?;
        area.draw_text(
            name,
            &text(TEXT_HEIGHT, HPos::Left, VPos::Top),
            (8 + TEXT_HEIGHT + 6, top),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Summary;

    fn svg(plot: &Plot) -> String {
        let svg = plot.draw().unwrap();
        assert!(svg.starts_with("<svg"), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        svg
    }

    #[test]
    fn lines_are_named_and_drawn() {
        let line = |name: &str| Line::new(name, [1.0, 8.0, 64.0].map(|x| (x, Summary::of([x]))));
        let plot = Plot::lines(
            "example",
            "A title",
            Axis::logarithmic("width").ticks([1.0, 8.0, 64.0].map(|x| (x, format!("{x} m")))),
            Axis::linear("height"),
            vec![line("first"), line("second")],
        );
        let svg = svg(&plot);
        for text in [
            "A title", "width", "height", "first", "second", "1 m", "8 m", "64 m",
        ] {
            assert!(svg.contains(text), "no '{text}' in {svg}");
        }
        assert!(svg.matches("<polyline").count() >= 2, "{svg}");
    }

    #[test]
    fn bars_are_named_and_as_long_as_their_values() {
        let group = |name: &str, value| {
            let bars = [("one", value), ("other", 2.0 * value)];
            Group::new(
                name,
                bars.map(|(series, value)| (series, Summary::of([value]))),
            )
        };
        let plot = Plot::bars(
            "example",
            "A title",
            "seconds",
            vec![group("first", 1.0), group("second", 3.0)],
        );
        let svg = svg(&plot);
        for text in ["seconds", "one", "other", "first", "second"] {
            assert!(svg.contains(text), "no '{text}' in {svg}");
        }
        let widths = |colour: &str| -> Vec<f64> {
            svg.match_indices("<rect")
                .map(|(at, _)| &svg[at..at + svg[at..].find("/>").unwrap()])
                .filter(|rect| rect.contains(colour))
                .map(|rect| {
                    let from = rect.find("width=\"").unwrap() + 7;
                    let width = &rect[from..];
                    width[..width.find('"').unwrap()].parse().unwrap()
                })
                .filter(|width| *width != f64::from(TEXT_HEIGHT))
                .collect()
        };
        let one = widths("#0072B2");
        assert_eq!(one.len(), 2, "{svg}");
        assert!((one[1] / one[0] - 3.0).abs() < 0.1, "{one:?}");
    }
}
