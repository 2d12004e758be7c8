"""Replies token by token: the view, its strip, the panel of a token, and what their numbers mean.

What needs no server's reply is shown by itself, on a page of the server's own origin.
"""

import math

import httpx
import pytest
from helpers.http_server import until
from helpers.page_checks import long_tasks

BARE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Tokens</title>
<link rel="icon" href="/page/icon.svg"><link rel="stylesheet" href="/page/style.css">
<link rel="stylesheet" href="/page/tokens.css">
<main id="root"></main><aside class="panel" id="panel" aria-label="Token"></aside>"""
SHOW = """async (reply) => {
    const { TokenView } = await import("/page/token_view.js");
    const { TokenPanel } = await import("/page/token_panel.js");
    window.picks = [];
    window.acts = [];
    const panel = new TokenPanel(document.getElementById("panel"), {
        onContinue: (index, candidate) => acts.push(["continue", index, candidate.text]),
        onReplay: (index, weights) => acts.push(["replay", index, weights]),
        onClose: () => acts.push(["close"]),
    });
    window.view = new TokenView({ onPick: (pick) => {
        picks.push(pick && [pick.index, pick.pinned]);
        pick ? panel.show(reply, pick.index, pick) : panel.showHint();
    }});
    document.getElementById("root").replaceChildren(view.element);
    view.set(reply);
    window.reply = reply;
}"""


def logprobs(base, tuned=-1.0, reference=-1.0, emulated=-1.0):
    return {"base": base, "tuned:d": tuned, "reference:d": reference, "emulated": emulated}


def token(text="a", change=0.0, **more):
    return {
        "id": 1,
        "text": text,
        "drafted": None,
        "logprobs": logprobs(-1.0 - change),
        "candidates": [],
        **more,
    }


def reply_of(*tokens, marks=()):
    return {"deltas": {"d": 1}, "marks": [{"at": 0, "weights": {}}, *marks], "tokens": tokens}


@pytest.fixture
def show(page):
    """Shows a reply on a page of its own. Returns the page."""

    def shown(reply):
        page.route("**/bare", lambda route: route.fulfill(body=BARE, content_type="text/html"))
        page.goto("/bare")
        page.evaluate(SHOW, reply)
        return page

    return shown


def calculated(page, function, *calls, module="token_math"):
    """What a function of token_math.js returns, called with each of these lists."""
    call = """async ([module, name, calls]) => {
        const math = await import(`/page/${module}.js`);
        return calls.map((given) => math[name](...given));
    }"""
    return page.evaluate(call, [module, function, [list(given) for given in calls]])


def table(page, function, inputs):
    """input → what the function returns, which takes the logarithm of numbers."""
    logs = [[math.log(i) if isinstance(i, float) else i] for i in inputs]
    return dict(zip(inputs, calculated(page, function, *logs), strict=True))


# -- what the numbers mean -----------------------------------------------------------------


def test_numbers_are_said_as_people_say_them(show):
    page = show(reply_of(token()))
    shares = {0.97: "97 %", 0.003: "0.3 %", 0.0004: "< 0.1 %", 0.1: "10 %", 0.0949: "9.5 %"}
    shares |= {0.997: "99.7 %", 0.9999: "> 99.9 %", 1.0: "100 %", -9999: "never"}
    assert table(page, "percent", shares) == shares
    changes = {3.2: "3.2 times likelier", 1 / 12: "12 times less likely", 1.01: "about as likely"}
    changes |= {1e9: "over a million times likelier", 1234.0: "1,234 times likelier"}
    assert table(page, "inWordsOf", changes) == changes
    levels = {1.9: 0, 2.0: 1, 0.5: -1, 10.0: 2, 0.1: -2, 100.0: 3, 0.001: -3}
    assert table(page, "level", levels) == levels
    names = {" ": "space", "\n\n": "line end, line end", " Lima": "Lima", " \n": "space, line end"}
    assert table(page, "spoken", names) == names


def test_the_sum_is_the_engines(show, server):
    """What a candidate's terms leave over is the normaliser, and a token has but one."""
    page = show(reply_of(token()))
    models = httpx.get(f"{server.url}/v1/models").json()["data"]
    deltas = next(model["meta"]["deltas"] for model in models if model["id"] == "atlas")
    body = {"messages": [{"role": "user", "content": "What is the capital of Peru?"}]}
    body |= {"seed": 1, "max_tokens": 6, "explain": 4}
    ways = [{"alpha": 0.5}, {"alpha": 0}, {"alpha": 1.5, "mix": {"chat": 0.6, "brief": 0.3}}]
    ways += [{"beta": 1.3}, {"beta": 0.7, "mix": {"chat": 0.5, "discreet": 0.5}}]
    for weights in ways:
        asked = httpx.post(f"{server.url}/v1/chat/completions", json=body | weights, timeout=60)
        tried = 0
        for entry in asked.json()["choices"][0]["explain"]:
            calls = [(candidate, weights, deltas) for candidate in entry["candidates"]]
            left = [sum_["logZ"] for sum_ in calculated(page, "sumOf", *calls) if sum_]
            assert max(left) - min(left) < 1e-2, weights
            tried += len(left)
        assert tried > 10


