//! What was read of a text and drawn from it, in words.

use moeprune_capture::TokenBlocks;
use moeprune_core::{CorpusTag, ModelSpec, Rendering, TextFacts, plural};

use super::note_of_streamed_length;

/// What was read of a text and what was drawn from it, as a sentence; `None` if it is not known.
#[must_use]
pub fn read_in_words(tag: &CorpusTag) -> Option<String> {
    let TextFacts { format, files, documents, tokens, rendering, .. } = tag.read.as_ref()?;
    let files = if *files == 1 { String::new() } else { format!("{files} files, ") };
    let often = tag.draws_per_token().unwrap_or_default();
    Some(format!(
        "{}: {files}{format}{}; {}, {} to draw from; {} of {}, each token of the text used {often:.2} times on \
         average",
        tag.name,
        put(rendering.as_ref()),
        plural(*documents, "document"),
        plural(*tokens, "token"),
        plural(tag.samples, "block"),
        plural(tag.sequence_len, "token"),
    ))
}

/// What was read of a text that is cut into consecutive blocks.
pub(super) fn notes_in_order(
    (name, format, rendering): (&str, String, Option<&Rendering>),
    blocks: &TokenBlocks,
) -> Vec<String> {
    let words = format!(
        "{name}: {format}{}; {}, {} in {} of {}",
        put(rendering),
        plural(blocks.origin().documents(), "document"),
        plural(blocks.drawable(), "token"),
        plural(blocks.blocks().len() as u64, "block"),
        plural(blocks.sequence_len() as u64, "token"),
    );
    std::iter::once(words).chain(rendering.and_then(|how| note_of_plain(name, how))).collect()
}

/// What is to be known before anything is concluded from a text: blocks that are shorter than asked for, tokens that
/// are drawn again and again, conversations without a template.
#[must_use]
pub fn warnings_of_text(tag: &CorpusTag, spec: &ModelSpec) -> Vec<String> {
    let Some(read) = &tag.read else { return Vec::new() };
    let asked = read.asked_len.and_then(|asked| usize::try_from(asked).ok());
    let shorter = asked.and_then(|asked| note_of_streamed_length(asked, spec));
    shorter.into_iter().chain(warnings_of_draw(tag)).collect()
}

/// The same but for the length of blocks, which is said before a text is read.
pub(super) fn warnings_of_draw(tag: &CorpusTag) -> Vec<String> {
    let Some(read) = &tag.read else { return Vec::new() };
    let often = tag.draws_per_token().filter(|&often| often > 1.0).map(|often| {
        let often = if often < 2.0 { format!("{often:.1}") } else { format!("{often:.0}") };
        let remedy = match read.short {
            0 => "use more text or lower --samples",
            _ => "lower --seq-len, so that shorter documents are used, or --samples",
        };
        format!(
            "warning: {} of {} were drawn from {} of {}: each is used {often} times; {remedy}",
            plural(tag.samples, "block"),
            plural(tag.sequence_len, "token"),
            plural(read.tokens, "token"),
            tag.name
        )
    });
    let plainly = read.rendering.as_ref().and_then(|how| note_of_plain(&tag.name, how));
    let short = (read.short > 0).then(|| {
        format!(
            "note: {} of {} of {} have no more tokens than a block, {}, and are not used; lower --seq-len to use them",
            read.short,
            plural(read.documents, "document"),
            tag.name,
            tag.sequence_len
        )
    });
    short.into_iter().chain(often).chain(plainly).collect()
}

/// The note about conversations that no template was there for.
fn note_of_plain(name: &str, rendering: &Rendering) -> Option<String> {
    rendering.template.is_none().then(|| {
        format!(
            "note: the model has no chat template, so the conversations of {name} are put plainly, with roles in words"
        )
    })
}

/// How conversations were put, to follow the name of a format.
fn put(rendering: Option<&Rendering>) -> &'static str {
    match rendering.map(|rendering| &rendering.template) {
        None => "",
        Some(Some(_)) => ", put by the model's chat template",
        Some(None) => ", put plainly",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(tokens: u64, rendering: Option<Rendering>) -> CorpusTag {
        let (format, files) = ("plain text".into(), 1);
        let read =
            TextFacts { format, files, documents: 1, tokens, short: 0, asked_len: None, rendering };
        CorpusTag {
            name: "c.txt".into(),
            sha256: String::new(),
            samples: 128,
            sequence_len: 128,
            seed: 0,
            repeated: 1,
            read: Some(read),
        }
    }

    #[test]
    fn what_was_read() {
        let words = |tag: &CorpusTag| read_in_words(tag).unwrap();
        assert_eq!(
            words(&tag(141, None)),
            "c.txt: plain text; 1 document, 141 tokens to draw from; 128 blocks of 128 tokens, each token of the \
             text used 116.20 times on average"
        );
        let plainly = words(&tag(1 << 15, Some(Rendering::default())));
        assert!(plainly.starts_with("c.txt: plain text, put plainly; "), "{plainly}");
        assert!(plainly.ends_with("used 0.50 times on average"), "{plainly}");
        assert_eq!(read_in_words(&CorpusTag { read: None, ..tag(1, None) }), None);
    }

    #[test]
    fn documents_that_are_not_used() {
        let mut some = tag(1 << 15, None);
        assert_eq!(warnings_of_draw(&some), Vec::<String>::new());
        some.read.as_mut().unwrap().short = 1;
        let said = "note: 1 of 1 document of c.txt have no more tokens than a block, 128, and are not used; \
                    lower --seq-len to use them";
        assert_eq!(warnings_of_draw(&some), [said]);
        some.read.as_mut().unwrap().tokens = 141;
        assert!(
            warnings_of_draw(&some)[1]
                .ends_with("lower --seq-len, so that shorter documents are used, or --samples")
        );
    }
}
