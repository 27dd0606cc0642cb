//! Whether a pruned model gets a card.

use clap::Args;
use moeprune::{Card, WithCard};

/// Whether a card is written.
#[derive(Debug, Clone, Copy, Default, Args)]
#[non_exhaustive]
pub struct CardArgs {
    /// Write no README.md into OUT, the model card that the Hugging Face Hub shows. The card of MODEL becomes
    /// README.base.md with or without this
    #[arg(long)]
    pub no_card: bool,
}

impl CardArgs {
    /// A place, and whether there is a card in what is written to it.
    pub fn at<P>(self, place: P) -> WithCard<P> {
        WithCard { place, card: if self.no_card { Card::LeftOut } else { Card::Written } }
    }
}