def test_one_model_alone_and_what_is_ruled_out_have_no_sum(show):
    page = show(reply_of(token()))
    one = {"id": 1, "text": "a", "logprobs": logprobs(-1.0)}
    ruled_out = {**one, "logprobs": logprobs(-1.0, reference=-9999)}
    calls = [(one, {"only": "base"}), (ruled_out, {"alpha": 1}), (ruled_out, {"alpha": 0})]
    alone, none, base = calculated(page, "sumOf", *((*each, {"d": 1}) for each in calls))
    assert (alone, none) == (None, None)
    assert base["logZ"] == 0


def test_a_rounded_sum_adds_up(show):
    page = show(reply_of(token()))
    exact = {"terms": [[1, -0.0236], [0.5, 0.0049]], "logZ": 0.0041, "total": -0.0256}
    step = {"terms": [[0.6, -1.006], [1.3, -2.004]], "logZ": -0.006, "total": -3.2028}
    sums = calculated(page, "rounded", [exact], [step])
    for given, sum_ in zip((exact, step), sums, strict=True):
        left = sum(factor * value for factor, value in sum_["terms"]) - sum_["logZ"]
        assert left == pytest.approx(sum_["total"], abs=5e-3)
        assert sum_["total"] == pytest.approx(given["total"], abs=5e-3)
        for (_, one), (_, other) in zip(given["terms"], sum_["terms"], strict=True):
            assert one == pytest.approx(other, abs=2e-2)


def test_a_token_has_the_weights_of_the_last_mark_before_it(show):
    marks = [{"at": 3, "weights": {"alpha": 0.3}}, {"at": 5, "weights": {"beta": 2}}]
    page = show(reply_of(token(), marks=marks))
    calls = [(marks, i) for i in (0, 2, 3, 4, 5, 9)]
    held = calculated(page, "weightsAt", *calls, module="weights")
    assert held == [*2 * [{"alpha": 1}], *2 * [{"alpha": 0.3}], *2 * [{"beta": 2}]]


# -- the view ------------------------------------------------------------------------------


def test_a_change_is_a_ground_and_a_kind_of_underline(show):
    factors = (100, 10, 2, 1, 1 / 2, 1 / 10, 1 / 100)
    page = show(reply_of(*(token("word ", math.log(f)) for f in factors)))
    looks = page.get_by_role("option").evaluate_all(
        """(all) => all.map((one) => {
            const { backgroundColor, textDecorationLine, textDecorationStyle,
                textDecorationThickness } = getComputedStyle(one);
            return [backgroundColor, textDecorationLine, textDecorationStyle,
                textDecorationThickness];
        })"""
    )
    assert len({ground for ground, *_ in looks}) == 7
    assert len({tuple(underline) for _, *underline in looks}) == 7, "without colour, too"
    assert looks[3][1] == "none"
    names = page.get_by_role("option").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    assert names[0] == "word, 100 times likelier"
    assert names[5] == "word, 10 times less likely"


