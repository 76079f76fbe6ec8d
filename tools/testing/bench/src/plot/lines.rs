// SPDX-License-Identifier: GPL-2.0

//! Lines over a quantity.

use plotters::{
    chart::ChartBuilder,
    element::{Circle, PathElement},
    series::LineSeries,
    style::{
        text_anchor::{HPos, VPos},
        Color, BLACK,
    },
};

use super::{colour, draw_legend, text, Area, Axis, Drawn, LEGEND_WIDTH, TEXT_HEIGHT};
use crate::series::Summary;

const X_LABELS: u32 = 44;
const Y_LABELS: u32 = 64;
const POINT: i32 = 4;

/// A line.
pub struct Line {
    name: String,
    points: Vec<(f64, Summary)>,
}

impl Line {
    /// Returns a line with the name `name` through `points`, by ascending x.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, Summary)>) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
        }
    }
}

pub(super) fn draw(area: &Area<'_>, x: &Axis, y: &Axis, lines: &[Line]) -> Drawn {
    let (width, _) = area.dim_in_pixel();
    let (area, legend) = area.split_horizontally(width as i32 - LEGEND_WIDTH);
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut chart = ChartBuilder::on(&area)
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(
            x.fit(points().map(|(at, _)| *at)),
            y.fit(points().flat_map(|(_, value)| [value.min, value.max])),
        )?;
    let label = text(TEXT_HEIGHT, HPos::Center, VPos::Center);
    chart
        .configure_mesh()
        .x_desc(x.title)
        .y_desc(y.title)
        .axis_desc_style(label)
        .light_line_style(BLACK.mix(0.0))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = colour(index);
        let medians = || line.points.iter().map(|(at, value)| (*at, value.median));
        let whisker = |(at, value): &(f64, Summary)| {
            let ends = vec![(*at, value.min), (*at, value.max)];
            PathElement::new(ends, colour.stroke_width(1))
        };
        chart.draw_series(LineSeries::new(medians(), colour.stroke_width(2)))?;
        chart.draw_series(medians().map(|at| Circle::new(at, POINT, colour.filled())))?;
        chart.draw_series(line.points.iter().map(whisker))?;
    }
    draw_legend(&legend, lines.iter().map(|line| line.name.as_str()))
}
