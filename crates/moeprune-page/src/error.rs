//! What can be wrong with a comparison.

/// Why a comparison cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layout is of another version.
    #[error(
        "the comparison has format {found}, but only format {supported} can be shown; make it \
         again, or use the version that made it"
    )]
    Format {
        /// The version found.
        found: u32,
        /// The version this crate knows, [`FORMAT`](crate::FORMAT).
        supported: u32,
    },
    /// A measurement that is NaN or infinite.
    #[error("{what} is {value}, which is not a finite number: measure it again")]
    NotFinite {
        /// Which number.
        what: String,
        /// What it is.
        value: f64,
    },
    /// A measurement that cannot be one.
    #[error("{what} is {value}, but must be {expected}")]
    OutOfRange {
        /// Which number.
        what: String,
        /// What it is.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// A list that does not belong to the others.
    #[error("{what}: {got} entries, but there must be {expected}")]
    Length {
        /// Which list.
        what: String,
        /// How many entries the rest of the comparison asks for.
        expected: usize,
        /// How many it has.
        got: usize,
    },
    /// An expert that the layer does not have.
    #[error("{what}: expert {expert} is named, but the layer has {experts}, counted from 0")]
    NoSuchExpert {
        /// What names it.
        what: String,
        /// The expert named.
        expert: usize,
        /// How many there are.
        experts: usize,
    },
    /// An expert that is listed twice, or is in no cluster or in several.
    #[error("{what}: expert {expert} is named {times} times instead of once")]
    NotOnce {
        /// The list.
        what: String,
        /// An expert of which that is not so.
        expert: usize,
        /// How often it is named.
        times: usize,
    },
    /// Layers out of order, or one of them twice.
    #[error("layer {layer} follows layer {before}; layers must ascend")]
    LayerOrder {
        /// The layer that comes too late.
        layer: usize,
        /// The one before it.
        before: usize,
    },
    /// The unpruned model is there more than once, so that nothing can be compared with it.
    #[error("the unpruned model is listed {0} times, but can be listed only once")]
    SeveralUnpruned(usize),
    /// A chart could not be drawn.
    #[error("cannot draw a chart: {0}")]
    Chart(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A heat map could not be encoded.
    #[error("cannot encode a heat map: {0}")]
    Image(#[from] png::EncodingError),
}
