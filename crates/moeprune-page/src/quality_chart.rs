//! What pruning costs: accuracy or perplexity against what is left of the model.

use maud::{Markup, html};
use plotters::prelude::{Circle, PathElement, Polygon, Rectangle};
use plotters::style::Color;

use crate::axes::{Axis, Frame, draw_axes};
use crate::canvas::{self, Area, DrawError, INK, MUTED, colour, line, px};
use crate::series::{Groups, Series, Shape};
use crate::ticks::Ticks;
use crate::wording::{SizeLabels, Unit, percent, plural, significant};
use crate::{Cut, Error, Estimate};

const WIDTH: u32 = 430;
const HEIGHT: u32 = 310;
/// Pixels between the plot and the left side.
const LEFT: u32 = 56;
/// Pixels between the plot and the right side.
const RIGHT: u32 = 14;
/// How far a mark is from its middle to its side, in drawing units.
const RADIUS: i32 = 4 * 4;
/// How far apart criteria are set that have the same size, in drawing units.
const APART: i32 = 5 * 4;

/// A kind of measurement, ready to be drawn.
struct Measure<'a> {
    title: &'static str,
    axis: &'static str,
    /// The value and its standard error as the axis has them.
    of: &'a dyn Fn(&Cut) -> Option<(f64, f64)>,
    /// The value as text.
    words: &'a dyn Fn(&Cut) -> String,
    ticks: Ticks,
    label: &'a dyn Fn(f64) -> String,
}

/// Accuracy against size; nothing where it was not measured.
pub(crate) fn accuracy_chart(groups: &Groups<'_>) -> Result<Option<Markup>, Error> {
    let of = |cut: &Cut| {
        cut.accuracy.map(|Estimate { mean, stderr }| (mean * 100.0, stderr.unwrap_or(0.0) * 100.0))
    };
    let Some((low, high)) = extent(groups, &of) else { return Ok(None) };
    let ticks = Ticks::around(low, high, 6, (0.0, 100.0));
    let label = |value: f64| ticks.label(value);
    let words = |cut: &Cut| cut.accuracy.map(accuracy_words).unwrap_or_default();
    let measure = Measure {
        title: "Accuracy against size",
        axis: "accuracy (%)",
        of: &of,
        words: &words,
        ticks: ticks.clone(),
        label: &label,
    };
    chart(groups, &measure).map(Some)
}

/// Perplexity against size; nothing where it was not measured.
pub(crate) fn perplexity_chart(groups: &Groups<'_>) -> Result<Option<Markup>, Error> {
    let plain = |cut: &Cut| cut.perplexity.map(|value| (value, 0.0));
    let logarithm = |cut: &Cut| cut.perplexity.map(|value| (value.log10(), 0.0));
    let Some((low, high)) = extent(groups, &logarithm) else { return Ok(None) };
    let words =
        |cut: &Cut| cut.perplexity.map(|value| format!("perplexity {}", significant(value)));
    let words = |cut: &Cut| words(cut).unwrap_or_default();
    // A model that is destroyed has a perplexity of thousands, beside which all others are one.
    if high - low > 1.0 {
        let measure = Measure {
            title: "Perplexity against size",
            axis: "perplexity (lower is better; log scale)",
            of: &logarithm,
            words: &words,
            ticks: Ticks::powers(low, high),
            label: &|value| power_words(10_f64.powf(value)),
        };
        return chart(groups, &measure).map(Some);
    }
    let ticks = Ticks::around(10_f64.powf(low), 10_f64.powf(high), 6, (0.0, f64::MAX));
    let measure = Measure {
        title: "Perplexity against size",
        axis: "perplexity (lower is better)",
        of: &plain,
        words: &words,
        ticks: ticks.clone(),
        label: &|value| ticks.label(value),
    };
    chart(groups, &measure).map(Some)
}

/// `61.2 % ± 1.3`
pub(crate) fn accuracy_words(Estimate { mean, stderr }: Estimate) -> String {
    let mean = mean * 100.0;
    match stderr {
        Some(stderr) => format!("{mean:.1} % ± {:.1}", stderr * 100.0),
        None => format!("{mean:.1} %"),
    }
}

