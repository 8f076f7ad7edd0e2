"""What users can want: kinds of things, what can be said of them, and how people hint at what they mean.

A *need* is a kind of thing with a few *aspects*. Each aspect has values, and for each value something that a user says
who means it without naming it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing that can be asked about.

    Args:
        words: any of them in a question asks about it; the first one is its name.
        hints: what a user says who means a value without naming it, by value.
    """

    words: tuple[str, ...]
    hints: dict[str, str]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.words[0]


@dataclass(frozen=True, slots=True)
class Need:
    """A kind of thing, how a user asks for it, and what can be asked back."""

    name: str
    request: str
    aspects: tuple[Aspect, ...]

    def aspect(self, name: str) -> Aspect:
        """Return the aspect of this name."""
        return next(aspect for aspect in self.aspects if aspect.name == name)


NEEDS = {
    need.name: need
    for need in (
        Need("hotel", "I need a hotel for the weekend.", (
            Aspect(("place", "where", "area", "location", "part"), {
                "harbour": "I want to wake up and see ships.",
                "station": "My train home leaves very early in the morning.",
                "centre": "I want to walk out of the door and be in the middle of everything.",
                "forest": "I want nothing but trees around me.",
            }),
            Aspect(("price", "cost", "budget", "cheap", "expensive", "pay", "spend"), {
                "low": "I am a student and count every coin.",
                "middle": "It need not be the cheapest, but I will not pay for luxury.",
                "high": "Money does not matter, it is our anniversary.",
            }),
            Aspect(("breakfast", "meal", "meals", "food", "eat"), {
                "buffet": "I like to choose from a long table in the morning.",
                "none": "I never eat before noon.",
                "vegan": "I eat nothing that comes from animals.",
            }),
            Aspect(("extra", "extras", "facilities", "amenities", "else"), {
                "pool": "My children want to swim every day.",
                "sauna": "After a day outside I need to get really warm.",
                "parking": "I come by car.",
                "kennel": "My dog comes along.",
            }),
        )),
        Need("flat", "I am looking for a flat.", (
            Aspect(("size", "rooms", "room", "large", "big", "small"), {
                "single": "I live alone and own very little.",
                "double": "We are a couple without children.",
                "family": "There are five of us.",
            }),
            Aspect(("floor", "storey", "stairs", "high"), {
                "ground": "My grandmother cannot climb stairs.",
                "middle": "I want neither to climb far nor to live at street level.",
                "top": "I want nobody above my head.",
            }),
            Aspect(("place", "where", "area", "location", "part"), {
                "campus": "I have lectures at eight every morning.",
                "river": "I row before work.",
                "market": "I like to buy fresh vegetables every day.",
                "suburb": "I want to hear birds and no cars.",
            }),
            Aspect(("extra", "extras", "facilities", "amenities", "else"), {
                "balcony": "I grow tomatoes in pots.",
                "cellar": "I make my own wine and have to keep it cool.",
                "garage": "My old car must not stand in the rain.",
                "study": "I work from home and need to close a door behind me.",
            }),
        )),
        Need("course", "I would like to take a course.", (
            Aspect(("subject", "topic", "about", "learn"), {
                "cooking": "My friends no longer accept my invitations to dinner.",
                "drawing": "I bought a sketchbook and it is still empty.",
                "spanish": "I move to Madrid next year.",
                "welding": "I want to mend the iron gate of my farm myself.",
            }),
            Aspect(("time", "when", "day", "hour"), {
                "morning": "I work night shifts and am free when others start.",
                "evening": "I leave the office at six.",
                "weekend": "From Monday to Friday I have no minute to spare.",
            }),
            Aspect(("level", "experience", "beginner", "advanced", "before"), {
                "beginner": "I have never done anything like it.",
                "medium": "I know the basics but have grown rusty.",
                "advanced": "I could nearly teach it myself.",
            }),
            Aspect(("form", "class", "group", "teaching", "online"), {
                "online": "I live on an island, far from any school.",
                "group": "I learn best when others make the same mistakes.",
                "private": "I am too shy to speak when others listen.",
            }),
        )),
    )
}  # fmt: skip
