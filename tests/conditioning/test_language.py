"""A1111's prompt language. The expected values of `DOCUMENTED` are those of the doctests in A1111's
modules/prompt_parser.py (1.10); at its present grammar one of them, with braces and a stray `|`, fails there too."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tintype.conditioning.language import Part, Phase, Span, at_call, parts, schedule, spans

ALTERNATING = [(number, "female" if number % 2 else "male") for number in range(1, 11)]
DOCUMENTED = {
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a [[b]]")],
    "[(a:2):3]": [(3, ""), (10, "(a:2)")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, "a [unbalanced")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "((a][:b:c [d:3]": [(3, "((a][:b:c "), (10, "((a][:b:c d")],
    "[a|(b:1.1)]": [(number, "a" if number % 2 else "(b:1.1)") for number in range(1, 11)],
    "[fe|]male": ALTERNATING,
    "[fe|||]male": [(number, "female" if number % 4 == 1 else "male") for number in range(1, 11)],
}
MORE = {
    "": [(10, "")],
    "a [b:c:0.25] [d::5]": [(2, "a b d"), (5, "a c d"), (10, "a c ")],
    "[:b:0.3]": [(3, ""), (10, "b")],
    "[a:b:0]": [(10, "b")],  # from the first step on
    "[a:b:-2]": [(10, "b")],
    "[a:b:99]": [(10, "a")],
    "[a:b:1.0]": [(10, "a")],  # with a point it is a share of the steps, without one a step
    "[a:b:1]": [(1, "a"), (10, "b")],
    "[a:b:1e0]": [(1, "a"), (10, "b")],
    "[a:b:1e999]": [(10, "a")],
    "[a:b:  .5\n]": [(5, "a"), (10, "b")],
    "[a:b:x]": [(10, "[a:b:x]")],
    "[a:b:½]": [(10, "[a:b:½]")],
    "[a:b:c:3]": [(10, "[a:b:c:3]")],
    "[a:[x:3:2]]": [(2, "[a:x]"), (10, "[a:3]")],  # what a pair of brackets says is no number
    "(a [b:c:3]:1.2)": [(3, "(a b:1.2)"), (10, "(a c:1.2)")],
    "[[a|b]:c:2]": [(1, "a"), (2, "b"), *((number, "c") for number in range(3, 11))],
    "a | b [c:3]": [(10, "a | b [c:3]")],  # a stray | makes all of it text
    "[c:3] \\": [(10, "[c:3] \\")],  # so does a \ before nothing
    r"\[a:b:3\] \| [c:3]": [(3, r"\[a:b:3\] \| "), (10, r"\[a:b:3\] \| c")],
    "a) [b:3] (c": [(3, "a)  (c"), (10, "a) b (c")],
    "a: [b:3] c:d": [(3, "a:  c:d"), (10, "a: b c:d")],
}


@pytest.mark.parametrize("prompt", [*DOCUMENTED, *MORE])
def test_schedules(prompt: str) -> None:
    expected = (DOCUMENTED | MORE)[prompt]
    assert [(phase.until, phase.text) for phase in schedule(prompt, 10)] == expected


def test_the_published_landscape() -> None:
    """The example in A1111's comment, of 100 steps."""
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6]"
        "[ in background:0.25] [shoddy:masterful:0.5]"
    )
    assert schedule(prompt, 100) == (
        Phase(25, "fantasy landscape with a mountain and an oak in foreground shoddy"),
        Phase(50, "fantasy landscape with a lake and an oak in foreground in background shoddy"),
        Phase(60, "fantasy landscape with a lake and an oak in foreground in background masterful"),
        Phase(75, "fantasy landscape with a lake and an oak in background masterful"),
        Phase(100, "fantasy landscape with a lake and a christmas tree in background masterful"),
    )


def test_the_first_phase_holds_a_step_longer() -> None:
    """A1111's CFGDenoiser counts its calls from 0 and compares them with steps counted from 1."""
    phases = schedule("[a:b:3]", 10)
    assert [at_call(phases, call) for call in range(10)] == ["a"] * 4 + ["b"] * 6
    phases = schedule("[a|b|c]", 6)
    assert "".join(at_call(phases, call) for call in range(6)) == "aabcab"
    assert at_call(phases, 99) == "a"  # beyond the end: the first, as there


