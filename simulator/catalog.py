"""Real ids and names of New Eden, so that the simulator's killmails look and resolve like real ones.

Types, systems, corporations, alliances and factions carry the ids and names they have in EVE Online;
which corporation is in which alliance is what a published killmail once said. Characters are not here:
`names.py` invents them. Nothing but tables.
"""

from typing import Final

# fmt: off

Named = tuple[int, str]

#: Ships with a pilot in them.
SHIPS: Final[tuple[Named, ...]] = (
    (587, "Rifter"), (593, "Tristan"), (594, "Incursus"), (597, "Punisher"), (598, "Breacher"),
    (602, "Kestrel"), (603, "Merlin"), (608, "Atron"), (585, "Slasher"), (589, "Executioner"),
    (17841, "Federation Navy Comet"), (17703, "Imperial Navy Slicer"), (17812, "Republic Fleet Firetail"),
    (33468, "Astero"), (16240, "Catalyst"), (16242, "Thrasher"), (32872, "Algos"), (16236, "Coercer"),
    (621, "Caracal"), (623, "Moa"), (17843, "Vexor Navy Issue"), (12005, "Ishtar"), (12019, "Sacrilege"),
    (11995, "Onyx"), (12013, "Broadsword"), (22456, "Sabre"), (22464, "Flycatcher"), (11393, "Retribution"),
    (11381, "Harpy"), (29984, "Tengu"), (29990, "Loki"), (29986, "Legion"), (16227, "Ferox"),
    (24702, "Hurricane"), (638, "Raven"), (639, "Tempest"), (24694, "Maelstrom"),
    (17636, "Raven Navy Issue"), (17918, "Rattlesnake"), (32880, "Venture"), (17478, "Retriever"),
    (20183, "Providence"), (28850, "Ark"), (19720, "Revelation"), (23913, "Nyx"), (11567, "Avatar"),
)

#: What is left when the ship is gone.
PODS: Final[tuple[Named, ...]] = ((670, "Capsule"),)

#: Things a corporation owns: they die without a character.
STRUCTURES: Final[tuple[Named, ...]] = (
    (35832, "Astrahus"), (35833, "Fortizar"), (35834, "Keepstar"), (35827, "Sotiyo"),
    (81826, "Metenox Moon Drill"), (2233, "Customs Office"), (33475, "Mobile Tractor Unit"),
)

#: What an attacker may have fired; a ship may also stand in its place.
WEAPONS: Final[tuple[Named, ...]] = (
    (2488, "Warrior II"), (2456, "Hobgoblin II"), (2185, "Hammerhead II"), (2205, "Acolyte II"),
    (2410, "Heavy Missile Launcher II"), (2404, "Light Missile Launcher II"),
    (1877, "Rapid Light Missile Launcher II"), (19739, "Cruise Missile Launcher II"),
    (2961, "1400mm Howitzer Artillery II"), (3178, "Light Neutron Blaster II"),
    (3170, "Light Ion Blaster II"), (3074, "150mm Railgun II"), (3082, "250mm Railgun II"),
    (3057, "Mega Pulse Laser II"), (3041, "Small Focused Pulse Laser II"), (2913, "425mm AutoCannon II"),
    (10631, "Rocket Launcher II"), (499, "Light Missile Launcher I"), (564, "Light Neutron Blaster I"),
    (27361, "Caldari Navy Scourge Light Missile"), (27441, "Caldari Navy Scourge Heavy Missile"),
    (3244, "Warp Disruptor II"),
)

#: Fits flags 11-18.
LOW_SLOT_TYPES: Final[tuple[Named, ...]] = (
    (2048, "Damage Control II"), (2046, "Damage Control I"), (10190, "Magnetic Field Stabilizer II"),
    (22291, "Ballistic Control System II"), (4405, "Drone Damage Amplifier II"), (519, "Gyrostabilizer II"),
    (2364, "Heat Sink II"), (1405, "Inertial Stabilizers II"), (1319, "Expanded Cargohold II"),
    (11269, "Multispectrum Energized Membrane II"), (1183, "Small Armor Repairer II"),
    (33076, "Small Ancillary Armor Repairer"), (2605, "Nanofiber Internal Structure II"),
)

#: Fits flags 19-26.
MEDIUM_SLOT_TYPES: Final[tuple[Named, ...]] = (
    (4025, "X5 Enduring Stasis Webifier"), (5439, "J5b Enduring Warp Scrambler"),
    (2281, "Multispectrum Shield Hardener II"), (3841, "Large Shield Extender II"),
    (438, "1MN Afterburner II"), (5973, "5MN Y-T8 Compact Microwarpdrive"), (448, "Warp Scrambler II"),
    (2032, "Cap Recharger II"), (19806, "Target Painter II"), (526, "Stasis Webifier I"),
)

