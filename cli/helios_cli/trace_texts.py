"""What the prompts of a trace are worth to each model, though their text was never kept: by their audits,
else by the prompts of a profile.

Called by `helios simulate`. It must not invent a text: each stands for one that was scored.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from helios_operator.errors import OperatorError
from helios_operator.simulate import traffic
from helios_operator.simulate.measured import AuditedText, ProfiledText
from helios_operator.simulate.profiles import Profiles
from helios_operator.simulate.traffic import Recorded
from helios_operator.simulate.truth import Model, Text

_SEED = 0


def texts_of(recorded: Recorded, found: Profiles) -> list[Text]:
    """By line of the trace. Audited ones beside full depth in the precision that served: what lies between
    precisions the profile says."""
    draw = random.Random(_SEED)
    like = [draw.choice(found.newest) for _ in recorded.lines]
    if not recorded.audits:
        return list(like)
    backbone = _audited(recorded, found)
    texts: dict[int, AuditedText] = {}
    for place, row in recorded.audits.items():
        layers = backbone.backbone.layers
        full = like[place].millibits(backbone, layers)
        scored = replace(row, full_millibits=row.own_full(layers))
        texts[id(row)] = AuditedText(scored, like[place], backbone.backbone.fingerprint, full)
    return [texts[id(row)] for row in traffic.nearest_audit(recorded)]


def _audited(recorded: Recorded, found: Profiles) -> Model:
    """A candidate on the backbone that served the trace, by the bundles that were audited."""
    for model in found.truth.values():
        if model.digest in recorded.digests:
            return model
    known = ", ".join(sorted(recorded.digests)) or "none"
    problem = f"its audits are of exit heads that no candidate has ({known})"
    raise OperatorError("TRACE", problem, "keep a candidate with those heads in the spec")


def kinds_of(found: Profiles) -> list[Sequence[Text]]:
    """Of generated traffic: the two newest sets of prompts, else the newest in halves, by how well the
    shallowest exit does on them."""
    sets = list(found.domains.values())
    if len(sets) > 1:
        return [sets[1], sets[0]]
    ease: dict[Text, float] = {text: _ease(text, found) for text in sets[0]}
    return list(traffic.by_ease(sets[0], ease))


def _ease(text: ProfiledText, found: Profiles) -> float:
    """Bits at full depth / bits at the shallowest exit, of the model that has the most exits."""
    model = max(found.truth.values(), key=lambda each: (len(each.exits), each.digest))
    shallowest = min((*model.exits, model.backbone.layers))
    return text.millibits(model, model.backbone.layers) / max(1, text.millibits(model, shallowest))
