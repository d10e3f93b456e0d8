"""Rules of choices: what may be chosen at all."""

from __future__ import annotations

from helios_operator.decide.facts.precisions import allowed
from helios_operator.decide.plan import CreateRevision, Plan, WriteLimits
from helios_operator.decide.snapshot import Snapshot
from helios_server.planning.memory import MIB, limit_for_rows

from tests.decide.properties.rules.rule import TAKEN_BACK, Rule, decided
from tests.decide.world import World


class ChoicesFit(Rule):
    """What is chosen is an exit of its candidate within the bounds, and fits the memory."""

    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        candidates = {c.uri: c for c in made.spec.candidates}
        for action in decided(snapshot, plan):
            if isinstance(action, CreateRevision | WriteLimits) and action.why.reason not in TAKEN_BACK:
                limits = action.limits
                model = made.model_of(limits)
                assert limits.layer_budget in {*model.exits, model.backbone.layers}
                bounds, depth = made.spec.limits.layer_budget, model.backbone.layers
                lowest, highest = min(bounds.min or 1, depth), min(bounds.max or depth, depth)
                assert lowest <= limits.layer_budget <= highest, "outside limits.layerBudget"
                needed = limit_for_rows(
                    model.backbone.memory(limits.precision),
                    layers=limits.layer_budget,
                    rows=limits.max_batch_size,
                    tokens_per_request=limits.tokens_per_request,
                )
                assert limits.max_batch_size >= 1
                assert needed <= limits.memory_mib * MIB, "more rows than the memory holds"
                assert limits.model_uri in candidates
                held = {p for c in made.spec.candidates if c.uri == limits.model_uri for p in allowed(c)}
                assert limits.precision in held, "a precision that the spec does not allow"


class NoiseIsNeverChosen(Rule):
    def see(self, made: World, snapshot: Snapshot, plan: Plan) -> None:
        for action in decided(snapshot, plan):
            if isinstance(action, CreateRevision | WriteLimits) and action.why.reason != "ByHand":
                is_noise = "noise" in action.limits.exits_digest
                assert (
                    not is_noise or action.limits.layer_budget == made.model_of(action.limits).backbone.layers
                )