#: Fits flags 27-34.
HIGH_SLOT_TYPES: Final[tuple[Named, ...]] = (
    (3178, "Light Neutron Blaster II"), (564, "Light Neutron Blaster I"), (3074, "150mm Railgun II"),
    (2913, "425mm AutoCannon II"), (1877, "Rapid Light Missile Launcher II"),
    (2410, "Heavy Missile Launcher II"), (10631, "Rocket Launcher II"),
    (3041, "Small Focused Pulse Laser II"), (21096, "Cynosural Field Generator I"), (25861, "Salvager I"),
)

#: Fits flags 92-94.
RIG_TYPES: Final[tuple[Named, ...]] = (
    (31045, "Small Auxiliary Nano Pump I"), (31790, "Medium Core Defense Field Extender I"),
    (31716, "Small EM Shield Reinforcer I"), (31788, "Small Core Defense Field Extender I"),
    (31009, "Small Explosive Armor Reinforcer I"), (31538, "Small Hybrid Collision Accelerator I"),
    (30987, "Small Trimark Armor Pump I"),
)

#: Flag 87.
DRONE_BAY_TYPES: Final[tuple[Named, ...]] = (
    (2456, "Hobgoblin II"), (2488, "Warrior II"), (2454, "Hobgoblin I"), (23707, "Hornet EC-300"),
    (2185, "Hammerhead II"),
)

#: Flag 5.
CARGO_TYPES: Final[tuple[Named, ...]] = (
    (28668, "Nanite Repair Paste"), (222, "Antimatter Charge S"),
    (23009, "Caldari Navy Antimatter Charge S"), (12614, "Null S"), (12612, "Void S"),
    (21906, "Republic Fleet Fusion S"), (29001, "Tracking Speed Script"), (32006, "Navy Cap Booster 400"),
    (16273, "Liquid Ozone"), (30488, "Sisters Core Scanner Probe"), (34, "Tritanium"), (35, "Pyerite"),
    (36, "Mexallon"), (39, "Zydrine"), (11399, "Morphite"), (16274, "Helium Isotopes"), (25, "Corpse Male"),
)

#: What may hold other items, one level deep.
CONTAINERS: Final[tuple[Named, ...]] = (
    (3293, "Medium Standard Container"), (3296, "Large Standard Container"),
    (3466, "Medium Secure Container"), (3467, "Small Secure Container"), (11488, "Huge Secure Container"),
    (11489, "Giant Secure Container"),
)

#: Copies of these have singleton 2.
BLUEPRINTS: Final[tuple[Named, ...]] = (
    (687, "Caracal Blueprint"), (1137, "Antimatter Charge S Blueprint"),
    (4384, "Large Micro Jump Drive Blueprint"), (24701, "Myrmidon Blueprint"),
    (33077, "Small Ancillary Armor Repairer Blueprint"),
)

#: Flag 89, in a pod.
IMPLANTS: Final[tuple[Named, ...]] = (
    (19551, "High-grade Snake Beta"), (19553, "High-grade Snake Gamma"),
    (19555, "High-grade Snake Epsilon"), (19556, "High-grade Snake Omega"),
    (13258, "Inherent Implants 'Noble' Repair Systems RS-603"),
    (13260, "Inherent Implants 'Squire' Capacitor Systems Operation EO-603"),
)

#: Where it happened: high, low and null security space and wormholes.
SYSTEMS: Final[tuple[Named, ...]] = (
    (30005320, "Hevrice"), (30005321, "Jovainnon"), (30002799, "Oisio"), (30000142, "Jita"),
    (30003787, "Agoze"), (30045353, "Pynekastoh"), (30002537, "Amamake"), (30005298, "Costolle"),
    (30003655, "A1RR-M"), (30001400, "Litiura"), (30004017, "K4-RFZ"), (30004738, "1-SMEB"),
    (30001398, "Aunenen"), (30045319, "Eha"), (30005296, "Melmaniel"), (30004982, "Indregulle"),
    (30003843, "Avaux"), (30004979, "Heydieles"), (31001535, "J161815"), (30004759, "1DQ1-A"),
    (30002089, "Avenod"), (30001348, "G9D-XW"), (30004333, "BKG-Q2"), (31000628, "J152950"),
    (30000204, "Ohkunen"), (30002691, "Crielere"), (30003279, "K5-JRD"), (30003707, "9UY4-H"),
    (31002060, "J102623"), (30000156, "Josameto"), (30004563, "AC2E-3"), (30001448, "Hakonen"),
    (30002813, "Tama"), (30003068, "Kourmonen"), (30003125, "A1-AUH"), (30003504, "Niarja"),
    (30005032, "Khabara"), (30000075, "Assah"), (30000121, "Jatate"), (30002050, "Hagilur"),
)

