# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Lists of real-looking words for values; a training list and a held-out list that share nothing.

Most values are made from syllables and digits (`values.py`); these lists keep the corpus near to
real documents. Legal forms and street words (`LEGAL`, `STREETS`) belong to both splits: they
are grammar, not values.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.strip().split(","))


FIRST_TRAIN = _words("""
Anna Ben Clara David Elena Felix Greta Hannah Ivan Julia Karl Laura Martin Nina Oscar Paula Robert
Sarah Thomas Ursula Victor Wendy Yusuf Zoe Ahmed Bianca Carlos Diana Emil Fatima George Helen Ines
James Kenji Lucia Mohamed Natalie Omar Peter Rosa Samuel Tina Uwe Vera William Xenia Aisha Bruno
Chloe Dmitri Eva Frank Gloria Hugo Irene Jonas Kate Leo Marta Noah Olga Pavel Rita Simon Tamara
Alice John Mary Paul Susan Mark Linda Kevin Emma Liam Olivia Lucas Mia Ethan Grace Ryan Amy Sean
""")
FIRST_HELDOUT = _words("""
Margaret Patrick Sofia Stefan Beatrice Henrik Amira Gustav Leila Marcus Priya Anton Camille Dario
Edith Florian Giulia Harold Ingrid Joaquin Katrin Lorenzo Miriam Nikolai Ophelia Rupert Selma Tobias
""")
LAST_TRAIN = _words("""
Adams Baker Carter Davis Evans Fischer Garcia Hansen Ivanov Jensen Keller Lopez Meyer Nguyen Olsen
Petrov Quinn Rossi Schmidt Taylor Ueda Vogel Walker Young Zimmer Brown Clark Dubois Ericsson Foster
Gruber Hughes Ito Jones Kowalski Larsen Martin Novak Ortiz Parker Reyes Silva Turner Urban Vargas
Weber Yilmaz Ziegler Almeida Bauer Costa Diaz Engel Ferrari Green Haas Jung Klein Lang Moreau
Smith Johnson Wilson Moore White Harris Lewis Hall Allen King Wright Scott Hill Cook Bell Ward
""")
LAST_HELDOUT = _words("""
Holloway Lindqvist Okafor Brennan Castellano Drummond Eriksen Fairbanks Goldberg Haverkamp Ishikawa
Jankowski Kessler Lachance Marchetti Norwood Ostrowski Pemberton Quigley Rasmussen Sandoval Thorne
Underhill Vasquez Whitfield Yamamoto Zeller Abernathy
""")
CITY_TRAIN = _lines("""
Berlin, Hamburg, Paris, Lyon, Madrid, Rome, Milan, Vienna, Prague, Warsaw, London, Leeds, Bristol,
Dublin, Boston, Chicago, Denver, Seattle, Austin, Toronto, Oslo, Bergen, Stockholm, Helsinki, Zurich,
Basel, Geneva, Porto, Lisbon, Athens, Budapest, Amsterdam, Utrecht, Ghent, Tokyo, Osaka, Sydney,
New York, San Diego, Los Angeles, Cape Town, St Gallen, Bad Homburg, Nairobi, Lima, Bogota, Delhi
""")
CITY_HELDOUT = _lines("""
Rotterdam, Munich, Glasgow, Valencia, Turin, Krakow, Malmo, Tampere, Lucerne, Antwerp, Portland,
Nashville, Perth, Kyoto, Santa Fe, Salzburg, Aarhus, Marseille, Cologne, Leipzig, Cardiff, Split
""")
STEM_TRAIN = _words("""
North South East West Blue Red Silver Golden Bright Clear Green River Lake Hill Stone Iron Oak Maple
Cedar Harbor Summit Valley Meadow Falcon Eagle Fox Wolf Bear Lion Star Sun Moon Sky Cloud Ocean Delta
Alpha Omega Prime Apex Nova Terra Aqua Solar Metro Urban Royal Union Global Central Modern Smart Swift
""")
STEM_HELDOUT = _words("""
Granite Willow Copper Amber Heron Raven Crimson Ivory Juniper Prairie Canyon Lantern Compass Anchor
Velvet Orchard Quarry Beacon Sterling Cobalt
""")
TRADE_TRAIN = _words("""
Foods Tools Paper Logistics Systems Media Supplies Trading Textiles Energy Optics Motors Garden
Software Services Print Design Consulting Electronics Furniture Transport Bakery Metals Plastics
Chemicals Packaging Sports Books Medical Solutions Industries Works Studio Labs Networks
""")
TRADE_HELDOUT = _words("""
Ceramics Instruments Catering Hardware Publishing Lighting Freight Robotics Interiors Analytics
""")
LEGAL = (
    "Ltd",
    "GmbH",
    "Inc.",
    "LLC",
    "AG",
    "Group",
    "Co.",
    "Corp.",
    "SARL",
    "BV",
    "plc",
    "AB",
    "SA",
)
STREETS = ("Street", "Road", "Lane", "Avenue", "Way", "Square", "Close", "Drive")
ADJECTIVE_TRAIN = _words("""
wooden steel compact large small black white folding portable wireless electric digital manual heavy
light soft hard round square long short plastic metal glass cotton leather outdoor indoor red blue
green grey premium basic classic mini double single adjustable waterproof silent thermal quick
""")
ADJECTIVE_HELDOUT = _words("""
bamboo rugged slim foldable cordless ergonomic oak stackable insulated padded aluminium retractable
""")
NOUN_TRAIN = _lines("""
chair, desk, table, shelf, lamp, cable, printer, scanner, monitor, keyboard, mouse, headset, router,
drill, hammer, saw, ladder, toolbox, pump, filter, valve, battery, charger, adapter, camera, tripod,
kettle, toaster, mixer, blender, knife set, cutting board, mug, bottle, plate, towel, blanket, pillow,
mattress, curtain, carpet, backpack, suitcase, wallet, jacket, boots, gloves, helmet, bicycle, tent,
notebook, pencil case, paper roll, envelope, folder, label printer, stapler, whiteboard, marker,
projector, speaker, microphone, tablet, phone case, power bank, memory card, hard drive, fan, heater,
vacuum cleaner, washing machine, fridge, oven, clock, mirror, frame, vase, candle, plant pot, hose,
garden bench, office chair, coffee machine, air cleaner, door lock, light bulb, water tank, box, rack
""")
NOUN_HELDOUT = _lines("""
bookcase, stool, lantern, webcam, docking station, soldering iron, wrench, sander, thermos, teapot,
duvet, rug, satchel, raincoat, kayak, sketchbook, paper shredder, laser pointer, dehumidifier, grill,
picture hook, watering can, hammock, filing cabinet, espresso grinder, wheelbarrow
""")
# Everyday nouns, for labels and names whose meaning does not matter.
NOUN_TRAIN = _words("""
account action address agent album alarm answer apple area article author badge balance band bank
basket batch beam bed bell belt bench bike bill bird blade blanket board boat body bolt bonus book
border bottle box branch brand bread brick bridge broker budget bucket build bundle button buyer cabin
cable cake camera camp canvas card carrier cart cash cell chain chair chance change channel
chapter charge chart check circle claim clerk client clock closet cloth club coach code coin
color column comment common contact cookie copy corner count county couple course cousin cover craft
credit crew crop cup current curve cycle dance data deal debt deck degree delay demand depot depth
design desk detail device diet dinner dish district doctor door draft drawer dress drink driver drum
duty edge editor effect effort engine entry error estate event exam exit expense extra fabric face
factor family fan farm fault feature feed field file film filter finger finish fire fish flag flat
flavor fleet flight floor flow flower folder food forest fork form frame freight fruit fuel fund game
garage garden gate gear gift glass goal gold grain grant grass ground guard guest guide habit half
handle harbor harvest hat head heart hedge hinge hobby home hook horse hotel house idea image impact
income injury input insect invest island issue jacket jar job joint journal judge juice key kitchen
knife ladder lake lamp land lane layer leaf league lease ledger lens letter lever library limit line
link list load loan lobby lock logo loss lunch magnet mail manager map margin market master
material meal media member memo menu message metal meter method mile mill mind mine minute mirror
mission mode module moment monitor motor mount mouth movie muscle museum nail name neck nest net night
noise nose note notice number object offer office oil option orange origin outfit oven owner pack page
paint pair panel paper park parent part partner party path patient pattern pause peak pen people
permit person phase photo piano picture pilot pin pipe plan planet plant plate player plot pocket poem
pool post power press print prize process profile profit project proof pump purpose quality quarter
queue race rack radio rail range rate ratio reason receipt record region remark rent repair reply
report rescue reserve result review reward ring risk road robot role roof room root rope route rule
salad sand scale scene school scope screen script seal season seat sector seed sensor series server
session shade shape share sheet shelf shift ship shirt shoe shop shore side signal site size skill
slot smoke snow sofa soil song source space spare speed spell sponsor spoon spot spring stage stamp
staff state station status step stock storage store storm story stream street strip studio style
supply surface switch symbol system table tail talent tank target task taste team tenant test text
theme thread ticket tide tile timber tip tire title toast token tone tool tooth topic tour tower town
track trade traffic train trainer tray tree trend trial trip truck trunk tube tunnel type unit user
vacation valve van vector vehicle vendor venue version vessel video view village visit voice volume
voyage wage wagon wall ward watch water wave wealth weather wheel width window wine wing winner wire
wood wool word worker yard year zone
""")