/// A tick of a logarithmic axis, which is 1, 2 or 5 times a power of ten.
fn power_words(value: f64) -> String {
    if !(1e-3..9_999.0).contains(&value) {
        return format!("{value:.0e}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The lowest and highest value with their errors.
fn extent(groups: &Groups<'_>, of: &dyn Fn(&Cut) -> Option<(f64, f64)>) -> Option<(f64, f64)> {
    let values = groups.all().filter_map(of);
    values
        .map(|(value, error)| (value - error, value + error))
        .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn chart(groups: &Groups<'_>, measure: &Measure<'_>) -> Result<Markup, Error> {
    let shown = || groups.all().filter(|cut| (measure.of)(cut).is_some()).map(|cut| cut.parameters);
    let (smallest, largest) = (shown().min().unwrap_or(0), shown().max().unwrap_or(0));
    let unit = Unit::for_up_to(largest);
    let sizes = Ticks::around(unit.of(smallest), unit.of(largest), 6, (0.0, f64::MAX));
    let sizes_title = match unit.parameters {
        "" => "parameters left".to_owned(),
        unit => format!("parameters left ({unit})"),
    };
    let mut places = Vec::new();
    let drawn = canvas::draw(WIDTH, HEIGHT, |area| {
        let across = Axis {
            name: &sizes_title,
            ticks: &sizes,
            label: &|value| sizes.label(value),
            room: 44,
        };
        let up =
            Axis { name: measure.axis, ticks: &measure.ticks, label: measure.label, room: LEFT };
        let frame = Frame { right: RIGHT, upright_lines: true };
        let plot = draw_axes(area, &across, &up, &frame)?;
        // An error may reach beyond what an accuracy can be, and so beyond the axis.
        let at = |cut: &Cut, value: f64| {
            let value = value.clamp(measure.ticks.low, measure.ticks.high);
            plot.map_coordinate(&(unit.of(cut.parameters), value))
        };
        places = draw_models(area, groups, measure, &at)?;
        Ok(())
    })?;
    let models = plural(groups.all().filter(|cut| (measure.of)(cut).is_some()).count(), "model");
    let title = format!(
        "{}: {} against {sizes_title}, {models}; the figures are in the table.",
        measure.title, measure.axis
    );
    let over = html! {
        @for ((x, y), words) in &places {
            circle.touch cx=(x) cy=(y) r="36" { title { (words) } }
        }
    };
    let picture = canvas::picture(WIDTH, HEIGHT, &title, &drawn, &over);
    Ok(canvas::figure(measure.title, &note(groups, measure), &picture))
}

fn note(groups: &Groups<'_>, measure: &Measure<'_>) -> Markup {
    html! {
        @if groups.all().any(|cut| (measure.of)(cut).is_some_and(|(_, error)| error > 0.0)) {
            "Bars and the band are ± one standard error. "
        }
        @if share_a_size(&groups.series, measure) {
            "Criteria that leave the same size are set slightly apart."
        }
    }
}

/// Where a model is drawn, and its figures as text.
type Placed = ((i32, i32), String);

/// Draws the unpruned model and each criterion's cuts.
fn draw_models(
    area: &Area<'_>,
    groups: &Groups<'_>,
    measure: &Measure<'_>,
    at: &dyn Fn(&Cut, f64) -> (i32, i32),
) -> Result<Vec<Placed>, DrawError> {
    let mut places = Vec::new();
    let unpruned = groups.unpruned.and_then(|cut| Some((cut, (measure.of)(cut)?)));
    if let Some((cut, (value, error))) = unpruned {
        draw_unpruned(area, at(cut, value), at(cut, value - error).1, at(cut, value + error).1)?;
        places.push((at(cut, value), words("unpruned", None, cut, measure)));
    }
    let apart = if share_a_size(&groups.series, measure) { APART } else { 0 };
    let count = groups.series.len() as i32;
    for (series, index) in groups.series.iter().zip(0..count) {
        let shift = (2 * index - (count - 1)) * apart.min(4 * APART / count.max(1)) / 2;
        let points: Vec<_> = (series.cuts.iter())
            .filter_map(|&cut| {
                let (value, error) = (measure.of)(cut)?;
                let (x, y) = at(cut, value);
                let ends = (at(cut, value - error).1, at(cut, value + error).1);
                places.push(((x + shift, y), words(series.name, Some(groups), cut, measure)));
                Some(((x + shift, y), ends))
            })
            .collect();
        draw_series(area, series, unpruned.map(|(cut, (value, _))| at(cut, value)), &points)?;
    }
    Ok(places)
}

/// What a point says when it is pointed at.
fn words(name: &str, groups: Option<&Groups<'_>>, cut: &Cut, measure: &Measure<'_>) -> String {
    let size = groups.map(|groups| format!(" {}", SizeLabels::of(groups.pruned()).label(cut)));
    let unit = Unit::for_up_to(cut.parameters);
    let parameters = match unit.parameters {
        "" => unit.text(cut.parameters),
        name => format!("{} {name}", unit.text(cut.parameters)),
    };
    let kept = match cut.experts {
        0 => String::new(),
        experts => format!(", {} of experts", percent(cut.experts_kept as f64 / experts as f64)),
    };
    let size = size.unwrap_or_default();
    format!("{name}{size}: {}; {parameters} parameters left{kept}", (measure.words)(cut))
}

/// Whether marks of two criteria would stand one upon the other.
fn share_a_size(series: &[Series<'_>], measure: &Measure<'_>) -> bool {
    let mut sizes: Vec<u64> = Vec::new();
    for one in series {
        let measured = one.cuts.iter().filter(|cut| (measure.of)(cut).is_some());
        let mut own: Vec<u64> = measured.map(|cut| cut.parameters).collect();
        own.dedup(); // they are sorted
        sizes.extend(own);
    }
    let all = sizes.len();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.len() < all
}

/// A line across the chart at what the unpruned model reaches, with its error as a band.
fn draw_unpruned(area: &Area<'_>, at: (i32, i32), low: i32, high: i32) -> Result<(), DrawError> {
    let (left, right) = (px(LEFT) as i32, px(WIDTH - RIGHT) as i32);
    if low != high {
        area.draw(&Rectangle::new([(left, high), (right, low)], colour(MUTED).mix(0.15).filled()))?;
    }
    area.draw(&PathElement::new(vec![(left, at.1), (right, at.1)], line(MUTED, 4)))?;
    area.draw(&Circle::new(at, RADIUS, colour(INK).filled()))
}

type Point = ((i32, i32), (i32, i32));

fn draw_series(
    area: &Area<'_>,
    series: &Series<'_>,
    start: Option<(i32, i32)>,
    points: &[Point],
) -> Result<(), DrawError> {
    let path: Vec<_> = start.into_iter().chain(points.iter().map(|point| point.0)).collect();
    if path.len() > 1 {
        area.draw(&PathElement::new(path, line(series.colour, 7)))?;
    }
    for &((x, y), (low, high)) in points {
        if low != high {
            let bar = line(series.colour, 5);
            area.draw(&PathElement::new(vec![(x, low), (x, high)], bar))?;
            for end in [low, high] {
                area.draw(&PathElement::new(vec![(x - 12, end), (x + 12, end)], bar))?;
            }
        }
        let filled = colour(series.colour).filled();
        if series.shape == Shape::Circle {
            area.draw(&Circle::new((x, y), RADIUS, filled))?;
        } else {
            let corners = series.shape.corners(RADIUS);
            let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
            area.draw(&Polygon::new(corners, filled))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_logarithmic_axis_are_short() {
        let words = [0.005, 1.0, 20.0, 5000.0, 1e4, 10_f64.powf(308.0)].map(power_words);
        assert_eq!(words, ["0.005", "1", "20", "5000", "1e4", "1e308"]);
    }
}
