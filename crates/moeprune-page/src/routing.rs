//! How a layer's tokens were routed, and which of its experts each cut keeps.

use maud::{Markup, html};
use plotters::chart::ChartBuilder;
use plotters::prelude::{PathElement, Rectangle};
use plotters::style::Color;

use crate::canvas::{self, GRID, INK, MUTED, colour, font, line, px};
use crate::heat_map::order;
use crate::series::{Groups, Series};
use crate::ticks::Ticks;
use crate::wording::{SizeLabels, percent, plural, shortened};
use crate::{Cut, Error, LayerPicture};

const WIDTH: u32 = 440;
/// Where the bars and strips end, in pixels.
const RIGHT: u32 = 434;
/// Of the bars with the room above them.
const BARS: u32 = 150;
/// Of the experts' numbers.
const NUMBERS: u32 = 16;
/// Of a strip, of its coloured part, and of a criterion's name above its strips.
const STRIP: u32 = 14;
const BAND: u32 = 11;
const HEADING: u32 = 22;
/// Experts' numbers fit up to so many.
const NUMBERED: usize = 32;
/// A longer name would run out of the picture; the legend has it in full.
const LONGEST_NAME: usize = 48;
/// What the bars are drawn in.
const BAR: &str = MUTED;

/// A cut, and which of the layer's experts it keeps.
type Kept<'a> = (&'a Cut, &'a [usize]);

/// The bars and strips of the layer at `place` among the MoE layers; nothing if there is neither.
pub(crate) fn routing_picture(
    picture: &LayerPicture,
    place: usize,
    groups: &Groups<'_>,
) -> Result<Option<Markup>, Error> {
    let routed = picture.load.iter().any(|&share| share > 0.0);
    let kept: Vec<(&Series<'_>, Vec<Kept<'_>>)> = (groups.series.iter())
        .map(|series| {
            let cuts = series.cuts.iter();
            (series, cuts.filter_map(|&cut| Some((cut, &**cut.kept.get(place)?))).collect())
        })
        .filter(|(_, cuts): &(_, Vec<_>)| !cuts.is_empty())
        .collect();
    if picture.experts == 0 || (!routed && kept.is_empty()) {
        return Ok(None);
    }
    let labels = SizeLabels::of(groups.pruned());
    let names = kept.iter().flat_map(|(_, cuts)| cuts.iter().map(|(cut, _)| labels.label(cut)));
    let widest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    let across = Across { left: (12 + 6 * widest as u32).clamp(56, 120), order: order(picture) };
    let bars = if routed { BARS } else { 0 };
    let numbers = if picture.experts <= NUMBERED { NUMBERS } else { 6 };
    let strips: usize = kept.iter().map(|(_, cuts)| cuts.len()).sum();
    let height = bars + numbers + HEADING * kept.len() as u32 + STRIP * strips as u32;
    let drawn = if routed { draw_bars(picture, &across, height)? } else { String::new() };
    let mut top = bars + numbers;
    let over = html! {
        @if picture.experts <= NUMBERED { (expert_numbers(&across, bars)) }
        @for (series, cuts) in &kept {
            text x=(px(across.left)) y=(px(top + 14)) font-size=(px(11)) fill=(series.colour)
                font-weight="600" { (shortened(series.name, LONGEST_NAME)) }
            @let () = top += HEADING;
            @for (cut, kept) in cuts {
                (strip(top, &labels.label(cut), series.colour, &across, kept))
                @let () = top += STRIP;
            }
        }
        @if routed { (touch(picture, &across)) }
    };
    let what = match (routed, strips) {
        (true, 0) => "Routing load",
        (true, _) => "Routing load and the experts kept",
        (false, _) => "The experts kept",
    };
    let title = format!(
        "{what}, {} of layer {}{}.",
        plural(picture.experts, "expert"),
        picture.layer,
        if strips > 0 { format!(", {}", plural(strips, "cut")) } else { String::new() }
    );
    let note = html! {
        "Experts in the same order"
        @if routed { "; the line is an equal share" }
        @if strips > 0 { "; strips are coloured where an expert is kept, and named after " (labels.meaning()) }
        "."
    };
    Ok(Some(canvas::figure(what, &note, &canvas::picture(WIDTH, height, &title, &drawn, &over))))
}

