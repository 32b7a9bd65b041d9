use jiff::Zoned;
use minijinja::{Environment, Error, context};

use super::super::source::translate;
use super::*;

fn render(source: &str) -> Result<String, Error> {
    let mut env = Environment::new();
    env.set_fuel(Some(1_000_000));
    install(&mut env);
    let now: Zoned = "2024-03-09T08:07:06+00:00[UTC]".parse().unwrap();
    env.render_str(
        &translate(source),
        context! { strftime_now => strftime(now), text => "a b", messages => [context! { role => "user" }] },
    )
}

#[track_caller]
fn check(source: &str, expected: &str) {
    match render(source) {
        Ok(text) => assert_eq!(text, expected, "{source}"),
        Err(error) => panic!("{source}: {error}"),
    }
}

/// Sources with what Python 3 and Jinja 3 with Hugging Face's settings make of them.
#[test]
fn templates_give_what_python_gives() {
    for (source, expected) in [
        // Formatting.
        ("{{ '%s' % text }}", "a b"),
        ("{{ '%s and %s' % ('x', 1) }}", "x and 1"),
        ("{{ '%(a)s-%(b)03d' % {'a': 'x', 'b': 7} }}", "x-007"),
        ("{{ '%.2f%%' % 12.345 }}", "12.35%"),
        ("{{ '%5s|%-5s|' % ('a', 'b') }}", "    a|b    |"),
        (
            "{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 % 2 }}",
            "1 2 -2 1.5",
        ),
        ("{% if messages|length % 2 == 1 %}odd{% endif %}", "odd"),
        (
            "{{ '{} {0}'.format('a') if false else '{0}{1}'.format('a', 'b') }}",
            "ab",
        ),
        ("{{ '{a}'.format_map({'a': 1}) }}", "1"),
        // Strings.
        ("{{ 'a.b.c'.rsplit('.', 1) | join('|') }}", "a.b|c"),
        ("{{ 'a b  c'.split() | join('|') }}", "a|b|c"),
        ("{{ ' a b  c '.split(maxsplit=1) | join('|') }}", "a|b  c "),
        ("{{ ' a b  c '.rsplit(None, 1) | join('|') }}", " a b|c"),
        ("{{ 'a,b'.split(sep=',')[-1] }}", "b"),
        (
            "{{ 'prefix-x'.removeprefix('prefix-') }}{{ 'x.py'.removesuffix('.py') }}",
            "xx",
        ),
        ("{{ 'k=v=w'.partition('=') | join('|') }}", "k|=|v=w"),
        ("{{ 'k=v=w'.rpartition('=') | join('|') }}", "k=v|=|w"),
        ("{{ 'kv'.rpartition('=')[2] }}", "kv"),
        ("{{ 'a\r\nb\rc\n'.splitlines() | length }}", "3"),
        ("{{ 'a\nb'.splitlines(keepends=True)[0] ~ '|' }}", "a\n|"),
        ("{{ '42'.zfill(5) }} {{ '-42'.zfill(5) }}", "00042 -0042"),
        (
            "{{ 'a'.center(4, '*') }}|{{ 'a'.center(3) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3) }}",
            "*a**| a |a  |  a",
        ),
        ("{{ 'ab'.center(5, '*') }}", "**ab*"),
        ("{{ 'a\tb'.expandtabs(4) }}", "a   b"),
        (
            "{{ 'abcb'.index('b') }}{{ 'abcb'.rindex('b') }}{{ 'abcb'.find('z') }}",
            "13-1",
        ),
        (
            "{{ 'aXb'.swapcase() }}{{ 'Straße'.casefold() }}",
            "AxBstrasse",
        ),
        (
            "{{ '12'.isdigit() }}{{ '1²'.isdecimal() }}{{ 'a1'.isidentifier() }}{{ 'A B'.istitle() }}",
            "TrueFalseTrueTrue",
        ),
        ("{{ 'aXbX'.replace('X', '-', 1) }}", "a-bX"),
        (
            "{{ '  xy '.strip() }}{{ 'xxyx'.strip('x') }}{{ 'xyx'.lstrip('x') }}{{ 'xyx'.rstrip('x') }}",
            "xyyyxxy",
        ),
        ("{{ ', '.join(['a', 'b']) }}", "a, b"),
        (
            "{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('c') }}",
            "TrueTrue",
        ),
        (
            "{{ 'hello world'.title() }}{{ 'aB'.capitalize() }}{{ 'a-a'.count('a') }}",
            "Hello WorldAb2",
        ),
        // Lists and dictionaries.
        (
            "{{ [1, 2, 3].index(2) }}{{ [1, 1].count(1) }}{{ (1, 2).index(1) }}",
            "120",
        ),
        (
            "{{ {'a': 1}.get('a') }}{{ {'a': 1}.get('b', 2) }}{{ {}.get('b') }}",
            "12None",
        ),
        (
            "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}{{ {'a': 1}.keys() | list | length }}",
            "a11",
        ),
        (
            "{% set d = {'items': 1} %}{% for k in d.items() %}{{ k[0] }}{% endfor %}",
            "items",
        ),
        (
            "{{ [1, 2, 3, 4][::-1] | join }}{{ [1, 2, 3, 4][-2:] | join }}{{ 'abc'[::-1] }}{{ [1,2,3,4][3:0:-2] | join }}",
            "432134cba42",
        ),
        ("{{ dict(a=1).copy().a }}{{ [1].copy()[0] }}", "11"),
        // Jinja.
        (
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | rejectattr('role', 'eq', 'user') | list | length }}",
            "10",
        ),
        (
            "{{ messages | map(attribute='role') | first }}{{ messages | map(attribute='x', default='d') | first }}",
            "userd",
        ),
        (
            "{% for group in [{'r': 'a', 'n': 1}, {'r': 'b', 'n': 2}, {'r': 'a', 'n': 3}] | groupby('r') %}{{ group.grouper }}{{ group.list | length }}{% endfor %}",
            "a2b1",
        ),
        (
            "{% for row in [1, 2, 3] | batch(2, 'x') %}{{ row | join }};{% endfor %}",
            "12;3x;",
        ),
        (
            "{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{% endfor %}",
            "a2b1",
        ),
        (
            "{{ '%s!' | format('a') }}{{ 'a b c d' | wordwrap(3) | replace('\n', '/') }}",
            "a!a b/c d",
        ),
        (
            "{{ none is sameas none }}{{ 1 is sameas true }}{{ 2 in [1, 2] }}{{ 2 is in [1, 2] }}",
            "TrueFalseTrueTrue",
        ),
        (
            "{{ none is iterable }}{{ missing is iterable }}",
            "FalseTrue",
        ),
        (
            "{{ 'a' is iterable }}{{ 1 is iterable }}{{ {} is mapping }}{{ [] is sequence }}{{ range is callable }}",
            "TrueFalseTrueTrueTrue",
        ),
        (
            "{% macro f(a, b='y') %}{{ a }}{{ b }}{{ caller() if caller else '' }}{% endmacro %}{{ f('x') }}{% call f('z', b='w') %}!{% endcall %}",
            "xyzw!",
        ),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "023",
        ),
        (
            "{% for c in 'abc' %}{{ loop.index }}{{ loop.first }}{{ loop.previtem | default('-') }}{{ loop.nextitem | default('-') }}{{ loop.cycle('o', 'e') }} {% endfor %}",
            "1True-bo 2Falseace 3Falseb-o ",
        ),
        (
            "{% set ns = namespace(x=1, y=[]) %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% set ns.y = ns.y + [i] %}{% endfor %}{{ ns.x }}{{ ns.y | join }}",
            "4012",
        ),
        (
            "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set x %}y{% endset %}{{ x }}",
            "12y",
        ),
        ("a{% generation %}b{{ text }}{% endgeneration %}c", "aba bc"),
        (
            "{{ 'x' | center(5) }}|{{ 'xax' | trim('x') }}|{{ ' a ' | trim }}",
            "  x  |a|a",
        ),
        (
            "{{ strftime_now('%Y-%m-%d %d %b %Y %H:%M') }}",
            "2024-03-09 09 Mar 2024 08:07",
        ),
        (
            "{{ (1, 2) }}{{ none }}{{ true }}{{ 1.0 }}{{ missing }}",
            "(1, 2)NoneTrue1.0",
        ),
        (
            "{{ [1, 'a', none, {'k': \"it's\"}] }}",
            "[1, 'a', None, {'k': \"it's\"}]",
        ),
        ("{{ ['a'] | string }}{{ 'x' ~ ['a'] }}", "['a']x['a']"),
        (
            "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}",
            "aba",
        ),
        // Constant strings beside each other, and escapes.
        ("{{ 'a' 'b' }}{{ \"\\u00e9\\x41\" }}", "abéA"),
    ] {
        check(source, expected);
    }
}

