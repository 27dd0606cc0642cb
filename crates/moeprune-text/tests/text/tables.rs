//! Comma- and tab-separated values.

use moeprune_text::TextFile;

use crate::made::{error_named, gzip, named, shown_named};

fn check(name: &str, text: &str, expected: &str) {
    assert_eq!(shown_named(name, text), expected, "{text}");
    assert_eq!(shown_named(name, format!("\u{feff}{text}")), expected, "marked: {text}");
}

#[test]
fn tables_by_name() {
    check(
        "a.csv",
        "text\nfirst\n\"a \"\"b\"\",\nc\"\nlast",
        "CSV rows of `text`\nline 2: \"first\"\nline 3: \"a \\\"b\\\",\\nc\"\nline 5: \"last\"",
    );
    check("a.TSV", "id\ttext\n1\ta, b\n", "TSV rows of `text`\nline 2: \"a, b\"");
    check(
        "a.csv",
        "question,answer\n1+1?,2\n",
        "CSV rows of `question` and `answer`\nline 2: question \"1+1?\" \"2\"",
    );
    check(
        "a.csv",
        "instruction,input,output\na,,b\n",
        "CSV rows of `instruction` and `output`\nline 2: {\"role\":\"user\",\"content\":\"a\"} {\"role\":\"assistant\",\"content\":\"b\"}",
    );
    check(
        "a.csv",
        "prompt,completion\r\na,b\r\n",
        "CSV rows of `prompt` and `completion`\nline 2: {\"role\":\"user\",\"content\":\"a\"} {\"role\":\"assistant\",\"content\":\"b\"}",
    );
    check("a.csv", "{\"text\": \"a\"}\n", "JSON lines of `text`\nline 1: \"a\"");
    let (_folder, path) = named("a.csv.gz", gzip("text\na\n"));
    assert_eq!(TextFile::open(path).unwrap().format().to_string(), "CSV rows of `text`, gzipped");
}

#[test]
fn tables_by_their_first_line() {
    check("t", "id,text\n1,a\n", "CSV rows of `text`\nline 2: \"a\"");
    check(
        "t",
        "question\tanswer\n1\t2\n",
        "TSV rows of `question` and `answer`\nline 2: question \"1\" \"2\"",
    );
    let plain = |text: &str| check("t", text, &format!("plain text\nline 1: piece {text:?}, last"));
    plain("id,name\n1,a\n");
    plain("text, then more\nand, more\n");
    plain("text,text and more\nand,more\n");
    plain("text,title\nno commas here\n");
    plain("text\nalone\n");
}

#[test]
fn what_is_wrong_is_named() {
    let said = [
        ("a.csv", "id,name\n1,a\n"),
        ("a.tsv", "text,label\na,1\n"),
        ("a.csv", "Once upon a time, there was\na moth.\n"),
        ("a.csv", "text,id\na\n"),
        ("a.csv", "text,id\na,1,2\n"),
        ("a.csv", "text,text\na,b\n"),
        ("a.csv", "prompt,chosen,rejected\na,b,c\n"),
        ("a.csv", ""),
    ]
    .map(|(name, text)| error_named(name, text));
    insta::assert_snapshot!(said.join("\n"));
    let message = error_named("a.csv", b"text\na\n\xff\n");
    assert!(message.ends_with("line 3: expected UTF-8 text, got bytes that are not"), "{message}");
}
