"""The rules that hold in every story, one of each."""

from __future__ import annotations

from collections.abc import Iterator

from tests.decide.properties.rules.calm import BackOffDoubles, NoFlapping
from tests.decide.properties.rules.changing import (
    AutoSaysWhichAndWhy,
    LimitsRestartNoPod,
    OneChangeAtATime,
    WhatIsHeldIsHeld,
)
from tests.decide.properties.rules.choices import ChoicesFit, NoiseIsNeverChosen
from tests.decide.properties.rules.evidence import (
    ColdSamplesAreNoEvidence,
    RequestsAreCountedOnce,
    TheFirstChoiceIsMeasured,
)
from tests.decide.properties.rules.memory import MemoryIsInTheApi
from tests.decide.properties.rules.precisions import AutoAloneIsAsItWas
from tests.decide.properties.rules.rule import Rule
from tests.decide.properties.rules.serving import (
    AnInfeasibleSloTakesNothingDown,
    OldPodsStayAsLongAsAsked,
    ServingIsNeverTakenAway,
)


def standing_rules() -> Iterator[Rule]:
    """Those that hold in every story."""
    yield from (
        ServingIsNeverTakenAway(),
        AnInfeasibleSloTakesNothingDown(),
        WhatIsHeldIsHeld(),
        TheFirstChoiceIsMeasured(),
        OldPodsStayAsLongAsAsked(),
        OneChangeAtATime(),
        NoFlapping(),
        BackOffDoubles(),
        ColdSamplesAreNoEvidence(),
        RequestsAreCountedOnce(),
        LimitsRestartNoPod(),
        AutoSaysWhichAndWhy(),
        ChoicesFit(),
        NoiseIsNeverChosen(),
        AutoAloneIsAsItWas(),
        MemoryIsInTheApi(),
    )