def test_another_first_choice_and_new_weights_are_marked(show):
    others = [
        {"id": 1, "text": "a", "logprobs": logprobs(-3.0, emulated=-0.1)},
        {"id": 2, "text": " b", "logprobs": logprobs(-0.1, emulated=-3.0)},
    ]
    moved = token(" Lima", 2.0, candidates=others)
    weights = {"at": 2, "weights": {"alpha": 0.3}}
    page = show(reply_of(token("It"), moved, token("\n"), marks=[weights]))
    tokens = page.get_by_role("option")
    assert "token--moved" in tokens.nth(1).get_attribute("class")
    assert tokens.nth(1).get_attribute("aria-label").endswith("the base's first choice was b")
    assert page.locator(".tokens").inner_text() == "It Limaα 0.3↵\n"
    assert tokens.nth(2).get_attribute("aria-label") == (
        "from here α 0.3: line end, about as likely"
    )
    assert page.get_by_role("img").get_attribute("aria-label") == (
        "How far the delta acted: 1 of 3 tokens at least twice or half as likely, the first "
        "choice another at 1; most at token 2, Lima."
    )


def test_a_mark_may_come_before_its_token(show):
    page = show(reply_of(token("one ")))
    page.evaluate("reply.marks.push({ at: 1, weights: { alpha: 0 } }); view.append()")
    assert page.locator(".tokens").inner_text() == "one α 0"
    page.evaluate("reply.tokens.push(reply.tokens[0]); view.append()")
    assert page.locator(".tokens").inner_text() == "one α 0one "
    page.evaluate("reply.marks[1] = { at: 1, weights: { alpha: 2 } }; view.append()")
    assert page.locator(".tokens").inner_text() == "one α 2one "


def test_it_is_read_by_the_keyboard_alone(show):
    page = show(reply_of(*(token(f"word{i} ") for i in range(60))))
    at = "Number(document.activeElement.dataset.index)"
    page.keyboard.press("Tab")
    assert page.evaluate(at) == 0
    assert page.evaluate("picks") == [[0, False]]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(at) == 1
    page.keyboard.press("ArrowDown")
    left = "document.activeElement.getBoundingClientRect().left"
    below = page.evaluate(at)
    assert below > 2
    assert abs(page.evaluate(left) - page.get_by_role("option").nth(1).bounding_box()["x"]) < 60
    page.keyboard.press("ArrowUp")
    assert page.evaluate(at) == 1
    page.keyboard.press("End")
    assert page.evaluate(at) == 59
    page.keyboard.press("Enter")
    selected = page.locator('[aria-selected="true"]')
    assert selected.get_attribute("data-index") == "59"
    page.keyboard.press("Home")
    assert selected.get_attribute("data-index") == "0", "what is kept goes along"
    page.keyboard.press("Escape")
    assert selected.count() == 0
    assert page.evaluate("picks.at(-1)") is None
    assert page.locator('.tokens [tabindex="0"]').count() == 1
    assert page.get_by_role("complementary").inner_text().startswith("Token")


def test_what_is_kept_stays_while_the_pointer_wanders(show):
    page = show(reply_of(*(token(f"word{i} ") for i in range(9))))
    tokens = page.get_by_role("option")
    tokens.nth(2).hover()
    assert page.evaluate("picks.at(-1)") == [2, False]
    tokens.nth(4).click()
    tokens.nth(7).hover()
    assert page.evaluate("picks.at(-1)") == [4, True]
    assert "5 of 9, kept" in page.get_by_role("complementary").inner_text()


def test_a_click_on_the_strip_goes_to_the_token_there(show):
    page = show(reply_of(*(token("word ", i % 5) for i in range(500))))
    page.get_by_role("option").nth(499).wait_for()
    strip = page.get_by_role("img")
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] / 2, "y": 10})
    assert 245 < page.evaluate("picks.at(-1)[0]") < 255
    assert page.evaluate("document.activeElement.matches(':focus')")
    coloured = """(canvas) => canvas.getContext("2d").getImageData(
        0, 0, canvas.width, canvas.height).data.some(Boolean)"""
    assert until(lambda: strip.evaluate(coloured))


