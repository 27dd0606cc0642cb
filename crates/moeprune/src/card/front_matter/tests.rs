use super::*;

/// What is kept of a front matter, a line each, then what was passed over; or why it is unclear.
fn read(card: &[u8]) -> String {
    match BaseCard::of(card) {
        BaseCard::Missing => "missing".to_owned(),
        BaseCard::Unclear(why) => format!("unclear: {why}"),
        BaseCard::Read(FrontMatter { kept, ancestors, passed_over }) => {
            let mut text: String = kept.iter().map(|(key, value)| entry(key, value)).collect();
            ancestors.iter().for_each(|ancestor| text += &format!("of {ancestor}\n"));
            passed_over.iter().for_each(|key| text += &format!("not {key}\n"));
            text
        }
    }
}

fn check(front: &str, expected: &str) {
    assert_eq!(read(format!("---\n{front}\n---\n# Title\n").as_bytes()), expected, "{front}");
}

#[test]
fn licence_language_and_pipeline_are_kept_and_the_rest_is_dropped() {
    check("license: apache-2.0", "license: apache-2.0\n");
    check(
        "license: other\nlicense_name: tongyi-qianwen",
        "license: other\nlicense_name: tongyi-qianwen\n",
    );
    check(
        "license_link: https://example.org/a?b=c#d",
        "license_link: \"https://example.org/a?b=c#d\"\n",
    );
    check(
        "pipeline_tag: text-generation\nlanguage:\n- en\n- fr",
        "language:\n- en\n- fr\npipeline_tag: text-generation\n",
    );
    check("language: [en, zh]", "language:\n- en\n- zh\n");
    check("language: []", "");
    check("base_model: org/base", "of org/base\n");
    check("base_model:\n- org/a\n- org/b", "of org/a\nof org/b\n");
    check(
        "license: mit\nmetrics: [accuracy]\ndatasets: [c4]\ntags: [moe]\ninference: false\nlibrary_name: vllm\n\
         model-index:\n- name: x\n  results:\n  - metrics:\n    - {type: acc, value: 0.9}",
        "license: mit\n",
    );
    check("# nothing but a comment", "");
    check("", "");
    for null in ["", " ~", " null", " # a comment"] {
        check(&format!("license:{null}"), "");
    }
}

#[test]
fn values_read_back_as_they_were() {
    // No version of YAML may take a language for false.
    check("language: no", "language: \"no\"\n");
    check("language: [No, on, y]", "language:\n- \"No\"\n- \"on\"\n- \"y\"\n");
    check("license: 'a: b'", "license: \"a: b\"\n");
    check("license: \"a\\nb\\u0007\"", "license: \"a\\u000Ab\\u0007\"\n");
    check("license: 'say \"x\" \\'", "license: \"say \\\"x\\\" \\\\\"\n");
    check("license_name: 通义千问", "license_name: \"通义千问\"\n");
    check("license_name: \"\\U0001F600\"", "license_name: \"\\U0001F600\"\n");
    check("license: 3.0", "license: \"3.0\"\n");
    check("license: |\n  two\n  lines", "license: \"two\\u000Alines\\u000A\"\n");
    check("license: \"---\"", "license: \"---\"\n");
    check("license: '<script>'", "license: \"<script>\"\n");
}

#[test]
fn what_is_no_text_or_stands_there_twice_is_passed_over() {
    check("license: {name: mit}\nlanguage: en", "language: en\nnot license\n");
    check("language: [en, [fr]]", "not language\n");
    check("language: [en, {fr: 1}]", "not language\n");
    check("license: mit\nlicense: mit", "not license\n");
    check(
        "license: mit\nlanguage: en\nlicense: apache-2.0\nlicense: x",
        "language: en\nnot license\n",
    );
    check("base_model: a/b\nbase_model: c/d", "");
    check("x: &a mit\nlicense: *a", "not license\n");
    check("license: &a mit", "license: mit\n");
    check(&format!("license: {}", "x".repeat(501)), "not license\n");
    check(&format!("license: {}", "x".repeat(500)), &format!("license: {}\n", "x".repeat(500)));
    check(&format!("language: [{}]", "en,".repeat(501)), "not language\n");
    // Keys that are no texts.
    check("? [a, b]\n: 1\nlicense: mit", "license: mit\n");
    check("<<: {license: gpl}\nlicense: mit", "license: mit\n");
}