#: Their security status, as exact as ESI tells it; wormhole systems all have the same.
SECURITY_STATUSES: Final[dict[int, float]] = {
    30005320: 0.418609, 30005321: 0.298141, 30002799: 0.533575, 30000142: 0.945913, 30003787: 0.208648,
    30045353: 0.239633, 30002537: 0.438761, 30005298: 0.20681, 30003655: -0.85032, 30001400: 0.489405,
    30004017: -0.198216, 30004738: -0.102643, 30001398: 0.44779, 30045319: 0.397185, 30005296: 0.255253,
    30004982: 0.241979, 30003843: 0.447705, 30004979: 0.306625, 30004759: -0.385782, 30002089: 0.385905,
    30001348: -0.328827, 30004333: -0.673283, 30000204: 0.384887, 30002691: 0.39845, 30003279: -0.091496,
    30003707: -0.078436, 30000156: 0.577656, 30004563: -0.307185, 30001448: 0.296379, 30002813: 0.282556,
    30003068: 0.36348, 30003125: -0.207343, 30003504: -1.0, 30005032: 0.340894, 30000075: 0.297802,
    30000121: 0.637428, 30002050: 0.362024,
}

#: Player corporations: id, name, alliance id or None.
CORPORATIONS: Final[tuple[tuple[int, str, int | None], ...]] = (
    (98370861, "KarmaFleet", 1354830081), (98199279, "Stay Frosty.", None),
    (98169165, "Brave Newbies Inc.", 99003214), (98371266, "Know your Role", 99005843),
    (917701062, "EVE University", 937872513), (828800677, "Sniggerdly", 386292982),
    (1741770561, "Blue Republic", 99000652), (98257549, "Teutate raiders", 99002938),
    (1699307293, "Red Federation", 99000645), (98125391, "Justified Chaos", 99004743),
    (649254410, "ICE is Coming to EVE", 1354830081), (98253097, "Legio X Latro", 99004032),
    (1297657426, "CBC Interstellar", 1354830081), (98388312, "Pandemic Horde Inc.", 99005338),
    (901319835, "Mecha Enterprises Fleet", None), (306830202, "The Tuskers", None),
    (98454925, "Blackwater Task Forces", 1354830081), (98444361, "Mass Collapse", 99006848),
    (98270080, "Bitslix", None), (98323502, "Rat der 66er", 99005843),
    (98330748, "WiNGSPAN Delivery Services", 99006319), (370979777, "League of Gentlemen", 1900696668),
    (98187159, "Screaming Hayabusa", None), (302750157, "ElitistOps", 386292982),
    (427125032, "TunDraGon", 1354830081), (144833788, "Roving Guns Inc.", 741557221),
    (263585335, "Black Omega Security", 1548582972), (98124121, "Conoco.", 99004514),
)

#: Every alliance that CORPORATIONS names.
ALLIANCES: Final[tuple[Named, ...]] = (
    (99000645, "RvB - RED Federation"), (99000652, "RvB - BLUE Republic"), (99002938, "DARKNESS."),
    (99003214, "Brave Collective"), (99004032, "Cohors Prima"), (99004514, "Caldari Armed Forces."),
    (99004743, "Spaceship Bebop"), (99005338, "Pandemic Horde"),
    (99005843, "League of Unaligned Master Pilots"), (99006319, "WiNGSPAN Delivery Network"),
    (99006848, "It Must Be Jelly Cause Jam Don't Shake"), (386292982, "Pandemic Legion"),
    (741557221, "RAZOR Alliance"), (937872513, "Ivy League"), (1354830081, "Goonswarm Federation"),
    (1548582972, "Mercenary Coalition"), (1900696668, "The Initiative."),
)

#: Empires and pirates.
FACTIONS: Final[tuple[Named, ...]] = (
    (500001, "Caldari State"), (500002, "Minmatar Republic"), (500003, "Amarr Empire"),
    (500004, "Gallente Federation"), (500010, "Guristas Pirates"), (500011, "Angel Cartel"),
    (500012, "Blood Raider Covenant"), (500019, "Sansha's Nation"), (500020, "Serpentis"),
)

#: Owners of the rats and of the police.
NPC_CORPORATIONS: Final[tuple[Named, ...]] = (
    (1000125, "CONCORD"), (1000127, "Guristas"), (1000135, "Serpentis Corporation"),
    (1000162, "True Power"),
)

#: What NPCs fly.
NPC_SHIPS: Final[tuple[Named, ...]] = (
    (3885, "CONCORD Police Captain"), (10285, "Serpentis Patroller"), (11050, "Serpentis Chief Watchman"),
    (33185, "Serpentis Clone Soldier Negotiator"), (11037, "Sansha's Beast"), (23312, "Guristas Nihilist"),
    (11031, "Guristas Murderer"), (32914, "State Frigate"), (24130, "Gist Seraphim"),
    (24063, "Corelum Chief Infantry"),
)

#: An NPC attacker: corporation id or None, faction id or None, ship type id.
NPCS: Final[tuple[tuple[int | None, int | None, int], ...]] = (
    (1000125, None, 3885), (1000135, None, 10285), (1000135, None, 11050), (1000135, None, 33185),
    (1000162, None, 11037), (1000127, None, 23312), (1000127, None, 11031), (None, 500001, 32914),
    (None, 500011, 24130), (None, 500020, 24063),
)