fn draw_bars(picture: &LayerPicture, across: &Across, height: u32) -> Result<String, Error> {
    let n = picture.experts as f64;
    let highest = picture.load.iter().copied().fold(0.0_f64, f64::max) * 100.0;
    let ticks = Ticks::between(0.0, (highest * 1.1).min(100.0), 4);
    canvas::draw(WIDTH, height, |area| {
        let (top, _) = area.split_vertically(px(BARS));
        let mut chart = ChartBuilder::on(&top)
            .margin_top(px(8))
            .margin_right(px(WIDTH - RIGHT))
            .y_label_area_size(px(across.left))
            .build_cartesian_2d(0.0..n, ticks.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(line(GRID, 3))
            .light_line_style(colour(GRID).mix(0.0))
            .axis_style(line(MUTED, 4))
            .y_labels(100)
            .y_label_style(font(MUTED, 11.0))
            .axis_desc_style(font(INK, 12.0))
            .y_desc("tokens (%)")
            .y_label_formatter(&|&value| ticks.label(value))
            .draw()?;
        let width = if n > 64.0 { 0.86 } else { 0.74 };
        for (place, &expert) in across.order.iter().enumerate() {
            let left = place as f64 + (1.0 - width) / 2.0;
            let corners = [(left, 0.0), (left + width, picture.load[expert] * 100.0)];
            chart.plotting_area().draw(&Rectangle::new(corners, colour(BAR).filled()))?;
        }
        let equal = 100.0 / n;
        chart.plotting_area().draw(&PathElement::new(vec![(0.0, equal), (n, equal)], line(INK, 4)))
    })
}

/// The experts from left to right.
struct Across {
    /// Where they begin, in pixels; as far in as the strips' labels need.
    left: u32,
    order: Vec<usize>,
}

impl Across {
    /// From where to where the expert at a place reaches, or several from there on, in drawing
    /// units.
    fn span(&self, place: usize, experts: usize) -> (u32, u32) {
        let width = f64::from(px(RIGHT - self.left)) / self.order.len() as f64;
        let edge = |place: usize| px(self.left) + (width * place as f64).round() as u32;
        (edge(place), edge(place + experts))
    }
}

fn expert_numbers(across: &Across, top: u32) -> Markup {
    html! {
        @for (place, expert) in across.order.iter().enumerate() {
            @let (from, to) = across.span(place, 1);
            text x=((from + to) / 2) y=(px(top + 3))
                dy="0.76em" text-anchor="middle" font-size=(px(9)) fill=(MUTED) { (expert) }
        }
    }
}

/// One cut's row: a pale ground, and colour over each run of experts that stay.
fn strip(top: u32, label: &str, colour: &str, across: &Across, kept: &[usize]) -> Markup {
    let mut stays = vec![false; across.order.len()];
    for &expert in kept {
        stays[expert] = true;
    }
    let shown: Vec<bool> = across.order.iter().map(|&expert| stays[expert]).collect();
    let mut path = String::new();
    let mut place = 0;
    for run in shown.chunk_by(|a, b| a == b) {
        let (from, to) = across.span(place, run.len());
        if run[0] {
            path.push_str(&format!("M{from},{}h{}v{}H{from}z", px(top), to - from, px(BAND)));
        }
        place += run.len();
    }
    html! {
        text x=(px(across.left - 6)) y=(px(top) + px(BAND) / 2) dy="0.35em" text-anchor="end"
            font-size=(px(10)) fill=(INK) { (label) }
        rect x=(px(across.left)) y=(px(top)) width=(px(RIGHT - across.left)) height=(px(BAND)) fill=(GRID) {}
        @if !path.is_empty() { path fill=(colour) d=(path) {} }
    }
}

/// What each expert says when it is pointed at.
fn touch(picture: &LayerPicture, across: &Across) -> Markup {
    let mut clusters = vec![0; picture.experts];
    for (number, cluster) in picture.clusters.iter().enumerate() {
        for &expert in cluster {
            clusters[expert] = number + 1;
        }
    }
    html! {
        @for (place, &expert) in across.order.iter().enumerate() {
            @let (from, to) = across.span(place, 1);
            rect.touch x=(from) width=(to - from) height=(px(BARS)) {
                title {
                    "expert " (expert) ": " (percent(picture.load[expert]))
                    @if clusters[expert] > 0 { ", cluster " (clusters[expert]) }
                }
            }
        }
    }
}
