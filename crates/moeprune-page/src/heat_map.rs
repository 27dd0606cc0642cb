//! How alike the experts of a layer are, as a picture.
//!
//! A cell per pair makes 16,384 cells of 128 experts. As SVG they would weigh 600 kB per layer and
//! be as many nodes for the browser to keep; as a PNG of one pixel per cell they weigh 11 kB, and the
//! browser enlarges it. Borders and labels stay vectors, upon the image.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use crate::canvas::{self, INK, MUTED, px};
use crate::wording::significant;
use crate::{Error, LayerPicture};

const WIDTH: u32 = 440;
/// Where the map begins, and how large it is, in pixels.
const LEFT: u32 = 40;
const TOP: u32 = 6;
const SIDE: u32 = 392;
/// Expert numbers beside the map fit up to so many.
const NUMBERED: usize = 32;
/// A cluster this high has its number beside it, in pixels.
const LABELLED: f64 = 11.0;
/// How many colours there are. More could not be distinguished, and would make the image larger.
const CLASSES: u8 = 64;

/// The cividis map at equal steps, which those who do not see red or green read alike, and which
/// grows steadily lighter, also when printed in grey.
const CIVIDIS: [[u8; 3]; 9] = [
    [0, 34, 78],
    [26, 56, 111],
    [67, 78, 108],
    [96, 101, 112],
    [125, 124, 120],
    [156, 149, 119],
    [189, 175, 108],
    [224, 203, 88],
    [254, 232, 56],
];

/// The order of a layer's experts in the picture: cluster by cluster.
pub(crate) fn order(picture: &LayerPicture) -> Vec<usize> {
    if picture.clusters.is_empty() {
        (0..picture.experts).collect()
    } else {
        picture.clusters.concat()
    }
}

/// The heat map of a layer that has distances.
pub(crate) fn heat_map(picture: &LayerPicture) -> Result<Markup, Error> {
    let order = order(picture);
    let range = range(picture);
    let image = data_uri(&order, picture, range)?;
    let cell = f64::from(SIDE) / order.len() as f64;
    let title = format!(
        "Heat map of the distances between {} experts of layer {}, ordered by cluster; {}.",
        picture.experts,
        picture.layer,
        match range {
            Some((low, high)) =>
                format!("from {} (dark, alike) to {} (light)", significant(low), significant(high)),
            None => "there are no two".to_owned(),
        }
    );
    let over = html! {
        image.pixels x=(px(LEFT)) y=(px(TOP)) width=(px(SIDE)) height=(px(SIDE))
            preserveAspectRatio="none" href=(image) {}
        (cluster_borders(picture, cell))
        @if order.len() <= NUMBERED {
            @for (place, expert) in order.iter().enumerate() {
                (beside(place as f64 + 0.5, cell, &expert.to_string()))
                (below(place as f64 + 0.5, cell, &expert.to_string()))
            }
        } @else {
            (cluster_numbers(picture, cell))
        }
    };
    let numbers = if order.len() <= NUMBERED { 20 } else { 4 };
    let map = canvas::picture(WIDTH, TOP + SIDE + numbers, &title, "", &over);
    let note = html! {
        "Experts are ordered by cluster"
        @if picture.clusters.iter().any(|cluster| cluster.len() > 1) {
            ", clusters of more than one are outlined"
        }
        @if order.len() > NUMBERED { "; at the side, the numbers of the larger ones" }
        "."
    };
    let scale = html! {
        @match range {
            Some((low, high)) if low < high => {
                p.scale {
                    span { "alike " (significant(low)) }
                    span.ramp style={ "background:linear-gradient(to right," (gradient()) ")" } {}
                    span { (significant(high)) " apart" }
                }
            }
            Some((low, _)) => { p.scale { "All pairs are equally far apart: " (significant(low)) "." } }
            None => { p.scale { "There are no two experts to compare." } }
        }
    };
    Ok(canvas::figure("Distance between experts", &note, &html! { (map) (scale) }))
}

