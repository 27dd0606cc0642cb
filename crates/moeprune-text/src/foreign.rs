//! Files that people have beside text, or get in its place, and that are not text.

/// What a file is and what to do with it.
pub(crate) type Foreign = (&'static str, &'static str);

const UNPACK: &str = "unpack it first";
const CONVERT: &str = "convert it to JSON lines first";
const UTF_8: &str = "convert it to UTF-8 first (iconv -t UTF-8)";
const NOT_TEXT: &str = "choose a file of text";

/// Files by their first bytes.
const BEGINNINGS: [(&[u8], Foreign); 24] = [
    (
        b"version https://git-lfs.github.com/spec/",
        ("a git-lfs pointer", "fetch the file (git lfs pull)"),
    ),
    (
        b"version https://hawser.github.com/spec/",
        ("a git-lfs pointer", "fetch the file (git lfs pull)"),
    ),
    (b"\x1f\x8b", ("a gzip archive within an archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", ("a zstd archive within an archive", UNPACK)),
    (b"\xfd7zXZ\0", ("an xz archive", UNPACK)),
    (b"PK\x03\x04", ("a zip archive, or a file of PyTorch or numpy", UNPACK)),
    (b"PK\x05\x06", ("an empty zip archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", ("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", ("a rar archive", UNPACK)),
    (b"\x04\x22\x4d\x18", ("an lz4 archive", UNPACK)),
    (b"\x1f\x9d", ("a compress archive", UNPACK)),
    (b"!<arch>\n", ("an ar archive", UNPACK)),
    (b"\xff\xff\xff\xff", ("an Arrow stream", CONVERT)),
    (b"Obj\x01", ("an Avro file", CONVERT)),
    (b"SQLite format 3\0", ("an SQLite database", CONVERT)),
    (b"\x93NUMPY", ("a numpy array", CONVERT)),
    (b"\x89HDF\r\n", ("an HDF5 file", CONVERT)),
    (b"%PDF-", ("a PDF", "extract its text first")),
    (b"{\\rtf", ("an RTF document", "save it as plain text first")),
    (b"\xff\xfe\0\0", ("UTF-32 text", UTF_8)),
    (b"\0\0\xfe\xff", ("UTF-32 text", UTF_8)),
    (b"\xff\xfe", ("UTF-16 text", UTF_8)),
    (b"\xfe\xff", ("UTF-16 text", UTF_8)),
    (b"\x7fELF", ("a program", NOT_TEXT)),
];

/// Files by first bytes that a text may begin with too: then something in them is no text.
const WORDS: [(&[u8], Foreign); 5] = [
    (b"BZh", ("a bzip2 archive", UNPACK)),
    (b"ARROW1", ("an Arrow file", CONVERT)),
    (b"FEA1", ("a Feather file", CONVERT)),
    (b"ORC", ("an ORC file", CONVERT)),
    (b"GGUF", ("a GGUF model", NOT_TEXT)),
];

/// What `head`, the beginning of a file, is if it is certainly no text.
pub(crate) fn of(head: &[u8]) -> Option<Foreign> {
    let begins = |(beginning, _): &&(&[u8], Foreign)| head.starts_with(beginning);
    let by_word = || WORDS.iter().find(begins).filter(|_| is_binary(head));
    let by_beginning = BEGINNINGS.iter().find(begins).or_else(by_word);
    let by_form = || {
        if is_pickle(head) {
            Some(("a Python pickle", CONVERT))
        } else if head.get(257..262) == Some(b"ustar") {
            Some(("a tar archive", UNPACK))
        } else if is_safetensors(head) {
            Some(("a safetensors file", NOT_TEXT))
        } else if is_markup(head) {
            Some((
                "an HTML or XML page",
                "if it was downloaded, it may be an error page; download the raw file, or extract its text first",
            ))
        } else if is_python(head) {
            Some(("Python's notation, not JSON", "write it as JSON (json.dumps)"))
        } else {
            zeros(head)
        }
    };
    by_beginning.map(|&(_, foreign)| foreign).or_else(by_form)
}

/// Whether it is something else than UTF-8, which may be cut at the end, without bytes of zero.
pub(crate) fn is_binary(head: &[u8]) -> bool {
    let whole = str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    !whole || head.contains(&0)
}

/// Bytes of zero, which no text has.
fn zeros(head: &[u8]) -> Option<Foreign> {
    head.contains(&0).then(|| {
        let pairs = &head[..head.len().min(1 << 10)];
        let odd = |first| pairs.iter().skip(first).step_by(2).filter(|&&b| b == 0).count();
        match odd(0).max(odd(1)) * 3 > pairs.len() {
            true => ("UTF-16 text without a mark, or binary data", UTF_8),
            false => ("binary data", NOT_TEXT),
        }
    })
}

/// Protocol 2 and later: the opcode PROTO, its number, and an opcode that can follow.
fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, b'}' | b']' | b'(' | b'c' | b'X' | 0x8a | 0x95 | b'K' | b'J', ..])
}

/// A header's length in eight bytes, and the header, a JSON object.
fn is_safetensors(head: &[u8]) -> bool {
    matches!(head.get(4..10), Some([0, 0, 0, 0, b'{', b'"']))
}

/// A dict as Python shows it: `{'key': …`, also in a list.
fn is_python(head: &[u8]) -> bool {
    let start = head.trim_ascii_start();
    let start = start.strip_prefix(b"[").unwrap_or(start).trim_ascii_start();
    let Some(rest) = start.strip_prefix(b"{'") else { return false };
    let mut parts = rest.splitn(2, |&b| b == b'\'');
    let (key, after) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    key.len() <= 40
        && key.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
        && after.trim_ascii_start().first() == Some(&b':')
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// Tags that a page begins with; a fragment (`<p>`) may stand in a text.
const TAGS: [&[u8]; 8] =
    [b"<html", b"<head", b"<body", b"<title", b"<meta", b"<script", b"<svg", b"<rss"];

fn is_markup(head: &[u8]) -> bool {
    let start = head.trim_ascii_start();
    let begins =
        |word: &[u8]| start.get(..word.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(word));
    let tag = |name: &&[u8]| {
        begins(name) && start.get(name.len()).is_none_or(|b| b.is_ascii_whitespace() || *b == b'>')
    };
    let first_tag = start.split(|&b| b == b'>').next().unwrap_or_default();
    begins(b"<!doctype")
        || begins(b"<?xml")
        || TAGS.iter().any(tag)
        || (begins(b"<!--") && contains(start, b"<html"))
        || (begins(b"<") && contains(first_tag, b" xmlns"))
}
