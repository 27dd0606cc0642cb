//! Templates that want more than they may have: each ends, soon, with an error or a text.

use std::{fmt::Write, time::Instant};

use moeprune_chat::{Chat, ChatTemplate, Error, Limits, SpecialTokens};
use serde_json::{Map, json};

/// Fewer steps than by default, so that this is over soon without optimisation too.
const FEW: Limits =
    Limits { template: 1 << 20, steps: 30_000, steps_per_64_bytes: 64, output: 1 << 20 };

fn render(template: &str) -> Result<String, Error> {
    let template = ChatTemplate::new(template, &SpecialTokens::default())?.within(FEW);
    let messages = [json!({"role": "user", "content": "Hello", "list": [1, [2, [3]]]})];
    let variables = Map::new();
    template.render(&Chat { variables: &variables, ..Chat::of(&messages) })
}

fn is_out_of_fuel(result: &Result<String, Error>) -> bool {
    matches!(result, Err(Error::OutOfFuel { .. }))
}

#[track_caller]
fn check_out_of_fuel(template: &str) {
    let begun = Instant::now();
    let result = render(template);
    assert!(is_out_of_fuel(&result), "{template}: {result:?}");
    assert!(begun.elapsed().as_secs() < 20, "{:?}: {template}", begun.elapsed());
}

/// It ends without a panic, with any result.
fn check_ends(template: &str) {
    let begun = Instant::now();
    let result = render(template);
    let took = begun.elapsed();
    assert!(took.as_secs() < 20, "{took:?}: {template}: {:?}", result.map(|text| text.len()));
}

#[test]
fn loops() {
    check_out_of_fuel(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% for a in range(9999) %}{% for b in range(999) %}x{% endfor %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% macro m(n) %}{% for i in range(9) %}{{ m(n + 1) if n < 12 }}{% endfor %}{% endmacro %}{{ m(0) }}",
    );
    let error = render(
        "\n\n{% for a in range(9999) %}\n{% for b in range(9999) %}{% endfor %}{% endfor %}",
    )
    .unwrap_err();
    assert!(
        error.to_string().starts_with("the chat template, line 4: stopped after 30"),
        "{error}"
    );
}

#[test]
fn calls() {
    for template in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller() }}{% call m() %}{{ m() }}{% endcall %}{% endmacro %}{% call m() %}{% endcall %}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% include 'template' %}",
        "{% import 'template' as t %}",
        "{% extends 'template' %}",
        "{% block a %}{{ self.a() }}{% endblock %}",
    ] {
        assert!(render(template).is_err(), "{template}");
    }
}

#[test]
fn strings_that_double() {
    check_out_of_fuel(
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s.replace('x', n.s) %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s|replace('x', n.s) %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = n.s.join([n.s, n.s]) %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='xx') %}{% for i in range(60) %}{% set n.s = [n.s, n.s]|join(n.s) %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='\"') %}{% for i in range(60) %}{% set n.s = n.s|tojson %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    );
    check_out_of_fuel(
        "{% set n = namespace(s='\n') %}{% for i in range(60) %}{% set n.s = (n.s ~ n.s)|indent(999, true, true) %}{% endfor %}",
    );
    for template in [
        "{{ 'x' * 999999999 }}",
        "{{ 'x'.center(999999999) }}",
        "{{ 'x'.ljust(9223372036854775807) }}",
        "{{ 'x'|center(999999999) }}",
        "{{ 'x\n'|indent(9999999999) }}",
        "{{ 'x'.zfill(-9223372036854775808) }}",
        "{{ [1]|tojson(indent=9223372036854775807) }}",
        "{{ '{:999999999}'.format('x') }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '{0:{1}}'.format(1, 999999999) }}",
        "{{ 'x'.expandtabs(999999999) }}",
        "{{ [1] * 99999999 }}",
        "{{ ([1] * 99999999) ~ 1 }}",
        "{{ [1] * 99999999 == [1] * 99999999 }}",
        "{{ ([1] * 99999999)|tojson }}",
        "{{ ([1] * 99999999)|join }}",
        "{{ 2 in [1] * 99999999 }}",
        "{% set x = [1] * 99999999 %}",
        "{{ range(99999999)|list }}",
        "{{ range(0, 9223372036854775807)|list }}",
        "{{ 2 ** 999999 }}",
        "{{ 'x'|batch(999999999, 'y')|list }}",
        "{{ 'x'|slice(999999999)|list }}",
        "{{ 1|round(999999999) }}",
        "{{ 'abc'[9223372036854775807:-9223372036854775807:-1] }}",
        "{{ [1][::-9223372036854775807] }}",
    ] {
        check_ends(template);
    }
}

