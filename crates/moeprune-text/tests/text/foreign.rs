//! Files that are no text, and text that looks like them.

use crate::made::{error, gzip, shown};

fn refused(bytes: &[u8], what: &str, remedy: &str) {
    let end = format!("; got {what}; {remedy}");
    let message = error(bytes);
    assert!(message.ends_with(&end), "{message}");
    let message = error(gzip(bytes));
    assert!(message.ends_with(&end), "packed: {message}");
}

#[test]
fn pointers_and_pages() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n";
    refused(pointer, "a git-lfs pointer", "fetch the file (git lfs pull)");
    let remedy = "if it was downloaded, it may be an error page; download the raw file, or extract its text first";
    for page in [
        "<!DOCTYPE html>\n<p>404",
        "\n <html lang=en>",
        "<?xml version=\"1.0\"?>",
        "<HTML>",
        "<!-- a --><html>",
        "<BODY class=x>",
        "<TEI xmlns=\"x\">",
    ] {
        refused(page.as_bytes(), "an HTML or XML page", remedy);
    }
}

#[test]
fn python() {
    for text in ["{'text': 'a'}\n", "[{'role': 'user', 'content': 'a'}]", " {'a_1' : 1}"] {
        refused(text.as_bytes(), "Python's notation, not JSON", "write it as JSON (json.dumps)");
    }
}

#[test]
fn archives_and_tables() {
    let remedy = "unpack it first";
    refused(b"\xfd7zXZ\0.", "an xz archive", remedy);
    refused(b"BZh91AY&SY\xbf", "a bzip2 archive", remedy);
    refused(b"PK\x03\x04..", "a zip archive, or a file of PyTorch or numpy", remedy);
    refused(b"7z\xbc\xaf\x27\x1c", "a 7z archive", remedy);
    let mut tar = vec![b'a'; 257];
    tar.extend(b"ustar\0");
    refused(&tar, "a tar archive", remedy);
    let remedy = "convert it to JSON lines first";
    refused(b"ARROW1\0\0", "an Arrow file", remedy);
    refused(b"FEA1\0\0\0\0", "a Feather file", remedy);
    refused(b"\x93NUMPY\x01\0", "a numpy array", remedy);
    refused(b"SQLite format 3\0", "an SQLite database", remedy);
    refused(b"\x80\x04\x95\x1a\0", "a Python pickle", remedy);
    refused(b"\x80\x02}q\0", "a Python pickle", remedy);
}

#[test]
fn models_and_documents() {
    refused(b"GGUF\x03\0\0\0", "a GGUF model", "choose a file of text");
    refused(b"\x40\0\0\0\0\0\0\0{\"a\"", "a safetensors file", "choose a file of text");
    refused(b"%PDF-1.7", "a PDF", "extract its text first");
    refused(b"words\0words", "binary data", "choose a file of text");
}

#[test]
fn other_encodings() {
    let remedy = "convert it to UTF-8 first (iconv -t UTF-8)";
    let utf_16: Vec<u8> = "words".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(&[b"\xff\xfe", &utf_16[..]].concat(), "UTF-16 text", remedy);
    refused(b"\xfe\xff\0a", "UTF-16 text", remedy);
    refused(b"\xff\xfe\0\0a\0\0\0", "UTF-32 text", remedy);
    refused(&utf_16, "UTF-16 text without a mark, or binary data", remedy);
}

#[test]
fn text_that_only_looks_like_it() {
    let plain = |text: &str| assert!(shown(text).starts_with("plain text\n"), "{text}");
    plain("PK is a name.");
    plain("version https://example.org");
    plain("<headline>");
    plain("<bodyguard> enters");
    plain("ORCs of the north"); // the magic of ORC files is three letters
    plain("GGUFs are files");
    plain("FEA1 is a part's number");
    plain("BZhang");
    plain("{'Twas} brillig: 'twas");
    plain("<!-- a comment -->");
    plain("x 80 \u{80}\u{4}");
}