@given(st.text("ab[]():|\\.3 ", max_size=30), st.integers(1, 20))
def test_any_text_has_a_schedule(text: str, steps: int) -> None:
    phases = schedule(text, steps)
    assert [phase.until for phase in phases] == sorted({phase.until for phase in phases})
    assert phases[-1].until == steps
    if not set(text) & set("[|"):
        assert phases == (Phase(steps, text),)


def test_brackets_nested_without_end() -> None:
    for text in ("[" * 20_000, "(" * 20_000 + "a" + ")" * 20_000):
        assert schedule(text, 10) == (Phase(10, text),)
    assert schedule("[" * 5_000 + "a" + ":3]" * 5_000, 10) == (Phase(3, ""), Phase(10, "a"))


# Weights

WEIGHTS = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
    "": [("", 1.0)],
    "((x))": [("x", 1.1 * 1.1)],
    "[x]": [("x", 1 / 1.1)],
    "[[x": [("x", (1 / 1.1) * (1 / 1.1))],
    "(x: 1.2 )": [("x", 1.2)],
    "(x:-1) (y:0)": [("x", -1.0), (" ", 1.0), ("y", 0.0)],
    "x:1.2)": [("x:1.2)", 1.0)],
    "a) b]": [("a) b]", 1.0)],
    "(16:9 screen)": [("16:9 screen", 1.1)],
    r"\\ \a \(\(": [("\\ a ((", 1.0)],
}


@pytest.mark.parametrize("prompt", WEIGHTS)
def test_weights(prompt: str) -> None:
    assert [(span.text, span.weight) for span in spans(prompt)] == WEIGHTS[prompt]


def test_break_ends_a_chunk() -> None:
    assert spans("a BREAK (b)\nBREAK\nc breaks BREAKS") == (
        Span("a", 1.0),
        Span("", -1.0, True),
        Span("", 1.0),
        Span("b", 1.1),
        Span("", 1.0),
        Span("", -1.0, True),
        Span("c breaks BREAKS", 1.0),
    )
    assert not any(span.breaks for span in spans("(x:-1) y"))
    weighed = spans("(a BREAK b)")  # as there: a BREAK that brackets weigh is a word
    assert [(span.text, span.weight, span.breaks) for span in weighed] == [
        ("a", 1.1, False),
        ("BREAK", -1.1, False),
        ("b", 1.1, False),
    ]


@pytest.mark.parametrize("prompt", ["(x:1.2.3)", "(x:.)", "(x:+.)"])
def test_a_weight_that_is_no_number_is_named(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"expected a number, such as \(word:1\.2\)"):
        spans(prompt)


@pytest.mark.parametrize("prompt", ["(" * 8_000 + "x", f"(x:{'9' * 400})"])
def test_a_weight_beyond_numbers_is_named(prompt: str) -> None:
    with pytest.raises(ValueError, match="the weight of 'x' is too large"):
        spans(prompt)


@given(st.text("ab ,.\n", max_size=30))
def test_text_without_signs_is_one_span(text: str) -> None:
    assert spans(text) == (Span(text, 1.0),)


# AND


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("a cat AND a dog", [("a cat", 1.0), (" a dog", 1.0)]),
        ("a cat :1.2 AND a dog AND a penguin :2.2", [("a cat", 1.2), (" a dog", 1.0), (" a penguin", 2.2)]),
        ("a : -.5AND b:2.", [("a : -.5AND b", 2.0)]),
        ("a:-.5 AND b", [("a", -0.5), (" b", 1.0)]),
        ("(a:1.2) AND SAND ANDY", [("(a:1.2)", 1.0), (" SAND ANDY", 1.0)]),
        ("a and b", [("a and b", 1.0)]),
        ("", [("", 1.0)]),
        ("a AND", [("a", 1.0), ("", 1.0)]),
        ("a\nb :3\n", [("a\nb", 3.0)]),
    ],
)
def test_parts(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert parts(prompt) == tuple(Part(*one) for one in expected)


def test_long_blanks_are_read_at_once() -> None:
    """Each once, not once for each before it: that took 10 s."""
    text, began = "a" + " " * 50_000 + "b", time.thread_time()
    assert parts(text)[0].text == text
    assert spans(text)[0].text == text
    assert time.thread_time() - began < 1
