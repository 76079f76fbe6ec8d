// SPDX-License-Identifier: GPL-2.0

//! Bars, in groups one below another.

use plotters::{
    chart::ChartBuilder,
    element::{PathElement, Rectangle},
    style::{
        text_anchor::{HPos, VPos},
        Color, BLACK,
    },
};

use super::{
    colour, draw_legend, text, Area, Axis, Drawn, LEGEND_WIDTH, TEXT_HEIGHT, TITLE_HEIGHT,
};
use crate::series::Summary;

const NAMES: u32 = 210;
const X_LABELS: u32 = 44;
/// Height of a bar, and of the space between groups.
const BAR: u32 = 16;
const GAP: u32 = 10;

/// A bar.
struct Bar {
    /// The meaning of the bar; the same in each group.
    series: &'static str,
    value: Summary,
}

/// Bars that belong together.
pub struct Group {
    name: String,
    bars: Vec<Bar>,
}

impl Group {
    /// Returns a group of bars, each with a series and a value.
    pub fn new(
        name: impl Into<String>,
        bars: impl IntoIterator<Item = (&'static str, Summary)>,
    ) -> Self {
        let bar = |(series, value)| Bar { series, value };
        Self {
            name: name.into(),
            bars: bars.into_iter().map(bar).collect(),
        }
    }

    fn height(&self) -> u32 {
        self.bars.len() as u32 * BAR + GAP
    }
}

/// Returns the height of a plot of `groups`.
pub(super) fn height(groups: &[Group]) -> u32 {
    TITLE_HEIGHT + groups.iter().map(Group::height).sum::<u32>() + X_LABELS + GAP
}

pub(super) fn draw(area: &Area<'_>, unit: &'static str, groups: &[Group]) -> Drawn {
    let mut series: Vec<&str> = Vec::new();
    for bar in groups.iter().flat_map(|group| &group.bars) {
        if !series.contains(&bar.series) {
            series.push(bar.series);
        }
    }
    // One series needs no legend.
    let (width, _) = area.dim_in_pixel();
    let legend_width = if series.len() > 1 { LEGEND_WIDTH } else { 0 };
    let (area, legend) = area.split_horizontally(width as i32 - legend_width);

    let values = groups.iter().flat_map(|group| &group.bars);
    let bottom: u32 = groups.iter().map(Group::height).sum();
    let mut chart = ChartBuilder::on(&area)
        .x_label_area_size(X_LABELS)
        .margin_left(NAMES)
        .build_cartesian_2d(
            Axis::linear(unit).fit(values.map(|bar| bar.value.max)),
            // Downwards, in pixels.
            f64::from(bottom)..0.0,
        )?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc(unit)
        .axis_desc_style(text(TEXT_HEIGHT, HPos::Center, VPos::Center))
        .light_line_style(BLACK.mix(0.0))
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;

    let name_style = text(TEXT_HEIGHT, HPos::Right, VPos::Center);
    let mut top = GAP / 2;
    for group in groups {
        let middle = top + (group.height() - GAP) / 2;
        area.draw_text(&group.name, &name_style, (NAMES as i32 - 8, middle as i32))?;
        for bar in &group.bars {
            let index = series.iter().position(|name| *name == bar.series);
            let (from, to) = (f64::from(top + 1), f64::from(top + BAR - 1));
            let Summary { median, min, max } = bar.value;
            let body = [(0.0, from), (median, to)];
            chart.draw_series([Rectangle::new(body, colour(index.unwrap_or(0)).filled())])?;
            let middle = (from + to) / 2.0;
            let ends = vec![(min, middle), (max, middle)];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(1))])?;
            top += BAR;
        }
        top += GAP;
    }
    if legend_width == 0 {
        return Ok(());
    }
    draw_legend(&legend, series)
}
