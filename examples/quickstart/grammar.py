"""Monitoring records of invented machines, and many ways to put one into words.

The grammar is small enough for a model of one million parameters to learn in two minutes, and varied enough
that copying a sentence does not help: plans, wordings and the order of facts are all drawn.
"""

from __future__ import annotations

import random
from typing import NamedTuple

KINDS = ("Press", "Kiln", "Mixer", "Lathe", "Pump", "Loom", "Crusher", "Dryer")
SITES = ("Zürich", "Malmö", "Łódź", "Orléans", "Córdoba", "Besançon", "Graz", "Turin")
SHIFTS = ("early", "late", "night")
STATES = {
    "steady": ("ran steadily", "kept its pace", "worked without a break", "held its rate"),
    "slow": ("ran slowly", "fell behind", "lost pace", "worked below its rate"),
    "halted": ("stood still for a while", "stopped twice", "had to be halted", "was down for some time"),
}
ALARMS = {
    "none": (),
    "overheating": ("belt slackened", "filter cleaned", "open"),
    "low oil": ("oil refilled", "seal replaced", "open"),
    "jam": ("feed cleared", "guide adjusted", "open"),
    "sensor fault": ("sensor replaced", "cable reseated", "open"),
    "belt slip": ("belt tightened", "belt replaced", "open"),
}
QUIET = ("No alarm was raised.", "There were no alarms.", "The alarm list stayed empty.", "It gave no alarm.")
OPEN = ("{An} {alarm} alarm is still open.", "The {alarm} alarm has not been dealt with yet.",
        "{Alarm} was reported and awaits a repair.", "Nobody has looked at the {alarm} alarm so far.")
SOLVED = ("After {an} {alarm} alarm the crew reported: {action}.", "{An} {alarm} alarm came up ({action}).",
          "{Alarm} was reported; remedy: {action}.", "The crew answered {an} {alarm} alarm, {action}.")
OPENINGS = (
    "{machine} in {site} {did} during the {shift} shift and made {output} parts.",
    "In {site}, {machine} {did} on the {shift} shift; output was {output} parts.",
    "With {output} parts from the {shift} shift, {machine} in {site} {did}.",
    "The {shift} shift in {site} got {output} parts out of {machine}, which {did}.",
    "{output} parts came from {machine} in {site} on the {shift} shift. It {did}.",
    "{machine} ({site}) {did} on the {shift} shift. It turned out {output} parts.",
)
READINGS = (
    "It was at {temperature} °C with {vibration} mm/s of vibration.",
    "Readings stood at {temperature} °C and {vibration} mm/s.",
    "Its temperature was {temperature} °C, its vibration {vibration} mm/s.",
    "The bearing reached {temperature} °C; vibration was {vibration} mm/s.",
    "Vibration of {vibration} mm/s was measured at {temperature} °C.",
)


class Record(NamedTuple):
    """What the sensors and the crew noted about one machine in one shift."""

    machine: str
    site: str
    shift: str
    state: str
    output: str
    temperature: str
    vibration: str
    alarm: str
    action: str


def draw_record(dice: random.Random) -> Record:
    """Draw one record; hot and shaking machines are those with alarms."""
    alarm = dice.choice(list(ALARMS)) if dice.random() < 0.7 else "none"
    state = "steady" if alarm == "none" and dice.random() < 0.8 else dice.choice(list(STATES))
    hot = 14 if alarm == "overheating" else 0
    rough = 1.5 if alarm in ("belt slip", "jam") else 0.0
    return Record(
        machine=f"{dice.choice(KINDS)} {dice.randint(1, 12)}",
        site=dice.choice(SITES),
        shift=dice.choice(SHIFTS),
        state=state,
        output=str(20 * dice.randint(*{"steady": (40, 90), "slow": (20, 50), "halted": (5, 30)}[state])),
        temperature=str(dice.randint(52, 80) + hot),
        vibration=f"{dice.randint(2, 8) / 2 + rough:.1f}",
        alarm=alarm,
        action=dice.choice(ALARMS[alarm]) if ALARMS[alarm] else "none",
    )


def write_report(record: Record, dice: random.Random) -> str:
    """Put every fact of the record into words, in one of many ways."""
    words = record._asdict() | {
        "did": dice.choice(STATES[record.state]),
        "an": "an" if record.alarm[0] in "aeiou" else "a",
        "An": "An" if record.alarm[0] in "aeiou" else "A",
        "Alarm": record.alarm.capitalize(),
    }
    about_alarm = QUIET if record.alarm == "none" else OPEN if record.action == "open" else SOLVED
    rest = [dice.choice(READINGS), dice.choice(about_alarm)]
    dice.shuffle(rest)
    return " ".join(sentence.format_map(words) for sentence in (dice.choice(OPENINGS), *rest))
