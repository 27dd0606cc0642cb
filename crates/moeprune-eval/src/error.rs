//! Everything that can go wrong, each with what to do about it.

/// The error of a [`Generator`](crate::Generator), a [`LanguageModel`](crate::LanguageModel) or a
/// [`Task`](crate::Task) written elsewhere.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why an evaluation stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There was nothing to evaluate on.
    #[error("no documents: expected at least one `question` with its `answer`")]
    NoDocuments,
    /// A count that must be at least one was zero.
    #[error("{what} is 0: give at least 1{hint}")]
    Zero {
        /// What was zero.
        what: &'static str,
        /// How to say what was probably meant, or nothing.
        hint: &'static str,
    },
    /// No task goes by this name.
    #[error("no task is called `{name}`: choose one of {known}")]
    UnknownTask {
        /// The name asked for.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// More shots were asked for than there are training documents to draw them from.
    #[error(
        "`{task}` draws {shots} shots from the training documents and was given {given}: pass all \
         of GSM8K's train.jsonl, or ask for fewer shots"
    )]
    TooFewTrainingDocuments {
        /// The task.
        task: String,
        /// The number of shots asked for.
        shots: usize,
        /// The number of training documents.
        given: usize,
    },
    /// More shots were asked for than the task is defined with.
    #[error(
        "`{task}` has {available} fixed shots and was asked for {shots}: ask for fewer, or pass \
         training documents (--fewshot-data) to draw them from"
    )]
    TooManyShots {
        /// The task.
        task: String,
        /// The number of shots asked for.
        shots: usize,
        /// The number of shots there are.
        available: usize,
    },
    /// Shots of a zero-shot task, and nothing to draw them from.
    #[error(
        "`{task}` has no shots of its own and was asked for {shots}: pass training documents \
         (--fewshot-data) to draw them from"
    )]
    ZeroShot {
        /// The task.
        task: String,
        /// The number of shots asked for.
        shots: usize,
    },
    /// Training documents for a zero-shot task, and no number of shots to draw from them.
    #[error("--fewshot-data is not used by `{task}`, which has no shots; pass --fewshot N")]
    UnusedTrainingDocuments {
        /// The task.
        task: String,
    },
    /// A filter's pattern is not a regular expression.
    #[error("filter `{filter}`: `{pattern}` is not a regular expression")]
    Pattern {
        /// The filter's name.
        filter: String,
        /// The pattern.
        pattern: String,
        /// The reason.
        source: BoxError,
    },
    /// A task could not form its requests.
    #[error("`{task}` could not turn the documents into prompts")]
    Task {
        /// The task.
        task: String,
        /// The task's reason.
        source: BoxError,
    },
    /// A task did not return one request per document.
    #[error("`{task}` made {requests} prompts of {documents} documents: it must make one of each")]
    RequestCount {
        /// The task.
        task: String,
        /// The number of documents given.
        documents: usize,
        /// The number of requests returned.
        requests: usize,
    },
    /// The generator failed.
    #[error("generation failed on documents {first} to {last}")]
    Generate {
        /// The first document of the batch, counted from 0.
        first: usize,
        /// The last document of the batch.
        last: usize,
        /// The generator's reason.
        source: BoxError,
    },
    /// The generator did not return one text per request.
    #[error(
        "the generator returned {outputs} texts for {requests} requests: it must return one each"
    )]
    OutputCount {
        /// The number of requests in the batch.
        requests: usize,
        /// The number of texts returned.
        outputs: usize,
    },
    /// A task's file cannot be read as one.
    #[error("{origin} describes no task: {reason}")]
    TaskFile {
        /// The file.
        origin: String,
        /// The key, what was expected and what was found.
        reason: String,
    },
    /// A record has other fields than a task reads.
    #[error(
        "{place}: `{task}` reads the fields {expected}, and this record has {found}: give the data as it is \
         published{published}, or describe it in a task file of your own"
    )]
    Fields {
        /// The task.
        task: String,
        /// The record.
        place: String,
        /// The fields that are read.
        expected: Box<str>,
        /// The fields that are there.
        found: Box<str>,
        /// Where the data is published, or nothing.
        published: Box<str>,
    },
    /// A template or an expression of a task does not work on a record.
    #[error("{place}: `{key}` of the task `{task}`: {reason}")]
    Template {
        /// The task.
        task: String,
        /// The record.
        place: String,
        /// The key in the task's file.
        key: &'static str,
        /// The reason.
        reason: String,
    },
    /// There are too few records to take solved examples from.
    #[error(
        "`{task}` needs examples for its shots, {needed} at least, and was given {given}: pass the data set's \
         `{split}` part (--fewshot-data), or ask for fewer shots (--fewshot)"
    )]
    TooFewExamples {
        /// The task.
        task: String,
        /// The number of records needed.
        needed: usize,
        /// The number of records there are.
        given: usize,
        /// The part of the data set that has them.
        split: Box<str>,
    },
    /// The scorer failed.
    #[error("scoring failed on questions {first} to {last}")]
    ScoreChoices {
        /// The first question of the batch, counted from 0.
        first: usize,
        /// The last question of the batch.
        last: usize,
        /// The scorer's reason.
        source: BoxError,
    },
    /// The scorer did not return one log-likelihood per pair.
    #[error(
        "the scorer returned {scores} log-likelihoods for {pairs} continuations: it must return one each"
    )]
    ScoreCount {
        /// The number of pairs given.
        pairs: usize,
        /// The number of log-likelihoods returned.
        scores: usize,
    },
    /// A log-likelihood is NaN or infinitely large.
    #[error(
        "a choice of questions {first} to {last} has a log-likelihood of {value}: the model's logits are not finite; \
         check the checkpoint, or compute in a wider type"
    )]
    NoLogLikelihood {
        /// The first question of the batch, counted from 0.
        first: usize,
        /// The last question of the batch.
        last: usize,
        /// The value returned.
        value: f64,
    },
    /// The generator did not say of each text how it ended.
    #[error(
        "the generator says how {endings} texts ended, of {requests}: it must say it of each, or of none"
    )]
    EndingCount {
        /// The number of requests in the batch.
        requests: usize,
        /// The number of endings returned.
        endings: usize,
    },
    /// A text is too short to be cut into blocks.
    #[error(
        "{tokens} tokens do not fill one block of {length}, and a block needs 2 to predict 1: \
         give a longer text or a suitable block length"
    )]
    BlockLength {
        /// The number of tokens given.
        tokens: usize,
        /// The block length asked for.
        length: usize,
    },
    /// The language model failed.
    #[error("scoring failed on token blocks {first} to {last}")]
    Score {
        /// The first block of the batch, counted from 0.
        first: usize,
        /// The last block of the batch.
        last: usize,
        /// The model's reason.
        source: BoxError,
    },
    /// The language model did not return one result per block.
    #[error(
        "the language model returned {results} results for {blocks} blocks: it must return one each"
    )]
    NllCount {
        /// The number of blocks in the batch.
        blocks: usize,
        /// The number of results returned.
        results: usize,
    },
    /// A block's negative log-likelihood is NaN or infinite.
    #[error(
        "token block {block} has a negative log-likelihood of {value}: the model's logits are not \
         finite; check the checkpoint, or compute in a wider type"
    )]
    NotFinite {
        /// The block, counted from 0.
        block: usize,
        /// The value returned.
        value: f64,
    },
    /// No block, or no predicted token, was scored.
    #[error("no token was predicted: give at least one block of two tokens")]
    NoTokens,
}
