//! The messages of a SentencePiece model that matter to encoding. Other fields are skipped.

/// The whole file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    pub(crate) trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    pub(crate) normalizer: Option<NormalizerProto>,
}

/// One piece; its id is its place.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PieceProto {
    #[prost(string, optional, tag = "1")]
    pub(crate) piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub(crate) score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    pub(crate) kind: Option<i32>,
}

/// How the model was trained.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TrainerProto {
    #[prost(int32, optional, tag = "3")]
    pub(crate) model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    pub(crate) treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    pub(crate) byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "46")]
    pub(crate) bos_piece: Option<String>,
    #[prost(string, optional, tag = "47")]
    pub(crate) eos_piece: Option<String>,
}

/// What becomes of a text before it is cut into pieces.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(crate) precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    pub(crate) add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub(crate) remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub(crate) escape_whitespaces: Option<bool>,
}
