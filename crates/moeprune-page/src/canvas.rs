//! Drawing with plotters, and what comes of it as part of a page.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::{DrawingArea, IntoDrawingArea, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, IntoFont, TextStyle};

use crate::Error;

/// Drawing units to a pixel of the page. Plotters draws in whole units, which are too coarse for
/// 128 bars side by side unless they are smaller than a pixel.
pub(crate) const SCALE: u32 = 4;

/// Text and axes in the light theme; the page's style swaps them in the dark one.
pub(crate) const INK: &str = "#1B1F24";
/// Lesser text.
pub(crate) const MUTED: &str = "#57606A";
/// Lines one should hardly see.
pub(crate) const GRID: &str = "#D8DEE4";

pub(crate) type Backend<'a> = SVGBackend<'a>;
pub(crate) type Area<'a> = DrawingArea<Backend<'a>, Shift>;
pub(crate) type DrawError = DrawingAreaErrorKind<std::io::Error>;

/// Units of this many pixels.
pub(crate) fn px(pixels: u32) -> u32 {
    pixels * SCALE
}

/// A colour of the light theme.
pub(crate) fn colour(hex: &str) -> RGBColor {
    let part = |at: usize| {
        hex.get(at..at + 2).and_then(|part| u8::from_str_radix(part, 16).ok()).unwrap_or(0)
    };
    RGBColor(part(1), part(3), part(5))
}

/// A line so many quarters of a pixel wide.
pub(crate) fn line(hex: &str, quarters: u32) -> ShapeStyle {
    colour(hex).stroke_width(quarters)
}

/// Text so many pixels high. Which font it is, the page's style says.
pub(crate) fn font(hex: &str, pixels: f64) -> TextStyle<'static> {
    // The backend divides by 1.24 what it is given.
    let size = pixels * f64::from(SCALE) * 1.24;
    FontDesc::new(FontFamily::SansSerif, size, FontStyle::Normal).into_font().color(&colour(hex))
}

/// A drawing `width × height` pixels large, without the `<svg>` around it.
pub(crate) fn draw(
    width: u32,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<(), DrawError>,
) -> Result<String, Error> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (px(width), px(height))).into_drawing_area();
        draw(&area)
            .and_then(|()| area.present())
            .map_err(|error| Error::Chart(error.to_string().into()))?;
    }
    let inner = text
        .split_once('>')
        .and_then(|(_, rest)| rest.trim_end().strip_suffix("</svg>"))
        .ok_or_else(|| Error::Chart("the drawing is no SVG".into()))?;
    // What is the default, or left to the page's style, need not be said thousands of times.
    // Text cannot hold these, for its quotes are escaped.
    Ok(inner
        .replace(" opacity=\"1\"", "")
        .replace(" font-family=\"sans-serif\"", "")
        .replace(" stroke=\"none\"/>", "/>"))
}

/// A picture of `width × height` pixels that says what it is to those who cannot see it.
pub(crate) fn picture(width: u32, height: u32, title: &str, drawn: &str, over: &Markup) -> Markup {
    html! {
        svg viewBox={ "0 0 " (px(width)) " " (px(height)) } role="img" aria-label=(title) {
            (PreEscaped(drawn))
            (over)
        }
    }
}

/// A picture with its caption.
pub(crate) fn figure(caption: &str, note: &Markup, picture: &Markup) -> Markup {
    html! {
        figure {
            figcaption { strong { (caption) } " " span.note { (note) } }
            (picture)
        }
    }
}