#[test]
fn ends_of_lines_and_marks_of_order() {
    for (card, expected) in [
        ("\u{feff}---\nlicense: mit\n---\n", "license: mit\n"),
        ("---\r\nlicense: mit\r\nlanguage:\r\n- en\r\n---\r\n", "language:\n- en\nlicense: mit\n"),
        ("\n\n---\nlicense: mit\n---", "license: mit\n"),
        ("---  \nlicense: mit\n--- \n", "license: mit\n"),
        ("", ""),
        ("# Title\n---\nlicense: mit\n---\n", ""),
        ("----\nlicense: mit\n----\n", ""),
    ] {
        assert_eq!(read(card.as_bytes()), expected, "{card:?}");
    }
}

#[test]
fn hostile_cards_are_unclear() {
    let check = |card: &[u8], expected: &str| {
        let found = read(card);
        assert!(found.starts_with("unclear: "), "{found:.200}");
        assert!(found.contains(expected), "{found:.200}, expected {expected}");
    };
    check(b"---\nlicense: \xff\n---\n", "is not UTF-8");
    check(b"\xff\xfe-\0-\0-\0\n\0", "is not UTF-8");
    check(b"# half of a character \xe2\x82", "is not UTF-8");
    check(b"---\nlicense: mit\n", "without an end");
    check(b"---", "without an end");
    check(
        &[b"---\na: ", &b"x".repeat(10 << 20)[..], b"\n---\n"].concat()[..MOST as usize],
        "without an end",
    );
    check(b"---\nlicense: mit\n\tlanguage: en\n---\n", "cannot be read");
    check(b"---\nlicense: [mit\n---\n", "cannot be read");
    check(b"---\nlicense: *unknown\n---\n", "cannot be read");
    check(b"---\njust text\n---\n", "no list of keys");
    check(b"---\n- a\n- b\n---\n", "no list of keys");
    check(&[b"---\na: ", &b"[".repeat(100_000)[..], b"\n---\n"].concat(), "cannot be read");
    check(&[b"---\n", &b"{a: ".repeat(100_000)[..], b"\n---\n"].concat(), "cannot be read");
}

/// A list of lists of lists has a billion entries when its aliases are expanded.
#[test]
fn aliases_are_not_expanded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    check(&format!("{bomb}license: mit\nlanguage: *a9"), "license: mit\nnot language\n");
}

/// Front matters that are deep, wide or long, within what is read.
#[test]
fn large_front_matters_end_soon() {
    let nested: String = (0..90).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    check(&format!("{nested}license: mit"), "license: mit\n");
    let began = std::time::Instant::now();
    for front in [
        "- ".repeat(100_000),
        "? ".repeat(500_000),
        "a: b\n".repeat(100_000),
        "#\n".repeat(300_000),
        format!("a: \"{}\"", "\\n".repeat(300_000)),
        format!("a: '{}", "'".repeat(600_000)),
        format!("a: {}", "b: ".repeat(200_000)),
        format!("a: |\n{}", "\n".repeat(500_000)),
        "&a ".repeat(200_000),
        "!".repeat(500_000),
    ] {
        read(format!("---\n{front}\nlicense: mit\n---\n").as_bytes());
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

/// What front matters are made of, in any order.
const PIECES: [&str; 40] = [
    "---",
    "\n",
    "\r",
    "\t",
    " ",
    "  ",
    "license",
    "language",
    "base_model",
    ":",
    ": ",
    "- ",
    "-",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "'",
    "&a",
    "*a",
    "!!str ",
    "!x",
    "|",
    ">",
    "\\",
    "#",
    " #",
    "?",
    "? ",
    "%YAML 1.2",
    "...",
    "<<",
    "é",
    "\u{feff}",
    "\u{85}",
    "\0",
    "no",
    "\u{2028}",
];

/// No bytes make the reading panic, and what is kept is written so that it is read back.
#[test]
fn any_card() {
    let mut random = 1_u64;
    let mut draw = |below: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..5_000 {
        let pieces = draw(24);
        let front: String = (0..pieces).map(|_| PIECES[draw(PIECES.len())]).collect();
        let card = format!("---\nlicense: {front}\n---\n");
        let BaseCard::Read(front) = BaseCard::of(card.as_bytes()) else { continue };
        let written: String = front.kept.iter().map(|(key, value)| entry(key, value)).collect();
        let BaseCard::Read(again) = BaseCard::of(format!("---\n{written}---\n").as_bytes()) else {
            panic!("{card:?} was written as {written:?}");
        };
        let kept = front.kept.iter().filter(|(_, value)| *value != FrontValue::Many(Vec::new()));
        assert!(again.kept.iter().eq(kept), "{card:?} was written as {written:?}");
    }
}
