//! The criteria that are compared, each with its own colour and shape.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::{Comparison, Cut};

/// What the lines of a chart are drawn in, as the light theme has them.
///
/// The page's style names these very colours to swap them in the dark theme. They are taken from
/// Okabe and Ito's set for the colour-blind, darkened where it is too pale for thin lines on white.
pub(crate) const COLOURS: [&str; 6] =
    ["#0072B2", "#D55E00", "#009E73", "#AA4A85", "#A67300", "#4D4D4D"];

/// How a point is marked, so that colour is never all there is to tell criteria apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Up,
    Diamond,
    Down,
}

const SHAPES: [Shape; 5] = [Shape::Circle, Shape::Square, Shape::Up, Shape::Diamond, Shape::Down];

impl Shape {
    /// The corners around a point, for a mark about `radius` wide; none for a circle.
    pub(crate) fn corners(self, radius: i32) -> Vec<(i32, i32)> {
        let r = radius;
        let (side, wide) = (r * 9 / 10, r * 23 / 20);
        match self {
            Self::Circle => vec![],
            Self::Square => vec![(-side, -side), (side, -side), (side, side), (-side, side)],
            Self::Up => vec![(0, -wide), (wide, r), (-wide, r)],
            Self::Diamond => {
                vec![(0, -r * 13 / 10), (r * 13 / 10, 0), (0, r * 13 / 10), (-r * 13 / 10, 0)]
            }
            Self::Down => vec![(0, wide), (wide, -r), (-wide, -r)],
        }
    }
}

/// One criterion and its cuts.
#[derive(Clone, Debug)]
pub(crate) struct Series<'a> {
    pub(crate) name: &'a str,
    /// The light theme's colour, one of [`COLOURS`].
    pub(crate) colour: &'static str,
    pub(crate) shape: Shape,
    /// By descending size, as one prunes ever more.
    pub(crate) cuts: Vec<&'a Cut>,
}

impl Series<'_> {
    /// The mark as it is in the charts, beside the criterion's name elsewhere.
    pub(crate) fn mark(&self) -> Markup {
        let points: Vec<String> =
            self.shape.corners(10).iter().map(|(x, y)| format!("{x},{y}")).collect();
        html! {
            svg.mark viewBox="-16 -16 32 32" aria-hidden="true" {
                @if points.is_empty() {
                    circle r="10" fill=(self.colour) {}
                } @else {
                    polygon points=(points.join(" ")) fill=(self.colour) {}
                }
            }
        }
    }
}

/// A comparison's cuts by criterion, in the order in which criteria first appear.
#[derive(Clone, Debug)]
pub(crate) struct Groups<'a> {
    pub(crate) unpruned: Option<&'a Cut>,
    pub(crate) series: Vec<Series<'a>>,
}

impl<'a> Groups<'a> {
    pub(crate) fn of(comparison: &'a Comparison) -> Self {
        let mut series = Vec::<Series<'_>>::new();
        let mut places = BTreeMap::<&str, usize>::new();
        for cut in comparison.cuts.iter().filter(|cut| !cut.is_unpruned()) {
            let place = *places.entry(&cut.criterion).or_insert(series.len());
            if place == series.len() {
                series.push(Series {
                    name: &cut.criterion,
                    colour: COLOURS[place % COLOURS.len()],
                    // Five and six share no factor: thirty criteria look different.
                    shape: SHAPES[place % SHAPES.len()],
                    cuts: vec![],
                });
            }
            series[place].cuts.push(cut);
        }
        for one in &mut series {
            // Stable: cuts of one size stay as they came.
            one.cuts.sort_by_key(|cut| Reverse(cut.parameters));
        }
        Self { unpruned: comparison.cuts.iter().find(|cut| cut.is_unpruned()), series }
    }

    /// All pruned models.
    pub(crate) fn pruned(&self) -> impl Iterator<Item = &'a Cut> + Clone {
        self.series.iter().flat_map(|series| series.cuts.iter().copied())
    }

    /// All models, the unpruned one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &'a Cut> + Clone {
        self.unpruned.into_iter().chain(self.pruned())
    }
}
