//! The axes of a chart.

use plotters::chart::ChartBuilder;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::DrawingArea;
use plotters::style::Color;

use crate::canvas::{Area, Backend, DrawError, GRID, INK, MUTED, colour, font, line, px};
use crate::ticks::Ticks;

/// The part of a drawing that has coordinates.
pub(crate) type Plot<'a> = DrawingArea<Backend<'a>, Cartesian2d<Ticks, Ticks>>;

pub(crate) struct Axis<'a> {
    pub(crate) name: &'a str,
    pub(crate) ticks: &'a Ticks,
    pub(crate) label: &'a dyn Fn(f64) -> String,
    /// Pixels that labels and name take up beside the plot.
    pub(crate) room: u32,
}

/// What belongs to no single axis.
pub(crate) struct Frame {
    /// Pixels between the plot and the right side.
    pub(crate) right: u32,
    /// Whether lines go up from the ticks of the horizontal axis.
    pub(crate) upright_lines: bool,
}

/// Draws the axes, the grid between them and their names.
pub(crate) fn draw_axes<'a>(
    area: &Area<'a>,
    across: &Axis<'_>,
    up: &Axis<'_>,
    frame: &Frame,
) -> Result<Plot<'a>, DrawError> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(px(8))
        .margin_right(px(frame.right))
        .x_label_area_size(px(across.room))
        .y_label_area_size(px(up.room))
        .build_cartesian_2d(across.ticks.clone(), up.ticks.clone())?;
    let across_label = |value: &f64| (across.label)(*value);
    let up_label = |value: &f64| (up.label)(*value);
    let mut mesh = chart.configure_mesh();
    if !frame.upright_lines {
        mesh.disable_x_mesh();
    }
    mesh.bold_line_style(line(GRID, 3))
        .light_line_style(colour(GRID).mix(0.0))
        .axis_style(line(MUTED, 4))
        .x_labels(100)
        .y_labels(100)
        .x_label_style(font(MUTED, 12.0))
        .y_label_style(font(MUTED, 12.0))
        .axis_desc_style(font(INK, 12.5))
        .x_desc(across.name)
        .y_desc(up.name)
        .x_label_formatter(&across_label)
        .y_label_formatter(&up_label)
        .draw()?;
    drop(mesh);
    Ok(chart.plotting_area().clone())
}