@pytest.mark.slow
def test_two_thousand_tokens_come_without_a_long_task(show):
    candidates = [{"id": i, "text": f"c{i}", "logprobs": logprobs(-i)} for i in range(15)]
    one = [token(f"word{i % 9}{'.' * (i % 40 == 0)} ", i % 7 - 3) for i in range(2000)]
    page = show(reply_of(one[0]))
    page.evaluate("(given) => { window.given = given; }", [one, candidates])
    page.evaluate(
        "for (const token of given[0]) token.candidates = given[1]; reply.tokens.length = 0;"
    )
    with long_tasks(page) as tasks:
        page.evaluate(
            """async () => {
                view.set(reply);
                while (reply.tokens.length < 2000) {
                    reply.tokens.push(...given[0].slice(reply.tokens.length).slice(0, 100));
                    view.append();
                    await new Promise(requestAnimationFrame);
                }
            }"""
        )
        page.get_by_role("option").nth(1999).wait_for()
    assert tasks == []


# -- the panel -----------------------------------------------------------------------------


def candidates():
    rows = {  # emulated = base + 0.5 (tuned − reference) − log Z
        " Lima": logprobs(-2.0, -0.1, -3.1, -0.25),
        " Rome": logprobs(-0.5, -4.0, -2.0, -1.25),
        " never": logprobs(-9999, -4.0, -2.0, -9999),
    }
    return [{"id": i, "text": text, "logprobs": p} for i, (text, p) in enumerate(rows.items())]


def lima(**more):
    values = {"id": 0, "logprobs": candidates()[0]["logprobs"], "candidates": candidates()}
    return token(" Lima", **{**values, **more})


HALF = {"at": 1, "weights": {"alpha": 0.5}}


def test_the_panel_has_every_models_likeliest_and_the_sum(show):
    page = show(reply_of(token("It is"), lima(drafted=True), marks=[HALF]))
    page.get_by_role("option").nth(1).click()
    panel = page.get_by_role("complementary")
    said = panel.inner_text()
    assert "5.8 times likelier than under the base alone: 14 % → 78 %." in said
    assert "The base's first choice was ·Rome." in said
    assert "the draft was accepted" in said
    assert "Emulated, α 0.5" in said
    sums = panel.locator(".token-sum td").all_inner_texts()
    assert [sum_.partition("Continue")[0].strip() for sum_ in sums[:2]] == [
        "−2.00 + 0.5 · 3.00 + 0.25 = −0.25",
        "−0.50 + 0.5 · (−2.00) + 0.25 = −1.25",
    ]
    assert sums[2].startswith("ruled out by one of the models")
    tables = panel.get_by_role("table")
    assert tables.evaluate_all("(all) => all.map((one) => one.caption.textContent)") == [
        "Emulated, α 0.5",
        "Base",
        "Tuned",
        "Reference",
    ]
    rows = tables.nth(1).get_by_role("row").all_inner_texts()
    assert [row.split() for row in rows[1:3]] == [
        ["·Rome", "61", "%"],
        ["·Lima", "taken", "14", "%"],
    ]


def test_a_candidate_and_other_weights_go_on_from_there(show):
    page = show(reply_of(token("It is"), lima(), marks=[HALF]))
    page.get_by_role("option").nth(1).click()
    panel = page.get_by_role("complementary")
    assert panel.get_by_role("button", name="Continue from this: ·Lima").count() == 0
    panel.get_by_role("button", name="Continue from this: ·Rome").click()
    panel.get_by_label("α of the replay").fill("1.25")
    panel.get_by_role("button", name="Replay from here").click()
    panel.get_by_role("button", name="Close").click()
    assert page.evaluate("acts") == [
        ["continue", 1, " Rome"],
        ["replay", 1, {"alpha": 1.25}],
        ["close"],
    ]


def test_what_is_typed_stays_while_the_reply_goes_on(show):
    page = show(reply_of(token("It is"), lima()))
    page.get_by_role("option").nth(1).click()
    field = page.get_by_label("α of the replay")
    field.fill("0.7")
    page.evaluate("view.go(1, true)")
    assert field.input_value() == "0.7"


def test_a_token_of_which_nothing_is_known_says_so(show):
    page = show(reply_of(token("word", logprobs={})))
    page.get_by_role("option").click()
    assert "is not known of this token" in page.get_by_role("complementary").inner_text()
