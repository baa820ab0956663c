"""Synthetic text shipped with the package, so that every task trains offline: sentences from a small seeded grammar.

A grammar maps a symbol to its productions, one a line, `3*` before a line giving it three times the weight. In a
production `<symbol>` is expanded further or, if the grammar has no such symbol, drawn from the words of `sample_words`;
`[PER ... ]` encloses an entity; everything else stands for itself. Another task brings its own grammar and reader and
shares `expand`.

The words are made up and the sentences only look like news: scores on this text say that the tool works, and nothing
about real text. Tokens are split by Treebank rules ("Keller 's", "$ 3.5 million") with quotation marks kept as `"`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache

from seqtext.data.sample_words import Split, draw

SIZES: dict[Split, int] = {"train": 1500, "valid": 300, "test": 300}

NER = {
    "sentence": """
        4* <team-sport>
        2* <single-sport>
        4* <business>
        4* <politics>
        4* <travel>
        2* <culture>
        3* <incident>
        2* <nameless>
        1* <listing>
        2* <quotation>
        1* <dateline>
    """,
    # Names: the raw parts first, then the same parts under a type.
    "family": "7* <surname>\n2* <nounsurname>\n1* <hyphenated>",
    "given": "5* <first>\n2* <knownfirst>\n1* <nounfirst>",
    "town-name": "6* <town>\n3* <knowntown>\n1* <nountown>",
    "country-name": "2* <country>\n1* <knowncountry>",
    "people-name": "2* <people>\n1* <knownpeople>",
    "acronym-name": "5* <acronym>\n1* <knownacronym>",
    "brand-name": "3* <brand>\n1* <nounbrand>",
    "person": "9* <full-name>\n2* <honorific> [PER <family> ]\n1* [PER <given> ]",
    "full-name": """
        6* [PER <given> <family> ]
        1* [PER <initial> <family> ]
        1* [PER <given> <initial> <family> ]
        1* [PER <given> van <family> ]
        1* [PER <given> de <family> ]
    """,
    "surname-only": "[PER <family> ]",
    "given-only": "[PER <given> ]",
    "place": """
        6* [LOC <town-name> ]
        3* [LOC <country-name> ]
        1* [LOC North <country-name> ]
        1* [LOC South <country-name> ]
        1* [LOC New <town> ]
        1* [LOC Port <surname> ]
    """,
    "city": "7* [LOC <town-name> ]\n1* [LOC New <town> ]",
    "nation": "[LOC <country-name> ]",
    "landmark": """
        the [LOC <town-name> River ]
        [LOC Lake <surname> ]
        [LOC Mount <surname> ]
        the [LOC <surname> Valley ]
        [LOC <surname> Island ]
        [LOC <surname> Street ]
        the [LOC <people-name> Sea ]
    """,
    "team": """
        6* [ORG <town-name> ]
        1* [ORG <town-name> United ]
        1* [ORG <town-name> City ]
        1* [ORG Real <town-name> ]
    """,
    "company": """
        2* [ORG <brand-name> Corp ]
        2* [ORG <brand-name> Ltd ]
        1* [ORG <brand-name> AG ]
        1* [ORG <family> & Sons ]
        1* [ORG <family> and <family> ]
        1* [ORG <surname> Brothers ]
        1* [ORG <town-name> Steel ]
        1* [ORG Bank of <town-name> ]
        1* [ORG <brand-name> Bank ]
        1* [ORG <acronym-name> ]
        1* [ORG <people-name> Airlines ]
    """,
    # A bare town, surname or common word that only its surroundings make a company.
    "short-company": "3* [ORG <brand-name> ]\n2* [ORG <family> ]\n1* [ORG <town-name> ]\n2* [ORG <acronym-name> ]",
    "firm": "<company>\n<short-company>",
    "body": """
        2* the [ORG <acronym-name> ]
        1* the [ORG <people-name> Football Federation ]
        1* the [ORG <people-name> Labour Party ]
        1* the [ORG <people-name> Commission ]
        1* the [ORG University of <town-name> ]
        1* [ORG <surname> University ]
        1* the [ORG <town-name> City Council ]
        1* the [ORG Ministry of <ministry> ]
        1* the [ORG <surname> Institute ]
    """,
    "adjective": "[MISC <people-name> ]",
    "contest": """
        3* the [MISC <town-name> Open ]
        1* the [MISC <surname> Cup ]
        1* the [MISC <people-name> Grand Prix ]
        1* the [MISC <town-name> Marathon ]
        1* the [MISC <country-name> Masters ]
    """,
    "occasion": """
        the [MISC <town-name> Festival ]
        the [MISC <town-name> Accord ]
        the [MISC <people-name> War ]
        the [MISC <town-name> Treaty ]
        [MISC <surname> Day ]
    """,
    "prize": "the [MISC <surname> Prize ]\nthe [MISC <people-name> Book Award ]\nthe [MISC <town-name> Medal ]",
    "work": """
        " [MISC The <titleadj> <titlenoun> ] "
        " [MISC <titleadj> <titlenoun> ] "
        " [MISC <titlenoun> of the <titlenoun> ] "
    """,
    # Phrases without a name, or around one.
    "when": """
        2* on <weekday>
        1* last <weekday>
        1* late on <weekday>
        1* in <month>
        1* on <shortmonth> <day>
        1* on <month> <day> , <year>
        1* in <year>
        1* this week
        1* yesterday
    """,
    "someone": "a <role>\na <adj> <role>\nthe <role>\na <role> from <place>\na former <role>\nan <adjective> <role>",
    "apposition": """
        , <age> ,
        , a <adj> <role> ,
        , a <role> from <place> ,
        , who grew up in <city> ,
        , who once worked for <firm> ,
        , the <adjective> <role> ,
        , <role> of <body> ,
    """,
    "agent": """
        3* <person>
        1* <person> <apposition>
        1* <role> <full-name>
        1* <nation> 's <role> <full-name>
        1* <surname-only>
    """,
    "percent": "<decimal> percent\n<decimal> %\n<few> percent",
    "money": "$ <decimal> million\n$ <decimal> billion\n<few> million dollars\n<decimal> million euros",
    "matter": "the <adj> <plan>\na <adj> <plan>\nthe <plan>\nthe <plan> on <field>\nthe <field> <plan>",
    "aim": """
        sign a <pact> with <nation>
        open a <adj> <thing> in <city>
        vote against <matter>
        close <few> plants
        cut <many> jobs in <place>
        pay for <matter>
        sell its <field> business
        leave <nation> by <month>
        buy <few> <product> makers
        pull out of <nation>
    """,
    "team-sport": """
        3* <team> beat <team> <win>
        3* <team> <goals> <team> <goals>
        2* <team> beat <team> <win> <when> .
        1* <team> drew <draw> with <team> after <surname-only> missed a penalty .
        2* <nation> beat <nation> <win> in a friendly in <city> <when> .
        1* <surname-only> scored twice as <team> won <win> at <team> .
        1* <team> have signed <adjective> striker <full-name> from <team> for <money> .
        1* <team> coach <full-name> said his side had been <adj> but lucky .
        1* <agent> will miss the match between <team> and <team> with a <adj> knee injury .
        1* <team> lead the table with <few> points , ahead of <team> and <team> .
        1* The [ORG <people-name> Football Federation ] banned <team> goalkeeper <full-name> for <few> matches .
        1* Scorers : <surname-only> ( <minute> ) , <surname-only> ( <minute> ) , <surname-only> ( <minute> ) .
        1* <team> 's <adj> captain <surname-only> was sent off against <team> .
    """,
    "single-sport": """
        2* <full-name> ( <nation> ) beat <full-name> ( <nation> ) <set> <set>
        2* <surname-only> beat <surname-only> <set> <set> to reach the final of <contest> .
        2* <rank> <full-name> ( <nation> ) <clock>
        1* <adjective> <full-name> won <contest> in <city> <when> .
        1* <few> - <full-name> , <full-name> , <surname-only>
        1* <surname-only> , second in <contest> last year , pulled out with a back injury .
        1* Leading scores in <contest> : <minute> <full-name> , <minute> <full-name>
        1* No <adjective> has won <contest> since <year> .
    """,
    "business": """
        2* <short-company> shares rose <percent> <when> after <company> made a bid .
        2* <short-company> said its profit fell <percent> to <money> .
        1* <company> said it would <aim> .
        1* <company> named <person> as chief executive , replacing <person> .
        1* Shares in <short-company> fell to <decimal> , and <short-company> lost <percent> .
        1* <short-company> , which makes <product> parts in <place> , plans to <aim> .
        1* <agent> of <firm> said <good> prices would rise <percent> in <month> .
        1* <company> bought <short-company> for <money> <when> .
        1* <adjective> <good> exports to <nation> fell <percent> <when> .
        1* Analysts at <company> cut their forecast for <short-company> to <money> .
        1* <short-company> 's <adj> <product> goes on sale in <place> <when> .
        1* A <product> maker owned by <short-company> and <short-company> will <aim> .
        1* The <adj> <pact> gives <company> control of <percent> of the <adjective> <good> market .
        1* the [ORG Central Bank of <country-name> ] raised rates by <percent> , its <adj> move since <year> .
        1* <surname-only> , who founded <short-company> in <year> , still owns <percent> of it .
        1* Investors in <city> sold <short-company> , <short-company> and other <field> stocks .
    """,
    "politics": """
        2* <agent> <saying> that <nation> would not <aim> .
        1* <nation> and <nation> agreed to <aim> , the <adjective> <role> said <when> .
        1* <person> met <adjective> <role> <full-name> in <city> <when> to discuss <matter> .
        1* <people_of> in <place> rejected <matter> put forward by <person> .
        1* <surname-only> , who leads <body> , told <people_of> that he would <aim> .
        1* <body> <saying> it had no plan to <aim> .
        1* <adjective> troops crossed the border into <nation> <when> .
        1* The <adj> <pact> between <nation> and <nation> was signed in <city> in <year> .
        1* <agent> , speaking in <adjective> , called <matter> a <adj> mistake .
        1* <people_of> from <nation> , <nation> and <nation> met near <landmark> <when> .
        1* Talks on <matter> , which <agent> had opposed , broke down in <city> .
        1* <surname-only> 's <plan> was backed by <body> but not by <body> .
        1* <body> accused <nation> of breaking <occasion> .
        1* Will <nation> <aim> ?
        1* Prime Minister <full-name> <saying> the <city> talks had been <adj> .
    """,
    "travel": """
        3* <person> flew from <place> to <place> .
        2* <agent> flew from <city> to <city> <when> .
        1* <agent> travelled from <place> to <place> by train and then on to <place> .
        1* <person> arrived in <place> <when> for talks with <person> .
        1* <person> lives in <city> with her husband , <person> , and <few> children .
        1* <agent> was born in <place> in <year> and moved to <place> as a child .
        1* The road from <city> to <city> runs along <landmark> for <few> miles .
        1* <landmark> is <few> miles north of <city> .
        1* <agent> left <city> <when> and never went back to <nation> .
        1* In <place> , <people_of> can see <landmark> from the <adj> <thing> .
        1* <company> flies from <city> to <place> <few> times a week .
        1* <person> visited <place> , <place> and <place> in <month> .
        1* <given-only> and <given-only> drove from <city> to <city> in <few> hours .
        1* Trains between <city> and <city> were late <when> , <company> said .
        1* <person> works for <firm> in <place> .
        1* <person> studied <field> at <body> before moving to <place> .
    """,
    "culture": """
        <person> , the author of <work> , has won <prize> .
        <work> , a <adj> film by <person> , opens in <city> <when> .
        <adjective> <role> <full-name> will play the <instrument> at the [MISC <town-name> Festival ] .
        <surname-only> wrote <work> in <adjective> while living in <place> .
        The museum in <city> has bought <work> by <surname-only> for <money> .
        <body> will show <work> and <work> <when> .
        <given-only> read <work> twice and gave it to <given-only> .
        <person> taught the <instrument> in <place> until <occasion> began .
    """,
    "incident": """
        <many> <people_of> were killed in a <event> near <city> , <person> of the local police said .
        A <event> in <place> left <many> people dead and closed <landmark> .
        Police in <city> arrested <someone> and <person> after the <event> <when> .
        <agent> was hurt when a <event> hit <place> <when> .
        <person> , <age> , from <city> , was found near <landmark> <when> .
        <adjective> police questioned <person> about the <event> at <company> .
        <people_of> fled <place> for <nation> after the <event> , <someone> said .
        <surname-only> , <age> , pleaded guilty to stealing <money> from <company> .
        A <adj> <event> struck <landmark> in <nation> <when> , but no one was hurt .
        <body> sent <many> doctors to <place> after the <event> .
    """,
    "nameless": """
        <good> prices rose <percent> <when> .
        <people_of> waited for <few> hours before <matter> was read out .
        <someone> and <many> <people_of> were hurt in the <event> .
        <weekday> 's <plan> was put off because of the <event> .
        <many> <people_of> asked for <matter> and did n't get it .
        <adj> <good> costs <money> a year , a <adj> report showed .
        <event> damage to the <thing> was put at <money> .
        The <role> who saw the <event> from the <thing> did not wish to be named .
        <field> stocks lost <percent> and <good> gained <percent> .
        Why did the <role> sell the <adj> <thing> in <month> ?
        Nobody knows what the <role> told the <role> <when> .
        <month> was the <adj> month for <good> since <year> .
        <role> and <role> alike complained about <good> prices .
        Results of <weekday> 's matches :
        The <thing> , which cost <money> , opened <when> .
    """,
    "listing": """
        Others : <person> , <person> , <person> , <person> .
        Results : <team> <goals> <team> <goals> ; <team> <goals> <team> <goals> .
        Offices : <city> , <city> , <city> and <city> .
        Members are <nation> , <nation> , <nation> and <nation> .
        Biggest gains : <short-company> ( <percent> ) , <short-company> ( <percent> ) , <short-company> ( <percent> ) .
        On show : <work> , <work> and <work> .
    """,
    "quotation": """
        " We will <aim> , " <agent> said <when> .
        " The <plan> is <adj> , " <saying> <person> , <someone> .
        " <nation> can not <aim> , " <surname-only> told <people_of> in <city> .
        " I never liked <place> , " <person> wrote to <person> <when> .
        " It was a <adj> <event> , " he said , " and the <people_of> knew it . "
        " Ask <short-company> or <short-company> for a <adj> price , " <someone> said .
        " We were better than <team> , " <surname-only> said after the match in <city> .
    """,
    "dateline": """
        <city> , <shortmonth> <day> -- <person> will <aim> , <company> said .
        <city> <date>
        <person>
        <city> , <weekday>
    """,
    # Set in capitals throughout.
    "headline": """
        soccer - <team> beat <team> in cup final .
        tennis - <surname-only> wins <contest> .
        <nation> and <nation> sign <pact> .
        <short-company> shares fall after <event> .
        <good> prices rise on <event> fears .
        <surname-only> to visit <place> .
        <many> hurt in <place> <event> .
        <people_of> reject <field> <plan> .
        <adjective> <role> <surname-only> quits .
    """,
}


@cache
def _productions(text: str) -> list[list[str]]:
    lines: list[list[str]] = []
    for line in text.strip().splitlines():
        weight, star, body = line.strip().partition("* ")
        lines += [body.split()] * int(weight) if star else [line.split()]
    return lines


def expand(grammar: dict[str, str], symbol: str, split: Split, rng: random.Random) -> Iterator[str]:
    """The pieces of one random expansion of `symbol`, brackets of entities (`[PER` and `]`) among them.

    Raises `KeyError` for a symbol that neither the grammar nor the word lists have.
    """
    if symbol not in grammar:
        yield draw(symbol, split, rng)
        return
    lines = _productions(grammar[symbol])
    for piece in lines[int(rng.random() * len(lines))]:
        if piece[0] == "<":
            yield from expand(grammar, piece[1:-1], split, rng)
        else:
            yield piece


def ner_sample(split: Split, *, size: int | None = None, seed: int = 0) -> Iterator[tuple[list[str], list[str]]]:
    """Sentences as (tokens, IOB2 tags of PER, ORG, LOC and MISC); `size` is 1500, 300 and 300 by default.

    The same arguments give the same sentences on every machine, and a smaller size a prefix of a larger one. The names
    of valid and test never occur in train whatever the seed. Raises `ValueError` for an unknown split.
    """
    if split not in SIZES:
        raise ValueError(f"no split {split!r} in the sample; it has {', '.join(SIZES)}")
    rng = random.Random(f"{split} {seed}")
    return (_tagged(split, rng) for _ in range(SIZES[split] if size is None else size))


def _tagged(split: Split, rng: random.Random) -> tuple[list[str], list[str]]:
    """One sentence that names nothing twice, now and then a headline in capitals."""
    headline = rng.random() < 0.06
    while True:
        tokens, tags = _untangle(expand(NER, "headline" if headline else "sentence", split, rng))
        names = [token for token, tag in zip(tokens, tags) if tag != "O" and token[0].isupper()]
        if len(set(names)) == len(names):
            break
    for place, following in enumerate(tokens[1:]):
        if tokens[place] in ("a", "A", "an") and tags[place] == "O":
            tokens[place] = tokens[place][0] + ("n" if following[0].lower() in "aeio" else "")
    first = 1 if tokens[0] == '"' else 0
    tokens[first] = tokens[first][0].upper() + tokens[first][1:]
    return ([token.upper() for token in tokens] if headline else tokens), tags


def _untangle(pieces: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tokens and tags out of pieces with brackets."""
    tokens: list[str] = []
    tags: list[str] = []
    tag = "O"
    for piece in pieces:
        if piece[0] == "[":
            tag = "B-" + piece[1:]
        elif piece == "]":
            tag = "O"
        else:
            tokens.append(piece)
            tags.append(tag)
            tag = tag.replace("B-", "I-")
    return tokens, tags