#[test]
fn json_is_what_python_prints() {
    for (source, expected) in [
        (
            r#"{{ {"a": [1, 2.5, true, none], "é": "<b> & 'c'\n\\u003c \""} | tojson }}"#,
            r#"{"a": [1, 2.5, true, null], "é": "<b> & 'c'\n\\u003c \""}"#,
        ),
        ("{{ [1]|tojson(indent=4) }}", "[\n    1\n]"),
        (
            "{{ {'b': [], 'a': {}}|tojson(indent=2, sort_keys=true) }}",
            "{\n  \"a\": {},\n  \"b\": []\n}",
        ),
        (
            "{{ {'a': [1, 2]}|tojson(separators=(',', ':')) }}",
            "{\"a\":[1,2]}",
        ),
        (
            "{{ 'é😀\u{7f}\u{1}'|tojson(ensure_ascii=true) }}",
            "\"\\u00e9\\ud83d\\ude00\u{7f}\\u0001\"",
        ),
        ("{{ 'é'|tojson(ensure_ascii=False) }}", "\"é\""),
        (
            "{{ [1e16, 1.5e-7, 0.0001, 123456789.125, 1e22, -0.0]|tojson }}",
            "[1e+16, 1.5e-07, 0.0001, 123456789.125, 1e+22, -0.0]",
        ),
        (
            "{{ {1: 2, none: 3, true: 4}|tojson }}",
            "{\"1\": 4, \"null\": 3}",
        ),
        (
            "{{ (1, 2)|tojson }}{{ {'a': 1}.items()|list|tojson }}",
            "[1, 2][[\"a\", 1]]",
        ),
    ] {
        check(source, expected);
    }
}

#[test]
fn what_python_refuses_is_an_error() {
    for (source, reason) in [
        ("{{ [1].append(2) }}", "append would change the value"),
        ("{{ {'a': 1}.pop('a') }}", "pop would change the value"),
        ("{{ 'a'.index('b') }}", "index"),
        ("{{ [1].index(2) }}", "index"),
        ("{{ 'a'.split('') }}", "separator is empty"),
        ("{{ missing | tojson }}", "tojson"),
        ("{{ strftime_now('%!') }}", "strftime_now"),
        ("{{ 'a'.encode() }}", "encode"),
        ("{{ 1 % 0 }}", ""),
        ("{{ raise_exception('no') }}", "raise_exception"),
    ] {
        let error = render(source).expect_err(source).to_string();
        assert!(error.contains(reason), "{source}: {error}");
    }
}