/// Few steps make a value that has exponentially many items, or one nested so deeply that to drop it
/// takes more stack than there is.
#[test]
fn shared_and_deep_values() {
    let make = [
        "{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}",
        "{% set n.x = {'a': n.x, 'b': n.x} %}{% set n.y = {'a': n.y, 'b': n.y} %}",
        "{% set n.x = n.x, n.x %}{% set n.y = n.y, n.y %}",
        "{% set n.x = (n.x, n.x) %}{% set n.y = (n.y, n.y) %}",
        "{% set n.x = dict(a=n.x, b=n.x) %}{% set n.y = dict(a=n.y, b=n.y) %}",
        "{% set n.x = n.x + n.x %}{% set n.y = n.y + n.y %}",
        "{% set n.x = n.x * 2 %}{% set n.y = n.y * 2 %}",
        "{% set n.x = [1]|batch(3, n.x)|list %}{% set n.y = [1]|batch(3, n.y)|list %}",
        "{% set n.x = ['', '']|map('default', n.x, true)|list %}{% set n.y = ['', '']|map('default', n.y, true)|list %}",
        "{% set n.x = [n.x, n.x]|slice(1)|list %}{% set n.y = [n.y, n.y]|slice(1)|list %}",
        "{% set n.x = n.x[0:] %}{% set n.y = n.y[0:] %}",
        "{% set n.x = [n.x] %}{% set n.y = [n.y] %}",
        "{% set n.x = namespace(a=n.x, b=n.x) %}{% set n.y = namespace(a=n.y, b=n.y) %}",
        "{% set n.a = n %}{% set n.b = [n] %}",
        "{% set n.c = cycler(n.x + n.x) %}{% set n.x = n.c.next() %}{% set n.y = [n.x] %}",
        "{% set n.x = [[n.x, 1], [n.x, 2]]|groupby(1)|list %}{% set n.y = [[n.y, 1], [n.y, 2]]|groupby(1)|list %}",
        "{% set n.x = dict(n.x|dictsort|batch(1)) %}",
        "{% set n.x = {'k': n.x}.items()|list %}{% set n.y = {'k': n.y}.items()|list %}",
    ];
    let use_it = [
        "",
        "{{ n.x == n.y }}",
        "{{ n.x < n.y }}",
        "{{ n.x in [n.y] }}",
        "{{ n.x ~ '' }}",
        "{{ n.x }}",
        "{{ n.x|string }}",
        "{{ n.x|tojson }}",
        "{{ {n.x: 1} }}",
        "{{ {(n.x, 1): 1} == {(n.y, 1): 1} }}",
        "{{ [n.x, n.y]|sort }}",
        "{{ [n.x, n.y]|unique|list }}",
        "{{ n.x|join }}",
        "{{ ''.join(n.x) }}",
        "{{ n.x|length }}",
        "{{ [n.x].index(n.y) }}",
        "{{ n.x|upper }}",
        "{{ n.x|list|length }}",
        "{{ n.x is eq n.y }}",
        "{{ n.x|pprint }}",
        "{{ n.x|sum(start=[]) }}",
        "{{ [n.x, n.y]|max }}",
        "{{ n }}",
        "{{ n == namespace(a=1) }}",
        "{{ n ~ '' }}",
        "{{ n|tojson }}",
    ];
    for make in make {
        for usage in use_it {
            for (times, start) in [(60, "[1]"), (600, "{}")] {
                check_ends(&format!(
                    "{{% set n = namespace(x={start}, y={start}) %}}{{% for i in range({times}) %}}{make}{{% endfor %}}{usage}"
                ));
            }
        }
    }
}

