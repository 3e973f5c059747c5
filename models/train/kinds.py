"""The kinds of event that are trained, and how people ask for them.

The phrasings held back for measuring (flames, blaze, brawl, punching) are in none of these lists.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of event.

    Attributes:
        label: As manifests call it.
        phrasings: Ways to ask for it.
        others: Texts that share words or looks with it and mean something else: no prompt of theirs may take part.
    """

    label: str
    phrasings: tuple[str, ...]
    others: tuple[str, ...]


FIRE: Final = Kind(
    "fire",
    (
        "fire",
        "a fire",
        "a fire burning",
        "something is on fire",
        "something burning",
        "a burning building",
        "a house on fire",
        "a car on fire",
        "a burning vehicle",
        "an open fire",
        "a wildfire",
        "a forest fire",
        "fire in a room",
        "fire breaking out",
        "fire outbreak",
        "visible flame and fire",
        "a flame",
        "burning trash",
        "a fire spreading",
        "a large fire",
        "a small fire",
        "arson, setting something on fire",
        "a bonfire",
        "fire and smoke",
        "an inferno",
        "a conflagration",
    ),
    (
        "smoke",
        "thick smoke without fire",
        "fog",
        "steam",
        "a fire engine",
        "a fire truck",
        "a firefighter",
        "a fireplace screen",
        "a fireplace",
        "a fire place in a living room",
        "a fire extinguisher",
        "a fire alarm",
        "a fire exit",
        "a fire hydrant",
        "a fire boat",
        "a fire station",
        "gunfire",
        "a gun being fired",
        "an employee fired from a job",
        "fireworks",
        "a campfire song",
        "an explosion",
        "a volcano",
        "a sunset",
        "autumn leaves",
        "a lamp",
        "a candle",
        "a torch",
        "a stove",
        "a match",
        "a lighter",
        "a barbecue",
        "a welder at work",
        "a red light",
        "headlights",
        "hot weather",
        "burned toast",
        "a burnt out building",
        "a charcoal grill",
        "a flamingo",
    ),
)

FIGHT: Final = Kind(
    "fight",
    (
        "fight",
        "a fight",
        "people fighting",
        "two people fighting",
        "a fist fight",
        "men fighting each other",
        "physical violence",
        "people hitting each other",
        "someone is being beaten up",
        "an assault",
        "a violent attack on a person",
        "a person attacking another person",
        "a street fight",
        "a violent brawl between people",
        "people kicking and hitting someone",
        "a scuffle",
        "a brawl in the street",
        "throwing punches",
        "someone punches another person",
        "violence between people",
        "a group fight",
        "fighting in a corridor",
    ),
    (
        "a hug",
        "people hugging",
        "people dancing",
        "a crowd",
        "people shaking hands",
        "people talking",
        "an argument",
        "people playing",
        "a football match",
        "a boxing match on television",
        "a wrestling ring",
        "firefighting",
        "a firefighter",
        "a snowball fight",
        "a fighter jet",
        "a fighting fish",
        "a bullfight",
        "a cockfight",
        "a punching bag",
        "a hole punch",
        "a punch bowl",
        "a bowl of fruit punch",
        "a gunfight",
        "shooting",
        "a robbery",
        "a theft",
        "a person falling",
        "a person running",
        "a person lying on the floor",
        "fight against cancer",
        "a battle tank",
        "an army marching",
        "war",
        "a car crash",
        "a riot",
        "a panic",
        "screaming",
        "vandalism",
    ),
)

# What else there is to see: the contrastive term's other prompts, and texts that the gate must not open to.
ORDINARY: Final = (
    "an ordinary scene where nothing happens",
    "an empty street",
    "an empty corridor",
    "people walking",
    "people standing and talking",
    "traffic on a road",
    "a parked car",
    "a forest",
    "a mountain landscape",
    "a lake",
    "a shop",
    "an office",
    "a room with furniture",
    "a lamp shining",
    "an orange object",
    "a sunset over the sea",
    "autumn trees",
    "a night street with lights",
)
EVERYDAY: Final = (
    "a dog", "a cat", "a person", "a man with a backpack", "a bicycle", "a motorcycle", "a bus", "a truck",
    "a car crash", "a collision of cars", "a traffic jam", "a person who fell down", "a person lying on the ground",
    "a child alone", "a crowd of people", "someone climbing a fence", "someone breaking into a car", "a broken window",
    "glass breaking", "a gunshot", "shots", "an explosion", "a siren", "an ambulance", "a police car", "a scream",
    "a baby crying", "speech", "people talking", "music", "a dog barking", "knocking at a door", "smoke", "water leak",
    "a flood", "rain", "snow", "a bird", "a drone", "a train", "a boat", "a suitcase left behind", "a knife",
    "a gun in someone's hand", "a person wearing a red jacket", "a person with a hard hat", "a forklift", "a cyclist",
    "a delivery", "an open door", "a fallen tree", "a horse", "food on a table", "a kitchen", "a swimming pool",
    "someone swimming", "someone playing tennis", "a skateboarder", "a person surfing", "a giraffe", "a pizza",
    "a laptop", "a phone", "flowers", "a bedroom", "a toilet", "an airplane", "a kite", "a train station",
)  # fmt: skip
