"""A world of people, towns, works and companies that nobody can know beforehand, and the documents that tell of it.

Every entity has one document, and every fact stands in one document only: that of the entity that it is about. So a
question of n hops needs n documents. A world is a function of its seed and its size.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# fmt: off
FIRST_NAMES = (
    "Ada", "Anton", "Bela", "Bruno", "Clara", "Cyril", "Dora", "Emil", "Esther", "Felix", "Freya", "Gregor", "Hanna",
    "Igor", "Irma", "Jakob", "Julia", "Karl", "Lena", "Linus", "Magda", "Milo", "Nadia", "Nora", "Oskar", "Petra",
    "Rafael", "Rosa", "Selma", "Simon", "Tilda", "Tomas", "Ulrik", "Vera", "Viktor", "Wanda", "Yara", "Zeno",
)
LAST_NAMES = (
    "Abel", "Berg", "Brandt", "Castell", "Dahl", "Engel", "Falk", "Frost", "Grimm", "Hale", "Holm", "Iversen", "Jansen",
    "Keller", "Kovac", "Lang", "Lindt", "Marek", "Moser", "Novak", "Olsen", "Palmer", "Quist", "Roth", "Sander",
    "Stahl", "Thorne", "Ulm", "Varga", "Vogel", "Weiss", "Winter", "Zander",
)
TOWN_BEGINNINGS = (
    "Alder", "Ash", "Birch", "Black", "Clear", "Cold", "Deer", "Eagle", "Elm", "Fair", "Fox", "Glen", "Green", "Hart",
    "Iron", "Lake", "Marsh", "Mill", "North", "Oak", "Raven", "Red", "Salt", "Silver", "Stone", "Swan", "White", "Wolf",
)
TOWN_ENDINGS = ("bridge", "brook", "burg", "dale", "field", "ford", "gate", "ham", "haven", "hill", "mouth", "wick")
TITLE_BEGINNINGS = (
    "Amber", "Blue", "Broken", "Burning", "Crimson", "Distant", "Empty", "Endless", "Fallen", "First", "Frozen",
    "Gentle", "Golden", "Hidden", "Hollow", "Last", "Lonely", "Lost", "Midnight", "Paper", "Quiet", "Secret", "Silent",
    "Sleeping", "Stolen", "Sunken", "Velvet", "Winding",
)
TITLE_ENDINGS = (
    "Anchor", "Bell", "Bird", "Candle", "Castle", "Clock", "Crown", "Door", "Dream", "Feather", "Fire", "Flower",
    "Garden", "Harbour", "Hour", "Island", "Key", "Lantern", "Letter", "Mirror", "Moon", "Mountain", "Ocean", "Orchard",
    "Rain", "Road", "Shadow", "Song", "Star", "Storm", "Summer", "Tide", "Tower", "Voice", "Window",
)
COMPANY_BEGINNINGS = (
    "Arden", "Borea", "Cado", "Delphi", "Evra", "Fenix", "Gala", "Hexa", "Indra", "Jovia", "Kappa", "Luma", "Mira",
    "Nexo", "Orbi", "Polar", "Quanta", "Rondo", "Sola", "Tessa", "Umbra", "Vita", "Xenia", "Zeta",
)
COMPANY_ENDINGS = ("Foods", "Glass", "Lines", "Motors", "Optics", "Paints", "Pumps", "Steel", "Textiles", "Toys")
RIVERS = ("Arle", "Brenn", "Corva", "Dune", "Esk", "Ferro", "Gael", "Isen", "Lorn", "Mave", "Nare", "Ouse", "Sarn")
WORKS = ("novel", "film", "opera", "play", "poem")
PROFESSIONS = ("actor", "baker", "chemist", "dentist", "farmer", "lawyer", "painter", "pilot", "teacher", "writer")
# fmt: on

KINDS = ("person", "town", "work", "company")
"""Kinds of entities. Years and rivers are kinds of values that have no document."""


@dataclass(frozen=True, slots=True)
class Relation:
    """What can be asked of an entity: each has one value.

    Args:
        source, target: kinds of the entity and of the value.
        facts: sentences that state it, of ``{x}`` and ``{value}``.
        phrase: how the value is named without its name; empty where no further question can be asked of it.
        question: asks for it.
    """

    source: str
    target: str
    facts: tuple[str, ...]
    phrase: str
    question: str


RELATIONS = {
    "author": Relation(
        "work", "person", ("{value} wrote {x}.", "It was written by {value}.", "Its author is {value}."),
        "the author of {x}", "Who wrote {x}?",
    ),
    "setting": Relation(
        "work", "town", ("{x} is set in {value}.", "The story takes place in {value}.", "It plays in {value}."),
        "the town in which {x} is set", "In which town is {x} set?",
    ),
    "published": Relation(
        "work", "year", ("{x} came out in {value}.", "It was first shown to the public in {value}."),
        "", "In which year did {x} come out?",
    ),
    "birthplace": Relation(
        "person", "town", ("{x} was born in {value}.", "{x} comes from {value}.", "The place of birth is {value}."),
        "the town in which {x} was born", "In which town was {x} born?",
    ),
    "teacher": Relation(
        "person", "person", ("{x} was taught by {value}.", "The teacher of {x} was {value}.", "{value} taught {x}."),
        "the teacher of {x}", "Who taught {x}?",
    ),
    "employer": Relation(
        "person", "company", ("{x} works for {value}.", "The employer of {x} is {value}.", "{value} employs {x}."),
        "the company that {x} works for", "Which company does {x} work for?",
    ),
    "birth_year": Relation(
        "person", "year", ("{x} was born in {value}.", "The year of birth is {value}."),
        "", "In which year was {x} born?",
    ),
    "founder": Relation(
        "company", "person", ("{value} founded {x}.", "It was founded by {value}.", "The founder is {value}."),
        "the founder of {x}", "Who founded {x}?",
    ),
    "seat": Relation(
        "company", "town", ("{x} is based in {value}.", "Its head office is in {value}.", "Its seat is {value}."),
        "the town in which {x} is based", "In which town is {x} based?",
    ),
    "mayor": Relation(
        "town", "person", ("The mayor of {x} is {value}.", "Its mayor is {value}.", "{value} is the mayor."),
        "the mayor of {x}", "Who is the mayor of {x}?",
    ),
    "river": Relation(
        "town", "river", ("{x} lies on the {value}.", "The river that runs through it is the {value}."),
        "", "On which river does {x} lie?",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entity:
    """Something that a document tells of. `facts` holds the value of each of its relations."""

    name: str
    kind: str
    facts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Document:
    """What is known of one entity. The first sentence says what it is, and states none of its facts."""

    id: str
    title: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return " ".join(self.sentences)


def make_world(seed: int, size: int, relations: Sequence[str]) -> dict[str, Entity]:
    """Return the entities of a world by name.

    Args:
        seed: decides them, with the other arguments.
        size: how many there are of each kind; 2 at least.
        relations: which facts there are.
    """
    rng = random.Random(f"world/{seed}")
    names = {kind: _draw_names(rng, kind, size) for kind in KINDS}
    entities: dict[str, Entity] = {}
    for kind in KINDS:
        asked = [relation for relation in relations if RELATIONS[relation].source == kind]
        for name in names[kind]:
            facts = {relation: _draw_value(rng, RELATIONS[relation].target, names, name) for relation in asked}
            entities[name] = Entity(name, kind, facts)
    return entities


def write_documents(seed: int, world: Mapping[str, Entity], *, varies: bool) -> list[Document]:
    """Return the documents of a world, in any order.

    Args:
        seed: of the world.
        varies: state a fact in one of several ways and in any order; else always in the first way.
    """
    rng = random.Random(f"documents/{seed}")
    ids = rng.sample(range(100, 1000), len(world))
    documents = [
        Document(f"d{id}", entity.name, tuple(_sentences(rng, entity, varies=varies)))
        for id, entity in zip(ids, world.values(), strict=True)
    ]
    rng.shuffle(documents)
    return documents


def values_of(world: Mapping[str, Entity], relation: str) -> set[str]:
    """Return all that could be the value of a relation in this world."""
    target = RELATIONS[relation].target
    values = {
        value for entity in world.values() for name, value in entity.facts.items() if RELATIONS[name].target == target
    }
    return values | {entity.name for entity in world.values() if entity.kind == target}


def _draw_names(rng: random.Random, kind: str, count: int) -> list[str]:
    beginnings, endings, between = {
        "person": (FIRST_NAMES, LAST_NAMES, " "),
        "town": (TOWN_BEGINNINGS, TOWN_ENDINGS, ""),
        "work": (TITLE_BEGINNINGS, TITLE_ENDINGS, " "),
        "company": (COMPANY_BEGINNINGS, COMPANY_ENDINGS, " "),
    }[kind]
    chosen = rng.sample(range(len(beginnings) * len(endings)), count)
    pairs = [divmod(number, len(endings)) for number in chosen]
    return [f"{beginnings[first]}{between}{endings[second]}" for first, second in pairs]


def _draw_value(rng: random.Random, kind: str, names: dict[str, list[str]], owner: str) -> str:
    if kind == "year":
        return str(rng.randint(1850, 1999))
    if kind == "river":
        return rng.choice(RIVERS)
    value = owner
    while value == owner:
        value = rng.choice(names[kind])
    return value


def _sentences(rng: random.Random, entity: Entity, *, varies: bool) -> list[str]:
    what = {
        "person": lambda: f"{entity.name} is a {rng.choice(PROFESSIONS)}.",
        "town": lambda: f"{entity.name} is a town.",
        "work": lambda: f"{entity.name} is a {rng.choice(WORKS)}.",
        "company": lambda: f"{entity.name} is a company.",
    }[entity.kind]()
    facts = []
    for relation, value in entity.facts.items():
        wordings = RELATIONS[relation].facts
        wording = rng.choice(wordings) if varies else wordings[0]
        facts.append(wording.format(x=entity.name, value=value))
    if varies:
        rng.shuffle(facts)
    return [what, *facts]
