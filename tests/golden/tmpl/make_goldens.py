#!/usr/bin/env python3
"""Writes the golden cases of the template engine: our own templates, rendered by the reference.

Run with the reference's Python (transformers 5.23, jinja2 3.1.6):
    python tests/golden/tmpl/make_goldens.py
Writes chat.json (templates x message sets) and expr.json (one-line templates over fixed variables); each case has
"out" or "error": true, and "message" where the template itself raised."""
import copy
import json
import os
import random

from transformers.utils import chat_template_utils as C

HERE = os.path.dirname(os.path.abspath(__file__))

CHAT = {
    "chatml": """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "inst": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set sys = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set sys = false %}{% endif %}{% for m in loop_messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate, got ' ~ m.role ~ ' at ' ~ loop.index) }}{% endif %}{% if loop.index0 == 0 and sys != false %}{% set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}{% else %}{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ '[INST] ' + content.strip() + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "parts": """{%- for message in messages -%}
    {{- '<|' ~ message.role ~ '|>' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- elif message.content is iterable -%}
        {%- for part in message.content -%}
            {%- if part.type in ['image', 'image_url'] -%}
                <image{{ loop.index }}>
            {%- elif part['type'] == 'text' -%}
                {{- part.text | trim }}
            {%- else -%}
                {{- raise_exception('part of type ' + part['type']) -}}
            {%- endif -%}
            {%- if not loop.last %} {% endif -%}
        {%- else -%}
            (nothing)
        {%- endfor -%}
    {%- endif -%}
    {{- '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}<|assistant|>{% endif %}
""",
    "tools": """{%- macro type_name(spec) -%}
    {%- if spec.type is string -%}{{ {'integer': 'int', 'number': 'float', 'string': 'str'}.get(spec.type, spec.type) }}
    {%- elif spec.type is iterable -%}{{ spec.type | map('upper') | join(' | ') }}
    {%- else -%}any{%- endif -%}
    {%- if spec.enum is defined %} in {{ spec.enum | tojson }}{% endif -%}
{%- endmacro -%}
{%- macro show(tool, indent=2) -%}
{{ tool.function.name }}(
{%- for name, spec in tool.function.parameters.properties | dictsort %}
{{ ' ' * indent }}{{ name }}: {{ type_name(spec) }}{{ '' if name in tool.function.parameters.required | default([]) else '?' }}
{%- endfor %}
)
{%- endmacro -%}
{%- if tools %}
# Tools
{% for tool in tools %}{{ show(tool, indent=loop.index * 2) }}
{{ tool | tojson(indent=2) }}
{% endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.previtem and loop.previtem.role != 'tool' %}<results>{% endif %}
        {{- '\\n' ~ message.content }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}</results>{% endif %}
    {%- elif message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {%- set f = call.function if call.function is defined else call %}
{"name": {{ f.name | tojson }}, "arguments": {{ f.arguments if f.arguments is string else f.arguments | tojson }}}
        {%- endfor %}
    {%- else %}
[{{ message.role }}] {{ message.content }}
    {%- endif %}
{%- endfor %}
""",
    "thinking": """{%- set ns = namespace(last=-1, multi=true) -%}
{%- for m in messages[::-1] -%}
    {%- set i = (messages | length - 1) - loop.index0 -%}
    {%- if ns.multi and m.role == 'user' and not (m.content.startswith('<r>') and m.content.endswith('</r>')) -%}
        {%- set ns.multi = false -%}{%- set ns.last = i -%}
    {%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
    {%- set content = m.content if m.content is string else '' -%}
    {%- set why = '' -%}
    {%- if m.reasoning_content is defined and m.reasoning_content is not none -%}
        {%- set why = m.reasoning_content -%}
    {%- elif '</think>' in content -%}
        {%- set why = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
    {%- endif -%}
    {{- m.role ~ ':' }}{% if why and loop.index0 > ns.last %} (thinks: {{ why }}){% endif %} {{ content }}
{% endfor -%}
last={{ ns.last }}
""",
    "break": """{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ loop.index }}/{{ loop.length }}:{{ m.role[:1] }}{% if m.content is string and 'stop' in m.content %}{% break %}{% endif %},{% else %}none{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.cycle('a', 'b') }}{{ loop.revindex }}{{ ' changed' if loop.changed(m.content) }};{% else %}no user{% endfor %}""",
    "recursive": """{% set tree = [{'n': 'a', 'k': [{'n': 'b'}, {'n': 'c', 'k': [{'n': 'd'}]}]}, {'n': 'e'}] %}
{%- for x in tree recursive %}
{{ '-' * loop.depth }}{{ x.n }}{{ loop.depth0 }}
{%- if x.k %}{{ loop(x.k) }}{% endif %}
{%- endfor %}""",
    "calls": """{% macro wrap(tag, attrs={}) %}<{{ tag }}{% for k, v in attrs.items() %} {{ k }}="{{ v }}"{% endfor %}>{{ caller(tag) }}</{{ tag }}>{{ varargs }}{{ kwargs }}{% endmacro %}
{% call(t) wrap('b', {'x': 1}, 2, y=3) %}in {{ t }}{% endcall %}
{% filter upper %}shout {{ messages | length }}{% endfilter %}
{% set cap %}captured {{ messages[0].role if messages }}{% endset %}[{{ cap }}]
{% set cap2 | replace('a', '4') | trim %}  banana  {% endset %}[{{ cap2 }}]
{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}
{% raw %}{{ raw }} {% if %}{% endraw %}
{# comment #}{% generation %}gen{% set inner = 1 %}{% endgeneration %}{{ inner is defined }}""",
    "scopes": """{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = x + i %}{{ x }};{% endfor %}{{ x }}
{% if true %}{% set x = 'if' %}{% endif %}{{ x }}
{% macro m(a, b=a, c='d') %}{{ a }}{{ b }}{{ c }}{{ x }}{% endmacro %}{{ m(1) }}|{{ m(1, 2, c=3) }}|{{ m() }}
{% set a, (b, c) = 1, (2, 3) %}{{ a }}{{ b }}{{ c }}
{% set ns = namespace(n=0, l=[]) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.n }}{{ ns.l }}
{% block body %}{{ x }}{% endblock %}""",
    "spaces": "  {%- if true -%}  a  {%- endif -%}  \n\n  {% if true %}\n  b\n  {% endif %}\n{%+ if true +%}\n c {%+ endif %}\n{#- gone -#}\n  {{ 'd' }}  \n{% for i in [1,2] %}\n  {{- i }}\n{% endfor %}\nend\n\n",
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "It's <b>\"now\"</b> & é", "parameters": {
    "type": "object", "properties": {"place": {"type": "string", "enum": ["Paris", "Roma"]}, "days": {"type": ["integer", "null"]},
                                     "any": {}}, "required": ["place"]}}}
U = lambda c: {"role": "user", "content": c}
A = lambda c, **k: dict({"role": "assistant", "content": c}, **k)
S = lambda c: {"role": "system", "content": c}
T = lambda s: {"type": "text", "text": s}
MESSAGES = {
    "one": [U(" Hi <|im_start|> there\n")],
    "turns": [S("Be  kind."), U("日本語 «é» 🎉"), A("it's \"so\"\n"), U("stop now"), A("x"), U("last")],
    "parts": [U([{"type": "image"}, T(" what? "), {"type": "image_url"}]), A([T("this")]), U([]), U([{"type": "audio"}])],
    "tools": [U("w?"), A(None, tool_calls=[{"function": {"name": "weather", "arguments": {"place": "Roma", "d": 1.5, "n": None}}},
                                            {"name": "raw", "arguments": "{}"}]),
              {"role": "tool", "content": "21"}, {"role": "tool", "content": "22"}, A("ok")],
    "think": [U("a"), A("<think>\nwhy\n</think>\n\nyes"), U("b"), A("no", reasoning_content="so"), U("<r>t</r>")],
    "wrong": [A("first"), U("second")],
    "none": [],
}

FILTERS = ("trim upper lower capitalize title length first last list string int float abs round sum min max sort unique|list "
           "reverse|list join join(',') tojson tojson(indent=2) tojson(ensure_ascii=true) tojson(sort_keys=true) default('D') "
           "default('D',true) replace('a','Z') replace('l','',1) indent indent(2,true) items|list dictsort batch(2,'f')|list "
           "slice(2)|list wordcount e urlencode center(12) truncate(5) truncate(5,true,'~',0) select|list reject('none')|list "
           "map('upper')|list map(attribute='role')|list map(attribute='n',default=0)|list selectattr('role','equalto','user')|list "
           "groupby('role') round(1) round(1,'floor') int(5) sort(attribute='n')|map(attribute='n')|list format(1,2)").split()
TESTS = ("defined,undefined,none,string,mapping,iterable,sequence,number,integer,float,boolean,true,callable,even,odd,divisibleby 2,"
         "eq 1,ne 2,lt 3,ge 2,in [1,'a'],lower,upper,filter").split(",")
METHODS = ("strip() upper() title() split() split(',') split('l',1) rsplit(maxsplit=1) splitlines() strip('Hd') startswith('He') "
           "endswith(('d','z')) replace('l','L') find('o') rfind('o') count('l') join(['a','b']) isdigit() isalpha() isupper() zfill(8) "
           "removeprefix('He') partition(',') rpartition('l') swapcase() get('a') get('zz',5) items() keys() values()|list index(1) "
           "append(1) copy() format(1) capitalize() center(9,'*')").split(" ")
VARS = {"s": "Hello, World", "t": "  päd <b>\"x\"</b>\n\tq ", "u": "日本語 straße ǅ", "n": 3, "m": -7, "z": 0, "f": 2.5, "g": -0.125,
        "yes": True, "nil": None, "l": [3, 1, 2], "ls": ["b", "A", "c", "a"], "mixed": [1, "a", None, [2], {"k": 1}],
        "d": {"a": 1, "b": [1, 2], "c": {"x": "y"}}, "e": {}, "el": [],
        "msgs": [{"role": "user", "content": "hi", "n": 2}, {"role": "assistant", "content": None, "n": 1}]}
LITERALS = ("'abc' 'a b,c' '' '%s-%d' 0 1 2 -1 3.5 1e3 true none [] {} [1,2,3] ['a','b'] {'k':'v'} (1,2) 'é' '\\n' '42' range(4)").split(" ")


def expr(r, k):
    if k <= 0:
        return r.choice(list(VARS) + ["missing"]) if r.random() < 0.6 else r.choice([x for x in LITERALS if x])
    x = lambda: expr(r, k - 1)
    i = lambda: r.choice(["", "1", "-1", "2", "0", "-3"])
    return r.choice([
        lambda: f"({x()} {r.choice('+ - * / // % **'.split())} {x()})", lambda: f"{x()} ~ {x()}",
        lambda: f"({x()})|{r.choice(FILTERS)}", lambda: f"({x()})|{r.choice(FILTERS)}",
        lambda: f"({x()} is {r.choice(['', 'not '])}{r.choice(TESTS)})", lambda: f"({x()}).{r.choice(METHODS)}",
        lambda: f"({x()}).{r.choice(METHODS)}", lambda: f"({x()})[{x()}]", lambda: f"({r.choice(['s', 'u', 'l', 'ls', 't'])})[{i()}:{i()}:{r.choice(['1', '-1', '2', ''])}]",
        lambda: f"({x()} {r.choice(['==', '!=', '<', '>=', 'in', 'not in'])} {x()})", lambda: f"({x()} {r.choice(['and', 'or'])} {x()})",
        lambda: f"(not {x()})", lambda: f"({x()} if {x()} else {x()})", lambda: f"[{x()}, {x()}]", lambda: f"{{'k': {x()}}}",
        lambda: f"('%s|%5r' % ({x()}, {x()}))", lambda: f"'{{}}/{{!r:>6}}'.format({x()}, {x()})",
    ])()


EXTRA = ["1/3", "10//3", "-7//2", "-7%3", "2**10", "2**-1", "1e16", "1e-5", "123456789012345678.0", "0.1+0.2", "5.0", "-0.0", "7 % 2.5", "1 < 2 < 3",
         "1 < 3 < 2", "not 1 == 2", "'a' 'b' \"c\"", "'\\x41\\u00e9\\101\\q\\''", "{'a': 1, 2: 'b', none: true}", "(1,)", "()", "[]|first",
         "loop", "s.upper", "d.items()", "range(3)", "range(0,6,2)|list", "range(5)[1:3]", "'abc'[::-1]", "'日本語'[1]", "'%05.1f|%-5d|%+d|%x|%%' % (3.14159, 42, 7, 255)",
         "'%(a)s' % {'a': 1}", "'{:>5}|{:^5}|{:05d}|{:,}|{:.2f}|{:x}'.format('a', 'b', 42, 1234567, 2.5, 255)", "'{0}{1}{0}'.format('a', 'b')", "'{a[k].x}'.format(a={'k': {'x': 1}})",
         "d.a", "d['b'][0]", "d.pop", "d.pop('a')", "missing.x", "missing is defined", "msgs|selectattr('content')|list|length", "l|map('string')|join('-')",
         "{'b': 1, 'a': [1, {}]}|tojson", "{'b': 1, 'a': [1, {}]}|tojson(indent=4)", "'</x>\\u2028é'|tojson", "[1.0, 1e20, true, none]|tojson", "missing|tojson",
         "dict(a=1, b=2)", "dict([('a', 1)], c=2)", "namespace(a=1).a", "joiner()()", "cycler(1, 2).next()", "1 if false", "(1 if false) is undefined",
         "'x' if true else missing.y", "l.append(1)", "s.__class__", "''.join(['a', 1])", "'ß'.upper()", "'ΑΣ'.lower()", "'ǆ'.title()", "'İ'.lower()", "'a\\u2028b\\r\\nc'.splitlines()",
         "[3, 1]|sort", "['b', 'A']|sort", "['b', 'A']|sort(case_sensitive=true)", "[1, 'a']|sort", "'{{'", "-s|length", "1 is divisibleby 1", "5 is in [5]", "true + 1", "3 * 'ab'", "[1] * 2",
         "raise_exception('own words')", "'a' < 'b'", "'a' < 1", "none == none", "1 == 1.0", "true == 1", "'1' == 1", "[1, 2] == [1, 2]", "s is string and n is number", "2 ** 3 ** 2", "-2 ** 2",
         "caller", "lipsum is defined", "s | replace('l', 'L') | upper ~ '!'", "not s in ls", "42.55|round(1, 'ceil')", "2.5|round", "3.5|round|int", "'0x1F'|int(0, 16)", "' 12 '|int", "'1_0'|int", "'3.9'|int", "'x'|float(1.5)"]


def case(template, variables):
    try:
        return {"out": C._compile_jinja_template(template).render(**copy.deepcopy(variables))}
    except Exception as x:
        r = {"error": True}
        if type(x).__name__ == "TemplateError":
            r["message"] = str(x)
        return r


def main():
    chat = []
    for tn, t in CHAT.items():
        for mn, m in MESSAGES.items():
            for extra in ({"add_generation_prompt": True}, {"add_generation_prompt": False, "tools": [TOOL]}):
                v = dict({"messages": m, "tools": None, "bos_token": "<s>", "eos_token": "</s>"}, **extra)
                chat.append(dict({"name": f"{tn}/{mn}", "template": tn, "vars": v}, **case(t, v)))
    with open(os.path.join(HERE, "chat.json"), "w") as f:
        json.dump({"templates": CHAT, "cases": chat}, f, ensure_ascii=False, indent=0)
    r, exprs = random.Random(7), ["{{ " + x + " }}" for x in EXTRA]
    while len(exprs) < 900:
        t = "{{ " + expr(r, r.randrange(1, 4)) + " }}"
        c = case(t, VARS)
        if len(t) < 120 and " at 0x" not in c.get("out", "") and ("out" in c or r.random() < 0.2):
            exprs.append(t)
    with open(os.path.join(HERE, "expr.json"), "w") as f:
        cases = [dict({"t": t}, **case(t, VARS)) for t in exprs]
        cases = [c for c in cases if " at 0x" not in c.get("out", "")]
        json.dump({"vars": VARS, "cases": cases}, f, ensure_ascii=False, indent=0)


if __name__ == "__main__":
    main()
