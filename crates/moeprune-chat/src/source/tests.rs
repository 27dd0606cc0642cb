use super::prepare;

#[track_caller]
fn check(source: &str, expected: &str) {
    let expected = expected.replace('$', "__chat_");
    assert_eq!(prepare(source).unwrap(), expected, "{source}");
}

#[test]
fn generation() {
    check("a{% generation %}b{% endgeneration %}c", "a{% with %}b{% endwith %}c");
    check("{%- generation -%}\n{%-endgeneration+%}", "{%- with -%}\n{%-endwith+%}");
    check("{%generation%}é{%\nendgeneration\n%}", "{%with%}é{%\nendwith\n%}");
}

#[test]
fn left_alone() {
    for source in [
        "generation {generation} { % generation % }",
        "{# {% generation %} [1] #}",
        "{#}{% generation %}#}",
        "{% raw %}{% generation %}[1]{% endraw %}",
        "{% raw %}{%{%- endraw -%}",
        "{{ '{% generation %}[1]' }}",
        "{% if generation %}{% endif %}",
        "{",
        "{{-1}}",
        "{{ x[1:2][-1] ~ y.in[0] - f(a, b=1) * (1 + 2)|g(3, 4) }}",
        "{%- if not x.y(z) and x is divisibleby(3) -%}",
        "{{ )]} }}",
    ] {
        check(source, source);
    }
}

#[test]
fn containers() {
    check("{{ [] }}", "{{ ($list()) }}");
    check("{{ x in [1, y[2]] }}", "{{ x in ($list(1, y[2])) }}");
    check(
        "{{ {} ~ {'a': [b], 'c': d[1:]} }}",
        "{{ ($dict()) ~ ($dict('a', ($list(b)), 'c', d[1:])) }}",
    );
    check("{{ (1, 2)[0] ~ () ~ (3) }}", "{{ ($tuple(1, 2))[0] ~ ($tuple()) ~ (3) }}");
    check("{{ f([1], (2, 3)) }}", "{{ f(($list(1)), ($tuple(2, 3))) }}");
    check("{{ x is in [1] }}", "{{ x is in ($list(1)) }}");
    check("{{ x is not in [1] }}", "{{ x is not in ($list(1)) }}");
    check("{{ {\n'}}': 1\n} }}", "{{ ($dict(\n'}}', 1\n)) }}");
}

#[test]
fn variables() {
    check("{% set x = 1 -%}", "{% set x =$held( 1 )-%}");
    check("{% set n.x = [1] %}", "{% set n.x =$kept( ($list(1)) )%}");
    check("{% set a, b = c, d %}", "{% set a, b =$held($tuple( c, d ))%}");
    check("{% set x = a == b %}", "{% set x =$held( a == b )%}");
    check("{% set x %}", "{% set x %}");
    check("{% with a = 1, b = [2] %}", "{% with a =$held( 1), b =$held( ($list(2)) )%}");
    check("{% for a, b in c if d %}", "{% for a, b in $each( c)  if d %}");
    check("{% for a in 1, 2 recursive %}", "{% for a in $each($tuple( 1, 2))  recursive %}");
    check(
        "{% macro m(a, b=[1]) -%}",
        "{% macro m(a, b=($list(1))) -%}{%- set a = $held(a) -%}{%- set b = $held(b) -%}",
    );
    check("{% call(x) m([]) %}", "{% call(x) m(($list())) %}{%- set x = $held(x) %}");
    check("{% call m() %}", "{% call m() %}");
}

#[test]
fn as_jinja_reads_them() {
    check(r"{{ '\d\/\a\101\x41\u00e9\n\'' }}", r"{{ '\\d\\/\u0007\u0041\u0041\u00e9\n\'' }}");
    check("{{ 'a\\\nb' }}", "{{ 'ab' }}");
    check("{{ +a ~ -+b + c }}", "{{ a ~ -b + c }}");
    check("{% raw %}\na{% endraw %}", "{% raw %}\n\na{% endraw %}");
    check("{% raw -%}\na{% endraw %}", "{% raw -%}\na{% endraw %}");
    check("a\r\nb\rc", "a\nb\nc");
}

#[test]
fn refused() {
    let problem = |source: &str| prepare(source).unwrap_err();
    assert_eq!(problem("a\n\n{{ __chat_list() }}").line, 3);
    for open in ["a{% generation", "{{ 'é\\", "{# x", "{% raw %}{% endraw"] {
        assert!(problem(open).reason.ends_with("does not end"));
    }
    assert_eq!(problem(&format!("{{{{ 1{} }}}}", "+1".repeat(1000))).line, 1);
    assert!(problem(&"{% elif x %}".repeat(301)).reason.contains("elif"));
}
