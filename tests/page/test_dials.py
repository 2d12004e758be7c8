"""The dials: what they say, what the server is sent, and which tokens a change acts on."""

import pytest
from helpers.browser import every_look
from helpers.page_checks import axe
from helpers.page_talk import CONTROL, bodies, kept, off_by, opened, replied, reply, say
from helpers.scripted_server import scripted
from playwright.sync_api import expect

WORDS = "It is a country in the west of South America, and its capital is Lima, by the sea."
DELTAS = {"chat": 1.0, "brief": 0.0, "discreet": 0.0}
MANY = 40


@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """A server that says the same at every strength of the delta."""
    with scripted([WORDS], tmp_path_factory.mktemp("script")) as server:
        yield server


@pytest.fixture
def dials(open_page, acting):
    acting.hold_at(None)
    return opened(open_page(acting.url))


def preset(page, name):
    return page.locator("#dials").get_by_role("button", name=name, exact=True)


def press(page, name):
    preset(page, name).click()


def number(page, name):
    """The number field of a dial."""
    return page.get_by_label(f"{name}, as a number")


def words(page):
    return page.locator(".dials-words")


def begin(page, server, n=4):
    """Have a reply that stands still after so many tokens."""
    server.hold_at(n)
    say(page, "What is Peru?")
    expect(page.locator(".turn-assistant .turn-body")).to_contain_text("It")


def go_on(page, server, mark):
    """Let the reply go on, and end once it shows a mark."""
    server.hold_at(8)
    expect(page.locator(".turn-assistant")).to_contain_text(mark)
    server.hold_at(None)
    replied(page)


def weights_of(token, weights):
    """Whether the emulation's log-probabilities of a token's candidates are the sum of weights."""
    return off_by(token, weights, DELTAS) < 1e-3


def test_alpha_by_keyboard_and_number(dials):
    range_ = dials.get_by_role("slider", name="Strength α")
    expect(range_).to_have_attribute("aria-valuetext", "1, recipe")
    range_.focus()
    dials.keyboard.press("ArrowRight")
    expect(number(dials, "Strength α")).to_have_value("1.05")
    expect(words(dials)).to_have_text("α 1.05 base + 1.05 · (tuned − reference)")
    number(dials, "Strength α").fill("3.5")  # more than the range shows
    expect(words(dials)).to_contain_text("α 3.5")
    number(dials, "Strength α").fill("-1")
    said = number(dials, "Strength α").evaluate("(field) => field.validationMessage")
    assert said == "A dial is a number from 0 up"
    dials.keyboard.press("Tab")
    expect(number(dials, "Strength α")).to_have_value("3.5")
    expect(preset(dials, "Emulated")).to_have_attribute("aria-pressed", "false")


def beta(page):
    page.get_by_role("button", name="β: ").click()
    number(page, "Strength β").fill("1.3")


def mix(page):
    number(page, "chat").fill("0.7")
    number(page, "brief").fill("0.3")


def another(page):
    press(page, "Tuned alone")
    page.get_by_label("Which tuned model").select_option("brief")


# What is turned, what is said of it, and what is sent.
TURNS = [
    (lambda page: press(page, "Base"), "α 0 base", {"model": "atlas", "alpha": 0}),
    (
        lambda page: press(page, "Tuned alone"),
        "small tuned model alone tuned, without the base",
        {"model": "atlas:tuned"},
    ),
    (another, "tuned:brief alone tuned, without the base", {"model": "atlas:tuned:brief"}),
    (
        mix,
        "α 1, chat 0.7 + brief 0.3 base + 1 · (0.7 chat + 0.3 brief)",
        {"model": "atlas", "alpha": 1, "mix": {"chat": 0.7, "brief": 0.3, "discreet": 0}},
    ),
    (beta, "β 1.3 tuned + 1.3 · (base − reference)", {"model": "atlas", "beta": 1.3}),
]


@pytest.mark.slow
def test_the_server_is_sent_what_the_dials_say(dials):
    asked = bodies(dials)
    for turn, said, sent in TURNS:
        press(dials, "Emulated")
        expect(words(dials)).to_have_text("α 1 base + 1 · (tuned − reference)")
        expect(preset(dials, "Emulated")).to_have_attribute("aria-pressed", "true")
        turn(dials)
        expect(words(dials)).to_have_text(said)
        expect(preset(dials, "Emulated")).to_have_attribute("aria-pressed", "false")
        say(dials, "What is Peru?")
        replied(dials)
        names = ("model", "alpha", "beta", "mix")
        assert {name: asked[-1][name] for name in names if name in asked[-1]} == sent
    assert len(asked) == len(TURNS)


