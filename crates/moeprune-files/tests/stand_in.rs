//! What stands in for a file is known by its first bytes.

use moeprune_files::StandIn;

#[track_caller]
fn check(beginning: impl AsRef<[u8]>, expected: Option<StandIn>) {
    let beginning = beginning.as_ref();
    assert_eq!(StandIn::of(beginning), expected, "{:?}", String::from_utf8_lossy(beginning));
}

#[test]
fn what_stands_in() {
    check("", Some(StandIn::Nothing));
    for spec in ["git-lfs.github.com", "hawser.github.com"] {
        let pointer = format!("version https://{spec}/spec/v1\noid sha256:4d7a\nsize 7\n");
        check(&pointer, Some(StandIn::GitLfsPointer));
        assert_eq!(StandIn::pointer(pointer.as_bytes()), Some(StandIn::GitLfsPointer));
    }
    check("/annex/objects/SHA256E-s7--4d7a.safetensors\n", Some(StandIn::GitAnnexPointer));
    for page in [
        "<!DOCTYPE html>\n<html>",
        "<!doctype HTML>",
        "\n  <html lang=\"en\">",
        "\u{feff}<html>",
        "<head>",
    ] {
        check(page, Some(StandIn::WebPage));
        assert_eq!(StandIn::pointer(page.as_bytes()), None);
    }
    check("Entry not found", Some(StandIn::ServerError));
    check("Invalid username or password.", Some(StandIn::ServerError));
    check("Access to model x/y is restricted.", Some(StandIn::ServerError));
}

#[test]
fn what_is_a_file() {
    for file in [
        "{}",
        "[]",
        "GGUF\x03",
        "\n",
        "version = 1\n",
        "version https://example.org\n",
        "<s> text",
        "<|im_start|>",
        "{\"error\": 1}",
        "\x08\0\0\0\0\0\0\0{}",
        "An entry not found in this file",
    ] {
        check(file, None);
    }
    check([0xff; 8], None);
}

#[test]
fn any_part_of_a_beginning_is_judged() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 7\n";
    let first = pointer.windows(5).position(|at| at == b"spec/").expect("is there") + 5;
    for end in 1..pointer.len() {
        let expected = (end >= first).then_some(StandIn::GitLfsPointer);
        assert_eq!(StandIn::of(&pointer[..end]), expected, "{end}");
    }
}
