"""Words for the embedded samples: names composed of parts and dealt out to the splits, and plain word lists.

A name belongs to exactly one split, decided by a checksum of its letters whatever their case, so that no name of valid
or test is ever met in training, as any type. Beginnings of names are shared by all kinds and say nothing of the type;
endings say something (-burg, -ova, -stan) and sometimes too little (-ton, -berg and -field end towns and surnames).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

Split = Literal["train", "valid", "test"]

DEAL: tuple[Split, ...] = ("train", "train", "train", "valid", "test")

# Single letters weigh more than clusters, so that most names can be pronounced.
ONSETS = "b d f g h j k l m n p r s t v w b d g h k l m n r s t v bl br cr dr fr gl gr kl kr pl sh st th tr al el or ar"
VOWELS = "a a a a e e e e i i i o o o o u u au ei oo"
CODAS = "b d g l l l m n n n p r r r s t t v z ck ld ll lm nd nn nt rd rk rl rm rn rr rv ss st sk tt"

ENDINGS = {
    "surname": (
        "er er er man mann son son sen berg berg stein ov ova ovic ski ska ez es ini etti elli ard eau ley "
        "ford ton well field wood s is os ko enko aga ura ura kin dottir"
    ),
    "first": "a a ia ina ena etta ika elle ette ine is ic ik en en on o os us an ard ert ias uel y ie ah mir slav",
    "town": (
        "burg burg ville ville ton ton ton ham stadt dorf berg field ford bury by port mouth minster grad "
        "holm bridge wick stead haven ino ento abad pur"
    ),
    "country": "ia ia ia ania onia land land stan stan istan ea ador aguay",
    "people": "ian ian ian anian onian ish ish stani istani ean ese ese adoran ic",
    "brand": "ex ix ax on tron tech soft net com co gen nova ora ium ics wave way star line max dyne tel pharm",
}
# How many names of a kind training draws on; valid and test each draw on half as many.
POOL = {"surname": 700, "first": 300, "town": 500, "country": 90, "people": 90, "brand": 200, "acronym": 90}

# Names that are common words as well: a word list cannot tell the two readings apart.
NOUN_NAMES = {
    "nounsurname": (
        "Baker Banks Barber Bell Berry Bishop Booth Bridges Brooks Bush Butcher Butler Carpenter Carter Cook "
        "Cooper Cross Day Dean Fields Fisher Flowers Ford Forest Fox Gardener Glass Hill Hunt Hunter King "
        "Knight Lane Law Little Long Marsh Mason Miller Moon Page Park Parks Pepper Porter Potter Price Reed "
        "Rice Rivers Rose Sharp Shepherd Short Singer Steel Stone Summers Swan Taylor Waters Weaver Wells "
        "Winter Wise Wolf Wood Woods Workman Young"
    ),
    "nounfirst": (
        "April August Bill Chase Dawn Daisy Drew Faith Frank Grace Grant Hope Iris Ivy Jack Joy June Lily "
        "Mark May Norm Olive Pat Pearl Ray Rich Rob Ruby Sue Summer Violet Will"
    ),
    "nountown": (
        "Barking Bath Battle Beer Bend Boulder Broom Buffalo Cork Deal Diss Eye Flint Hook Hull Mold Nelson "
        "Orange Over Poole Reading Rugby Rye Salt Sandwich Settle Ware Wash Wool Yelling"
    ),
    "nounbrand": (
        "Anchor Atlas Beacon Canyon Castle Compass Copper Eagle Falcon Feather Frontier Granite Harbour "
        "Harvest Horizon Lantern Maple Meadow Mirror Oak Orbit Orchard Pioneer Prairie Ribbon Ridge Saddle "
        "Sail Signal Spark Sprint Summit Target Thunder Timber Tower Vector Window"
    ),
    "titleadj": (
        "Silent Broken Hidden Golden Crimson Distant Burning Frozen Secret Endless Velvet Hollow Empty "
        "Borrowed Painted Last Lonely Wicked Wild Second Savage Scarlet Tender Stolen Forgotten Black Blue "
        "Dark Perfect Quiet Lost Bitter"
    ),
    "titlenoun": (
        "Garden River Window Letter Mountain Journey Daughter Kingdom Mirror Orchard Island Station "
        "Lighthouse Promise Shadow Winter Harvest Voyage Library Staircase Clock Ocean Bride Candle Stranger "
        "Paper Salt Nights Road Sister Stars House Dream Soldier Summer Bridge Wolf Thief Rain Heart"
    ),
}

# Real names, in training only, so that everyday sentences find their commonest words known; the other splits draw
# made-up names of the same kind instead.
KNOWN = {
    "knownfirst": (
        "Angela Peter Maria John Anna James Sarah Michael Laura David Thomas Elena Paul Julia Robert Emma "
        "George Nina Martin Olga Carlos Yuki Ahmed Fatima Ivan Pierre Hans Ingrid Tony Barack Hillary "
        "Vladimir Emmanuel"
    ),
    "knowntown": (
        "Berlin Washington London Paris Madrid Rome Tokyo Moscow Geneva Vienna Brussels Beijing Sydney "
        "Chicago Boston Munich Hamburg Milan Barcelona Toronto Cairo Delhi Seoul Warsaw Stockholm Amsterdam "
        "Istanbul"
    ),
    "knowncountry": (
        "Germany France Italy Spain Russia China Japan Britain India Brazil Canada Australia Egypt Turkey "
        "Poland Sweden Mexico Israel Iran Iraq Austria Ukraine"
    ),
    "knownpeople": (
        "German French Italian Spanish Russian Chinese Japanese British Indian Brazilian Canadian Australian "
        "Egyptian Turkish Polish Swedish Mexican Israeli American European Dutch Austrian"
    ),
    "knownacronym": "NATO IBM BBC UNESCO FIFA UEFA OPEC IMF FBI CIA CNN BMW",
}

# Words that Treebank rules cut in two.
CONTRACTIONS = {"Cannot", "Gimme", "Gonna", "Gotta", "Lemme", "Wanna"}

# Plain words. Every fifth word of a list is kept from training, so that an unseen word need not be a name.
COMMON = {
    "role": (
        "minister spokesman lawyer banker baker teacher engineer doctor judge analyst farmer writer painter "
        "singer miner driver nurse butcher shepherd trader economist mayor senator ambassador general "
        "scientist striker goalkeeper coach captain architect historian pilot carpenter fisherman accountant "
        "composer surgeon editor novelist clerk chemist builder sculptor detective publisher barber miller "
        "tailor weaver"
    ),
    "good": (
        "steel rice coal copper wheat timber cotton coffee stone glass wool salt cork pepper sugar cocoa "
        "barley rye rose berry granite wood gold oil gas tin zinc leather cement paper maize rubber silk "
        "butter tobacco soya olive flower maple orange oak"
    ),
    "plan": (
        "budget plan report law tax reform proposal policy pension subsidy census election strike merger inquiry "
        "amnesty referendum programme curfew ban"
    ),
    "pact": "treaty pact deal contract truce agreement charter alliance",
    "thing": (
        "bridge dam railway tunnel museum airport court reactor hospital factory road pipeline satellite archive ferry "
        "harbour tower castle school market park station library summit field"
    ),
    "adj": (
        "new old large small sudden bitter quiet costly popular early rare bold narrow public private modern "
        "heavy local foreign national regional uneasy fierce modest ambitious secret frozen golden hidden "
        "broken young distant cautious formal lengthy sharp little short wise"
    ),
    "field": (
        "trade finance health energy transport education labour agriculture defence science culture mining "
        "shipping insurance housing tourism fisheries forestry justice engineering"
    ),
    "saying": (
        "said told warned added insisted claimed noted argued explained conceded admitted stressed hinted "
        "repeated denied"
    ),
    "people_of": (
        "officials voters soldiers workers students tourists farmers police rebels lawmakers doctors "
        "journalists fans refugees troops sailors diplomats shoppers miners pilgrims hunters bakers banks"
    ),
    "event": (
        "fire flood storm crash strike explosion earthquake riot landslide drought avalanche blackout protest march"
    ),
    "product": (
        "car phone drug engine aircraft turbine chip camera tractor battery scanner train printer watch vaccine"
    ),
    "instrument": "piano violin cello organ flute guitar harp trumpet drum oboe",
}

# Words that every split has in full.
FIXED = {
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
    "shortmonth": "Jan. Feb. Aug. Sept. Oct. Nov. Dec.",
    "count": "two three four five six seven eight nine ten twelve fifteen twenty thirty forty",
    "initial": "A. B. C. D. E. F. G. H. J. K. L. M. N. P. R. S. T. W.",
    "honorific": "Mr. Mrs. Ms. Dr. Professor President Senator Judge Captain Sir",
    "ministry": "Trade Finance Health Energy Transport Education Labour Agriculture Defence Science Culture Justice",
    "set": "6-0 6-1 6-2 6-3 6-4 7-5 7-6",
}


def _whole(low: int, high: int) -> Callable[[random.Random], str]:
    return lambda rng: str(low + int(rng.random() * (high - low + 1)))


def _win(rng: random.Random) -> str:
    loser = int(rng.random() * 3)
    return f"{loser + 1 + int(rng.random() * 3)}-{loser}"


NUMBERS: dict[str, Callable[[random.Random], str]] = {
    "few": lambda rng: choose(FIXED["count"].split(), rng) if rng.random() < 0.6 else _whole(2, 40)(rng),
    "many": lambda rng: (
        f"{_whole(1, 90)(rng)},{_whole(100, 999)(rng)}" if rng.random() < 0.15 else _whole(12, 900)(rng)
    ),
    "decimal": lambda rng: f"{_whole(0, 60)(rng)}.{_whole(0, 9)(rng)}",
    "age": _whole(18, 89),
    "day": _whole(1, 28),
    "year": _whole(1961, 2024),
    "minute": _whole(1, 90),
    "goals": _whole(0, 6),
    "rank": lambda rng: _whole(1, 12)(rng) + ".",
    "win": _win,
    "draw": lambda rng: choose(["0-0", "1-1", "2-2", "3-3"], rng),
    "clock": lambda rng: f"{_whole(1, 4)(rng)}:{_whole(10, 59)(rng)}.{_whole(10, 99)(rng)}",
    "date": lambda rng: f"{_whole(1996, 2015)(rng)}-0{_whole(1, 9)(rng)}-{_whole(10, 28)(rng)}",
}


def split_of(word: str) -> Split:
    """The one split a name may appear in: three fifths of all names are training's, a fifth each valid's and test's."""
    if word.casefold() in _known():
        return "train"
    return DEAL[zlib.crc32(word.casefold().encode()) % len(DEAL)]