def test_a_change_in_mid_reply_acts_on_the_tokens_behind_its_mark(dials, acting):
    begin(dials, acting)
    number(dials, "Strength α").fill("0.3")
    go_on(dials, acting, "α 0.3")
    reply = kept(dials)[-1]
    first, mark = reply["marks"]
    assert (first["at"], first["weights"]) == (0, {"alpha": 1})
    assert mark["weights"] == {"alpha": 0.3}
    assert 0 < mark["at"] < len(reply["tokens"])
    for at, token in enumerate(reply["tokens"]):
        held, other = ({"alpha": 0.3}, {}) if at >= mark["at"] else ({}, {"alpha": 0.3})
        assert weights_of(token, held), at
        assert not weights_of(token, other), at


def test_of_many_changes_the_server_hears_few_and_the_last(dials, acting):
    turned = bodies(dials, CONTROL)
    begin(dials, acting)
    dials.get_by_role("slider", name="Strength α").evaluate(
        f"""(range) => {{
            for (let i = 1; i <= {MANY}; i++) {{
                range.value = i / 20;
                range.dispatchEvent(new Event("input", {{ bubbles: true }}));
            }}
        }}"""
    )
    go_on(dials, acting, "α 2")
    assert turned[-1]["alpha"] == 2
    assert len(turned) < MANY / 2


def test_a_dial_that_is_held_acts_seldom_and_at_once_when_it_is_let_go_of(dials, acting):
    turned = bodies(dials, CONTROL)
    begin(dials, acting)
    box = dials.get_by_role("slider", name="Strength α").bounding_box()
    middle = box["y"] + box["height"] / 2
    dials.mouse.move(box["x"] + box["width"] / 2, middle)
    dials.mouse.down()
    for _ in range(8):
        box["x"] += 4
        dials.mouse.move(box["x"] + box["width"] / 2, middle)
    value = float(number(dials, "Strength α").input_value())
    assert value > 1
    dials.mouse.up()
    go_on(dials, acting, f"α {value:g}")
    assert len(turned) < 5
    assert turned[-1]["alpha"] == value


def test_a_reply_goes_on_as_it_was_drawn_or_as_the_dials_were_turned_since(dials, acting):
    asked = bodies(dials)
    begin(dials, acting, 6)
    dials.keyboard.press("Escape")
    expect(reply(dials)).to_contain_text("Stopped.")
    at = kept(dials)[-1]["n_tokens"] - 1
    acting.hold_at(9)
    branch_at(dials, at, 2)
    expect(reply(dials).locator(".turn-head .pill")).to_have_text("α 1, then α 2")
    expect(reply(dials)).to_have_attribute("aria-busy", "true")
    stop_and_continue(dials)
    expect(reply(dials)).to_have_attribute("aria-busy", "true")
    acting.hold_at(None)
    assert replied(dials) == WORDS
    assert [body["alpha"] for body in asked] == [1, 2, 2]
    dials.get_by_role("button", name="Previous version").click()
    number(dials, "Strength α").fill("0.5")
    dials.get_by_role("button", name="Continue").click()
    expect(reply(dials)).not_to_contain_text("Stopped.")
    assert replied(dials) == WORDS
    assert [body["alpha"] for body in asked] == [1, 2, 2, 0.5]


def stop_and_continue(page):
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(reply(page)).to_contain_text("Stopped.")
    page.get_by_role("button", name="Continue").click()
    expect(reply(page)).not_to_contain_text("Stopped.")


def branch_at(page, at, alpha):
    """Replay the last reply from a token on, with another α."""
    page.get_by_role("button", name="Tokens", exact=True).click()
    reply(page).get_by_role("option").nth(at).click()
    page.get_by_label("α of the replay").fill(str(alpha))
    page.get_by_role("button", name="Replay from here").click()
    expect(reply(page)).to_contain_text("2 / 2")


def test_dials_are_kept_with_the_conversation(dials):
    number(dials, "Strength α").fill("0.4")
    number(dials, "brief").fill("0.2")
    say(dials, "What is Peru?")
    replied(dials)
    dials.reload()
    expect(words(dials)).to_contain_text("α 0.4, chat 1 + brief 0.2")
    dials.get_by_role("button", name="As in the recipe").click()
    expect(number(dials, "brief")).to_have_value("0")
    expect(words(dials)).to_contain_text("α 0.4 base")


