//! What a template may take.

/// What a template may take: it is a foreign program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest template that is read, in bytes.
    pub template: usize,
    /// Steps of a rendering, apart from those for what it is rendered with: a step is an instruction
    /// or 64 bytes that are made.
    pub steps: u64,
    /// Further steps for each 64 bytes of what it is rendered with.
    pub steps_per_64_bytes: u64,
    /// The longest text, in bytes.
    pub output: usize,
}

impl Default for Limits {
    /// A mebibyte of template; a million steps, and 16 for each byte of messages, where templates of published models take
    /// a few thousand and at most 12; 64 MiB of text.
    fn default() -> Self {
        Self { template: 1 << 20, steps: 1_000_000, steps_per_64_bytes: 1024, output: 64 << 20 }
    }
}
