"""Words of the English-German sample: nouns, adjectives and verbs with their forms in both languages, and the rest.

Names, English days, months and counts are those of `sample_words`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

# English singular and plural, gender, German singular and plural, and for weak nouns the singular of the other cases.
NOUNS = {
    "person": """
        man men m Mann Männer / woman women f Frau Frauen / child children n Kind Kinder / girl girls n Mädchen Mädchen
        boy boys m Junge Jungen Jungen / doctor doctors m Arzt Ärzte / teacher teachers f Lehrerin Lehrerinnen
        student students m Student Studenten Studenten / brother brothers m Bruder Brüder / aunt aunts f Tante Tanten
        sister sisters f Schwester Schwestern / singer singers f Sängerin Sängerinnen / king kings m König Könige
        baker bakers m Bäcker Bäcker / baby babies n Baby Babys / neighbour neighbours m Nachbar Nachbarn Nachbarn
    """,
    "animal": """
        dog dogs m Hund Hunde / cat cats f Katze Katzen / horse horses n Pferd Pferde / bird birds m Vogel Vögel
        cow cows f Kuh Kühe / pig pigs n Schwein Schweine
    """,
    "text": "book books n Buch Bücher / letter letters m Brief Briefe / newspaper newspapers f Zeitung Zeitungen",
    "food": "apple apples m Apfel Äpfel / egg eggs n Ei Eier / potato potatoes f Kartoffel Kartoffeln",
    "clothing": "coat coats m Mantel Mäntel / jacket jackets f Jacke Jacken / shirt shirts n Hemd Hemden",
    "opening": "window windows n Fenster Fenster / door doors f Tür Türen / shop shops m Laden Läden",
    "machine": "car cars n Auto Autos / lamp lamps f Lampe Lampen / clock clocks f Uhr Uhren / boat boats n Boot Boote",
    "ware": "chair chairs m Stuhl Stühle / table tables m Tisch Tische / bag bags f Tasche Taschen",
    "place": """
        garden gardens m Garten Gärten / city cities f Stadt Städte / house houses n Haus Häuser
        kitchen kitchens f Küche Küchen / village villages n Dorf Dörfer / forest forests m Wald Wälder
    """,
}
THINGS = "text food clothing opening machine ware"
ANYTHING = f"person animal {THINGS}"
# By the kinds of noun that they go with.
ADJECTIVES = {
    f"place {ANYTHING}": "old alt / small klein / big groß / beautiful schön",
    "person animal": "young jung / strong stark / hungry hungrig / friendly freundlich / famous berühmt",
    "person": "rich reich / poor arm / clever klug",
    f"place {THINGS}": "new neu / strange seltsam",
    THINGS: "red rot / green grün / cheap billig / heavy schwer",
}
# English infinitive, third person and participle; German infinitive, with a bar after a prefix that is separable, third
# person without it and participle. By the kinds of the (direct) object.
VERBS = {
    ANYTHING: """
        see sees seen sehen sieht gesehen / find finds found finden findet gefunden
        love loves loved lieben liebt geliebt / paint paints painted malen malt gemalt
        pick_up picks_up picked_up ab|holen holt abgeholt / look_at looks_at looked_at an|sehen sieht angesehen
    """,
    "person": """
        visit visits visited besuchen besucht besucht / greet greets greeted grüßen grüßt gegrüßt
        call calls called an|rufen ruft angerufen / invite invites invited ein|laden lädt eingeladen
    """,
    "person animal": """
        help helps helped helfen hilft geholfen / thank thanks thanked danken dankt gedankt
        follow follows followed folgen folgt gefolgt
    """,
    f"animal {THINGS}": """
        buy buys bought kaufen kauft gekauft / carry carries carried tragen trägt getragen
        give gives given geben gibt gegeben / show shows shown zeigen zeigt gezeigt
        bring brings brought mit|bringen bringt mitgebracht
    """,
    "text": "read reads read lesen liest gelesen / write writes written schreiben schreibt geschrieben",
    "food": "eat eats eaten essen isst gegessen",
    "clothing": "put_on puts_on put_on an|ziehen zieht angezogen",
    "clothing food machine": "wash washes washed waschen wäscht gewaschen",
    "machine ware": "repair repairs repaired reparieren repariert repariert",
    "opening": """
        open opens opened auf|machen macht aufgemacht / close closes closed zu|machen macht zugemacht
    """,
}
DATIVE = ("help", "thank", "follow")
"""Verbs whose object is in the dative."""
GIVING = ("give", "show", "bring")
"""Verbs with a person in the dative before the object."""
# English third person, infinitive and negation; German third person, plural, and either once more where it is negated.
MODALS = """
    can can cannot kann können kann können / must must must_not muss müssen darf dürfen
    wants_to want_to - will wollen will wollen
"""
# What a clause with "that" depends on: English singular and plural, German singular and plural.
SAYING = "says say sagt sagen / knows know weiß wissen / believes believe glaubt glauben / hopes hope hofft hoffen"
PRONOUNS = "he er singular / she sie singular / they sie plural / we wir plural"
TIMES = "today heute / now jetzt / every_day jeden_Tag / in_the_morning am_Morgen / in_the_evening am_Abend"
WEEKDAYS = "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"
MONTHS = "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"
COUNTS = "zwei drei vier fünf sechs sieben acht neun zehn zwölf fünfzehn zwanzig dreißig vierzig"
DIGITS = ("16", "25", "36", "48", "75", "100")
# Towns that have another name in German.
TOWNS = """
    Rome Rom / Tokyo Tokio / Moscow Moskau / Geneva Genf / Vienna Wien / Brussels Brüssel / Beijing Peking
    Munich München / Milan Mailand / Cairo Kairo / Warsaw Warschau
"""
# English singular and plural, German stem, whether what it is said of is known: that can be negated by "nicht".
DETERMINERS = {
    "the": ("the", "the", "der", True),
    "this": ("this", "these", "dies", True),
    "my": ("my", "my", "mein", True),
    "every": ("every", "", "jed", False),
    "a": ("a", "", "ein", False),
    "no": ("no", "no", "kein", False),
}
SINGULAR = ("the", "the", "the", "the", "a", "a", "a", "this", "my", "every")
PLURAL = ("the", "the", "this", "my", "number", "number", "none")


class Verb(NamedTuple):
    infinitive: str
    third: str
    participle: str
    german_infinitive: str
    german_third: str
    german_participle: str


class Modal(NamedTuple):
    third: str
    infinitive: str
    negation: str
    german_third: str
    german_plural: str
    german_third_negated: str
    german_plural_negated: str


@cache
def entries(text: str) -> list[tuple[str, ...]]:
    """The fields of each entry of a list; an underscore is a space within a field."""
    lists = [entry.split() for entry in re.split(r"[/\n]", text)]
    return [tuple(field.replace("_", " ") for field in fields) for fields in lists if fields]


@cache
def adjectives(kind: str) -> list[tuple[str, ...]]:
    """English and German adjectives that go with nouns of a kind."""
    return [entry for kinds, text in ADJECTIVES.items() if kind in kinds.split() for entry in entries(text)]


@cache
def verbs() -> list[tuple[list[str], Verb]]:
    """Every verb, after the kinds of noun that are its object."""
    return [(kinds.split(), Verb(*entry)) for kinds, text in VERBS.items() for entry in entries(text)]


@cache
def modals() -> list[Modal]:
    return [Modal(*entry) for entry in entries(MODALS)]
