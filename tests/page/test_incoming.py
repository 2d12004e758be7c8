"""Where each token stands in the reply's text."""


def placed(page, deltas):
    """Offsets and parts of tokens, after deltas: (text, tokens), or (reasoning, text, tokens)."""
    return page.evaluate(
        """async (deltas) => {
            const { Places } = await import("/page/incoming.js");
            const turn = { text: "" };
            const tokens = [];
            const places = new Places(turn, 0);
            deltas.forEach(([reasoning, text, more], i) => {
                turn.reasoning = reasoning ? (turn.reasoning ?? "") + reasoning : turn.reasoning;
                turn.text += text;
                tokens.push(...more.map((text) => ({ text })));
                places.place(tokens, i === deltas.length - 1);
            });
            return tokens.map(({ offset, part }) => (part ? [part, offset] : offset));
        }""",
        [("", *one) if len(one) == 2 else one for one in deltas],
    )


def test_tokens_stand_where_their_text_does(page):
    page.goto("/")
    assert placed(page, [(" It is", [" It", " is"]), (" Lima", [" Lima"])]) == [0, 3, 6]


def test_text_that_is_held_back_or_stripped_moves_no_token(page):
    page.goto("/")
    # A possible stop string is held; the first blank is not shown.
    assert placed(page, [("It", [" It", " is"]), ("", [" a"]), (" is a", [" b"]), (" b", [])]) == [
        *(0, 2, 5, 7)
    ]
    # A character of three tokens, and a control token.
    part = "\ufffd"
    tokens = [("a", ["a", part]), ("", [part]), ("漢 b", [part, "<|x|>", " b"])]
    assert placed(page, tokens) == [0, 1, 1, 1, 1, 2]
    # The end token is behind all text.
    assert placed(page, [("a", ["a"]), ("", ["</s>"])]) == [0, 1]


def test_thoughts_are_counted_apart(page):
    page.goto("/")
    deltas = [("", "", ["<think>"]), ("Hm, ", "", ["Hm", ","]), ("yes", "", [" yes", "</think>"])]
    deltas += [("", "So it is.", ["\n\n", "So", " it", " is."])]
    assert placed(page, deltas) == [
        *(["reasoning", 0], ["reasoning", 0], ["reasoning", 2], ["reasoning", 3]),
        *(0, 0, 0, 2, 5),
    ]
