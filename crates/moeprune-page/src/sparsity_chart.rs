//! How sparse each decoder layer became.

use maud::{Markup, html};
use plotters::prelude::{Circle, PathElement, Text};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::axes::{Axis, Frame, draw_axes};
use crate::canvas::{self, INK, colour, font, line, px};
use crate::series::{Groups, Series};
use crate::ticks::Ticks;
use crate::wording::{SizeLabels, percent, plural};
use crate::{Cut, Error};

const WIDTH: u32 = 284;
const HEIGHT: u32 = 208;
/// Pixels between the plot and the lower side.
const BELOW: u32 = 42;
/// Labels at the end of lines are at least this far apart, in drawing units.
const LABEL_HEIGHT: i32 = 13 * 4;
/// Layers of which each gets a mark; more would hide the line.
const MARKED: usize = 48;

/// A small chart for each criterion, all with the same axes; nothing where it is not known.
pub(crate) fn sparsity_charts(groups: &Groups<'_>) -> Result<Option<Markup>, Error> {
    let known = || groups.pruned().map(|cut| &cut.layer_sparsity).filter(|it| !it.is_empty());
    let Some(layers) = known().map(Vec::len).max() else { return Ok(None) };
    let highest = known().flatten().copied().fold(0.0_f64, f64::max);
    // From zero, for half as high is to mean half as sparse.
    let high = (highest * 100.0 * 1.08).clamp(1.0, 100.0);
    let ticks = Ticks::between(0.0, high, 4);
    let labels = SizeLabels::of(groups.pruned());
    let charts = (groups.series.iter())
        .filter(|series| series.cuts.iter().any(|cut| !cut.layer_sparsity.is_empty()))
        .map(|series| chart(series, layers, &ticks, labels))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(html! { div.grid { @for chart in &charts { (chart) } } }))
}

fn chart(
    series: &Series<'_>,
    layers: usize,
    ticks: &Ticks,
    labels: SizeLabels,
) -> Result<Markup, Error> {
    let cuts: Vec<&Cut> =
        series.cuts.iter().copied().filter(|cut| !cut.layer_sparsity.is_empty()).collect();
    let names: Vec<String> = cuts.iter().map(|cut| labels.label(cut)).collect();
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let right = (12 + 6 * widest.min(18)) as u32;
    let numbers = Ticks::numbers(layers);
    let drawn = canvas::draw(WIDTH, HEIGHT, |area| {
        let across = Axis {
            name: "decoder layer",
            ticks: &numbers,
            label: &|value| numbers.label(value),
            room: BELOW,
        };
        let up = Axis {
            name: "removed or zero (%)",
            ticks,
            label: &|value| ticks.label(value),
            room: 48,
        };
        let plot = draw_axes(area, &across, &up, &Frame { right, upright_lines: false })?;
        let mut ends = Vec::new();
        for (cut, name) in cuts.iter().zip(&names) {
            let points: Vec<_> = (cut.layer_sparsity.iter().enumerate())
                .map(|(layer, share)| plot.map_coordinate(&(layer as f64, share * 100.0)))
                .collect();
            area.draw(&PathElement::new(points.clone(), line(series.colour, 6)))?;
            if layers <= MARKED {
                for &point in &points {
                    area.draw(&Circle::new(point, 8, colour(series.colour).filled()))?;
                }
            }
            ends.extend(points.last().map(|&point| (point.1, name)));
        }
        let label = font(INK, 11.0).pos(Pos::new(HPos::Left, VPos::Center));
        let x = px(WIDTH - right + 5) as i32;
        for (y, name) in spread(ends, px(HEIGHT - BELOW) as i32) {
            area.draw(&Text::new(name.clone(), (x, y), label.clone()))?;
        }
        Ok(())
    })?;
    let title = title(series, &cuts, &names, layers);
    Ok(html! {
        figure {
            figcaption { (series.mark()) " " bdi { strong { (series.name) } } }
            (canvas::picture(WIDTH, HEIGHT, &title, &drawn, &html! {}))
        }
    })
}

/// The chart as text.
fn title(series: &Series<'_>, cuts: &[&Cut], names: &[String], layers: usize) -> String {
    let means = cuts.iter().zip(names).map(|(cut, name)| {
        let mean = cut.layer_sparsity.iter().sum::<f64>() / layers as f64;
        format!("{name}: {} on average", percent(mean))
    });
    format!(
        "Sparsity of each of {} after {} by {}. {}.",
        plural(layers, "decoder layer"),
        plural(cuts.len(), "cut"),
        series.name,
        means.collect::<Vec<_>>().join("; ")
    )
}

/// Moves labels apart that would overlap, keeping their order and staying above `lowest`.
fn spread<T>(mut labels: Vec<(i32, T)>, lowest: i32) -> Vec<(i32, T)> {
    labels.sort_by_key(|label| label.0);
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + LABEL_HEIGHT);
    }
    let mut limit = lowest;
    for label in labels.iter_mut().rev() {
        label.0 = label.0.min(limit);
        limit = label.0 - LABEL_HEIGHT;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap_and_stay_on_the_chart() {
        let spread = spread(vec![(100, 'b'), (90, 'a'), (500, 'd'), (500, 'c')], 510);
        assert_eq!(spread, [(90, 'a'), (142, 'b'), (458, 'd'), (510, 'c')]);
    }
}