/// The least and the greatest distance of two different experts.
fn range(picture: &LayerPicture) -> Option<(f64, f64)> {
    let n = picture.experts;
    let pairs = picture.distances.iter().enumerate().filter(|(index, _)| index / n != index % n);
    pairs.map(|(_, &value)| (value, value)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// The map as an image of one pixel per cell. An expert is as near to itself as any can be.
fn data_uri(
    order: &[usize],
    picture: &LayerPicture,
    range: Option<(f64, f64)>,
) -> Result<String, Error> {
    let n = order.len();
    let (low, high) = range.unwrap_or((0.0, 0.0));
    let top = f64::from(CLASSES - 1);
    let mut pixels = Vec::with_capacity(n * n);
    for &a in order {
        for &b in order {
            // Halves, for the difference of two finite numbers need not be finite.
            let part = (picture.distances[a * n + b] / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
            let class = match a == b {
                true => 0.0,
                false if low == high => (top / 2.0).round(),
                false => (part * top).round(),
            };
            pixels.push(class as u8);
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, n as u32, n as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.set_palette((0..CLASSES).flat_map(colour_of).collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

/// The colour of a class, from alike to apart.
fn colour_of(class: u8) -> [u8; 3] {
    let place = f64::from(class) / f64::from(CLASSES - 1) * (CIVIDIS.len() - 1) as f64;
    let below = (place as usize).min(CIVIDIS.len() - 2);
    let part = place - below as f64;
    [0, 1, 2].map(|channel| {
        let [a, b] = [below, below + 1].map(|at| f64::from(CIVIDIS[at][channel]));
        (a + part * (b - a)).round() as u8
    })
}

fn gradient() -> String {
    let stops = CIVIDIS.map(|[r, g, b]| format!("#{r:02X}{g:02X}{b:02X}"));
    stops.join(",")
}

/// Outlines of the clusters on the diagonal: white with a dark line in it shows upon any colour.
fn cluster_borders(picture: &LayerPicture, cell: f64) -> Markup {
    let mut path = String::new();
    for (start, size) in spans(picture).into_iter().filter(|&(_, size)| size > 1) {
        let [from, side] = [start as f64, size as f64].map(|cells| units(cells * cell));
        let (x, y) = (units(f64::from(LEFT)) + from, units(f64::from(TOP)) + from);
        path.push_str(&format!("M{x},{y}h{side}v{side}h-{side}z"));
    }
    html! {
        @if !path.is_empty() {
            path fill="none" stroke="#FFFFFF" stroke-width="12" d=(path) {}
            path fill="none" stroke="#000000" stroke-width="5" d=(path) {}
        }
    }
}

/// Where each cluster begins in the order, and how many experts it has.
fn spans(picture: &LayerPicture) -> Vec<(usize, usize)> {
    let mut start = 0;
    let clusters = picture.clusters.iter();
    let spans = clusters.map(|cluster| {
        let span = (start, cluster.len());
        start += cluster.len();
        span
    });
    spans.collect()
}

/// The number of each cluster that is high enough, counted from 1.
fn cluster_numbers(picture: &LayerPicture, cell: f64) -> Markup {
    html! {
        @for (number, (start, size)) in spans(picture).into_iter().enumerate() {
            @if size as f64 * cell >= LABELLED {
                @let middle = start as f64 + size as f64 / 2.0;
                (beside(middle, cell, &format!("C{}", number + 1)))
            }
        }
    }
}

/// A label to the left of the map, so many cells from the top.
fn beside(cells: f64, cell: f64, text: &str) -> Markup {
    let y = units(f64::from(TOP) + cells * cell);
    html! {
        text x=(px(LEFT - 5)) y=(y) dy="0.35em" text-anchor="end" font-size=(size(cell)) fill=(INK) {
            (text)
        }
    }
}

/// A label under the map.
fn below(cells: f64, cell: f64, text: &str) -> Markup {
    let x = units(f64::from(LEFT) + cells * cell);
    html! {
        text x=(x) y=(px(TOP + SIDE + 4)) dy="0.76em" text-anchor="middle" font-size=(size(cell))
            fill=(MUTED) { (text) }
    }
}

/// Of text that a cell has room for.
fn size(cell: f64) -> u32 {
    units(cell.clamp(8.0, 11.0)) as u32
}

/// Pixels in whole drawing units.
fn units(pixels: f64) -> i64 {
    (pixels * f64::from(canvas::SCALE)).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_run_from_end_to_end() {
        assert_eq!(colour_of(0), CIVIDIS[0]);
        assert_eq!(colour_of(CLASSES - 1), CIVIDIS[8]);
        let lightness = |c: u8| colour_of(c).iter().map(|&part| u32::from(part)).sum::<u32>();
        assert!((1..CLASSES).all(|c| lightness(c) + 2 >= lightness(c - 1)), "ever lighter");
    }

    #[test]
    fn pixels_are_in_cluster_order() {
        let picture = LayerPicture {
            layer: 0,
            experts: 3,
            distances: vec![f64::NAN, 1.0, -f64::MAX, 1.0, 9.0, f64::MAX, -f64::MAX, f64::MAX, 0.0],
            clusters: vec![vec![0, 2], vec![1]],
            load: vec![],
        };
        let uri = data_uri(&order(&picture), &picture, range(&picture)).unwrap();
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (3, 3, png::ColorType::Indexed));
        assert_eq!(pixels, [0, 0, 32, 0, 0, 63, 32, 63, 0]);
    }
}