@cache
def _known() -> frozenset[str]:
    return frozenset(word.casefold() for words in KNOWN.values() for word in words.split())


def draw(kind: str, split: Split, rng: random.Random) -> str:
    """One word of a kind. Raises `KeyError` for an unknown kind."""
    if kind in NUMBERS:
        return NUMBERS[kind](rng)
    if kind in FIXED:
        return choose(FIXED[kind].split(), rng)
    words = pool(kind, split)
    # The product makes some words frequent and most rare, as in real text.
    return words[int(len(words) * (rng.random() * rng.random()))]


@cache
def pool(kind: str, split: Split) -> list[str]:
    """The words of a kind that a split may use, commonest first. Raises `KeyError` for an unknown kind."""
    if kind in COMMON:
        words = COMMON[kind].split()
        return [word for place, word in enumerate(words) if split != "train" or place % 5 != 4]
    if kind in NOUN_NAMES:
        return [word for word in NOUN_NAMES[kind].split() if split_of(word) == split]
    if kind in KNOWN:
        return KNOWN[kind].split() if split == "train" else pool(kind.removeprefix("known"), split)
    if kind == "hyphenated":
        names = pool("surname", split)
        return [f"{one}-{other}" for one, other in zip(names[0::2], names[1::2])]
    size = POOL[kind] if split == "train" else POOL[kind] // 2
    rng = random.Random(zlib.crc32(f"{kind} {split}".encode()))
    found: dict[str, None] = {}
    while len(found) < size:
        word = _compose(kind, rng)
        if split_of(word) == split and word not in CONTRACTIONS:
            found[word] = None
    return list(found)


def _compose(kind: str, rng: random.Random) -> str:
    if kind == "acronym":
        return "".join(choose("BCDFGHKLMNPRSTVWZ", rng) for _ in range(3 + (rng.random() < 0.3)))
    onset, vowel, coda = (choose(parts.split(), rng) for parts in (ONSETS, VOWELS, CODAS))
    # An onset that begins with its own vowel is a syllable already.
    stem = onset + (vowel + coda if onset[0] not in "aeo" else choose(["b", "d", "m", "v", "st", "w"], rng))
    return (stem + choose(ENDINGS[kind].split(), rng)).capitalize()


def choose(items: Sequence[str], rng: random.Random) -> str:
    """One item, each as likely. Of `rng`, `random()` alone is promised to be the same in every Python."""
    return items[int(len(items) * rng.random())]
