//! One MoE layer's part of the page.

use maud::{Markup, html};

use crate::heat_map::heat_map;
use crate::routing::routing_picture;
use crate::series::Groups;
use crate::wording::{percent, plural};
use crate::{Error, LayerPicture};

/// The pictures of the layer at `place` among the MoE layers; only the first is open, for 35 at
/// once would be slow and no one reads them all.
pub(crate) fn layer_section(
    picture: &LayerPicture,
    place: usize,
    groups: &Groups<'_>,
) -> Result<Markup, Error> {
    let routing = routing_picture(picture, place, groups)?;
    let heat_map = match picture.distances.is_empty() || picture.experts == 0 {
        true => None,
        false => Some(heat_map(picture)?),
    };
    let routed = picture.load.iter().any(|&share| share > 0.0);
    Ok(html! {
        details.layer open[place == 0] {
            summary {
                strong { "Layer " (picture.layer) }
                span { (summary(picture)) }
            }
            @if heat_map.is_none() { p.none { "How alike the experts are was not measured." } }
            @if !routed {
                p.none {
                    @if picture.load.is_empty() { "How tokens were routed was not measured." }
                    @else { "No token was routed in this layer." }
                }
            }
            div.grid.wide {
                div {
                    @if let Some(heat_map) = heat_map { (heat_map) }
                    (clusters(picture))
                }
                @if let Some(routing) = routing { (routing) }
            }
        }
    })
}

/// What a closed layer shows.
fn summary(picture: &LayerPicture) -> String {
    let mut text = plural(picture.experts, "expert");
    if !picture.clusters.is_empty() {
        text.push_str(" in ");
        text.push_str(&plural(picture.clusters.len(), "cluster"));
    }
    // The first of the busiest.
    let busiest = (picture.load.iter().enumerate())
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .filter(|&(_, &share)| share > 0.0);
    if let Some((expert, &share)) = busiest {
        text.push_str(&format!("; expert {expert} got most tokens, {}", percent(share)));
    }
    text
}

/// The members of the clusters of more than one, for a picture of 128 experts cannot number them.
fn clusters(picture: &LayerPicture) -> Markup {
    let large = || picture.clusters.iter().enumerate().filter(|(_, cluster)| cluster.len() > 1);
    let alone = picture.clusters.len() - large().count();
    html! {
        @if large().next().is_some() {
            details.clusters {
                summary { "Which experts are in which cluster" }
                dl {
                    @for (number, cluster) in large() {
                        div {
                            dt { "C" (number + 1) }
                            dd {
                                @for (place, expert) in cluster.iter().enumerate() {
                                    @if place > 0 { ", " }
                                    (expert)
                                }
                            }
                        }
                    }
                }
                @if alone > 0 { p.note { (plural(alone, "expert")) " alone." } }
            }
        } @else if !picture.clusters.is_empty() {
            p.none { "Every expert is alone in its cluster." }
        }
    }
}