/// What macros, blocks and loops receive grows as well.
#[test]
fn arguments_that_double() {
    for (grow, start) in [
        ("x + x", "[1]"),
        ("[x, x]", "[1]"),
        ("[x]|batch(3, x)|list", "[1]"),
        ("x * 2", "[1]"),
        ("x[0:]", "[1]"),
    ] {
        for template in [
            format!(
                "{{% macro m(x, y) %}}{{{{ x == y }}}}{{{{ m({grow}, {}) }}}}{{% endmacro %}}{{{{ m({start}, {start}) }}}}",
                grow.replace('x', "y")
            ),
            format!(
                "{{% macro m(x, n) %}}{{{{ caller({grow}) }}}}{{% endmacro %}}{{% call(x) m({start}, 1) %}}{{{{ x }}}}{{% call(x) m({grow}, 2) %}}{{{{ x }}}}{{% endcall %}}{{% endcall %}}"
            ),
            format!(
                "{{% for x in [{start}] recursive %}}{{{{ x == 1 }}}}{{{{ loop([{grow}]) }}}}{{% endfor %}}"
            ),
        ] {
            check_ends(&template);
        }
        let mut nested = String::new();
        for level in 0..60 {
            let (x, y) = (format!("v{level}"), format!("v{}", level + 1));
            let grown = grow.replace('x', &x).replace("batchv", "batch");
            write!(nested, "{{% with {y} = {grown} %}}").unwrap();
        }
        check_ends(&format!(
            "{{% set v0 = {start} %}}{nested}{{{{ v60 == v59 }}}}{}",
            "{% endwith %}".repeat(60)
        ));
        let sets: String = (0..2000).map(|_| format!("{{% set x = {grow} %}}")).collect();
        check_ends(&format!("{{% set x = {start} %}}{sets}{{{{ x == 1 }}}}"));
    }
}

/// The engine reads long expressions recursively.
#[test]
fn long_sources() {
    let long = |before: &str, piece: &str, after: &str| {
        for times in [100, 400, 900, 5000, 50_000] {
            check_ends(&format!("{before}{}{after}", piece.repeat(times)));
        }
    };
    for (before, piece, after) in [
        ("{{ x", "[0:]", " }}"),
        ("{{ x", ".b", " }}"),
        ("{{ 1", "|list", " }}"),
        ("{{ 1", "+1", " }}"),
        ("{{ ", "not ", "1 }}"),
        ("{{ ", "-", "1 }}"),
        ("{{ ", "(", "1 }}"),
        ("{{ ", "[", "1 }}"),
        ("{{ ", "{1:", "1 }}"),
        ("{{ ", "1 if a else ", "1 }}"),
        ("{{ 1", " and 1", " }}"),
        ("{{ 1", "~1", " }}"),
        ("{{ 2", "**1", " }}"),
        ("{{ f", "()", " }}"),
        ("{{ 1", "<1", " }}"),
        ("{{ ", "'a' ", "}}"),
        ("", "{% if a %}", ""),
        ("{% if a %}", "{% elif a %}x", "{% endif %}"),
        ("", "{% for a in b %}", ""),
        ("", "{% macro a() %}", ""),
        ("", "{% with a=1 %}", ""),
        ("", "{% filter upper %}", ""),
        ("", "{% set a %}", ""),
        ("", "{{", ""),
        ("", "{%", ""),
        ("", "{#", ""),
        ("{% raw %}", "{%", ""),
        ("{{ '", "\\", ""),
        ("{{ ", "{", ""),
        ("", "{% generation %}", ""),
        ("{{ 1", " is in 1", " }}"),
        ("{% set ", "a,", " = 1 %}"),
        ("{% for a in ", "1,", "2 %}{% endfor %}"),
        ("{{ ", "a(", ""),
        ("{{ x", "|map(attribute='", ""),
        ("{% block a %}", "x", ""),
    ] {
        long(before, piece, after);
    }
}

#[test]
fn too_long() {
    let error = render(&"x".repeat(Limits::default().template + 1)).unwrap_err();
    assert!(matches!(error, Error::TooLong { .. }), "{error}");
    let template = ChatTemplate::new("{{ 'x' * 1000 }}", &SpecialTokens::default()).unwrap();
    let template = template.within(Limits { output: 999, ..Limits::default() });
    let error = template.render(&Chat::of(&[json!({"role": "user"})])).unwrap_err();
    assert!(matches!(error, Error::OutputTooLong { most: 999, .. }), "{error}");
}

#[test]
fn deep_messages() {
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    let template =
        ChatTemplate::new("{{ messages }}{{ messages|tojson }}", &SpecialTokens::default())
            .unwrap();
    assert!(template.render(&Chat::of(&[json!({"content": deep})])).is_ok());
    for _ in 0..20 {
        deep = json!([deep]);
    }
    let error = template.render(&Chat::of(&[json!({"content": deep})])).unwrap_err();
    assert_eq!(error.to_string(), "`messages` is nested more than 128 deep");
}