def test_dials_of_another_recipe(dials):
    weights = dials.evaluate(
        """async () => {
            const { weightsOf, startDials } = await import("/page/dials.js");
            const of = (dials) => weightsOf({ ...startDials(), ...dials }, { own: 1 });
            return [of({ mix: { other: 1 } }), of({ only: "tuned:other" }), of({ only: "base" })];
        }"""
    )
    assert weights == [{"alpha": 1}, {"only": "tuned"}, {"only": "base"}]


def models_with(page, deltas):
    """Let the server's recipe have other deltas; None: it is not loaded, and does not know them."""
    models = page.evaluate("async () => (await fetch('/v1/models')).json()")
    for model in models["data"]:
        del model["meta"]["deltas"]
        model["meta"] |= {} if deltas is None else {"deltas": deltas}
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    page.reload()


def test_a_recipe_that_is_not_loaded_is_learned_with_its_first_reply(dials):
    models_with(dials, None)
    expect(dials.locator(".empty-example").last).to_be_enabled()
    expect(words(dials)).to_have_text("α 1 base + 1 · (tuned − reference)")
    expect(preset(dials, "Emulated")).to_have_attribute("aria-pressed", "true")
    expect(preset(dials, "Base")).to_have_attribute("aria-pressed", "false")
    expect(number(dials, "brief")).to_have_count(0)
    dials.unroute("**/v1/models")
    say(dials, "What is Peru?")
    replied(dials)
    expect(number(dials, "brief")).to_be_visible()


def test_more_of_a_recipe_with_one_delta_on_a_phone(dials):
    dials.set_viewport_size({"width": 360, "height": 780})
    models_with(dials, {"chat": 1.0})
    expect(dials.locator(".empty-example").last).to_be_enabled()
    dials.get_by_role("button", name="More").click()
    dials.get_by_role("button", name="β: ").click()
    number(dials, "Strength β").fill("1.3")
    expect(words(dials)).to_have_text("β 1.3 tuned + 1.3 · (base − reference)")
    expect(dials.locator(".dials-formula")).to_be_visible()
    dials.set_viewport_size({"width": 1280, "height": 780})
    expect(dials.get_by_role("button", name="Mix")).to_be_hidden()


def test_folded_on_a_phone_the_words_say_what_no_dial_in_sight_says(dials):
    dials.set_viewport_size({"width": 360, "height": 780})
    more = dials.get_by_role("button", name="More")
    expect(words(dials)).to_be_hidden()
    more.click()
    number(dials, "brief").fill("1")
    more.click()
    expect(words(dials)).to_be_visible()
    expect(words(dials).locator("strong")).to_have_text("α 1, chat 1 + brief 1")
    press(dials, "Tuned alone")
    expect(dials.get_by_label("Which tuned model")).to_be_visible()
    press(dials, "Emulated")
    expect(words(dials)).to_be_hidden()


def test_the_examples_are_asked_of_all_three_in_one_place(dials):
    asked = bodies(dials)
    dials.locator(".empty-example").first.click()
    for name in ("Base", "Tuned alone"):
        replied(dials)
        dials.get_by_role("button", name=f"Ask again as {name}").press("Enter")
        expect(reply(dials)).to_be_focused()
        expect(preset(dials, name)).to_have_attribute("aria-pressed", "true")
    replied(dials)
    expect(reply(dials)).to_contain_text("3 / 3")
    assert [(body["model"], body.get("alpha")) for body in asked] == [
        ("atlas", 1),
        ("atlas", 0),
        ("atlas:tuned", None),
    ]
    say(dials, "And of Chile?")
    expect(dials.get_by_role("button", name="Ask again as")).to_have_count(0)


@every_look
def test_dials_in_every_look(dials, look, screenshot):
    is_wide = look.width > 760
    fold = dials.get_by_role("button", name="Mix" if is_wide else "More")
    expect(fold).to_have_attribute("aria-expanded", str(is_wide).lower())
    if not is_wide:
        fold.click()
    number(dials, "discreet").fill("0.45")
    press(dials, "Tuned alone")
    screenshot(dials)
    assert axe(dials) == []
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert dials.evaluate(overflow) == 0
