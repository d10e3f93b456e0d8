"""What every combination keeps of quality, text by text, measured in processes of their own.

Called by the benches that set quality beside speed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping

from helios_contract.serves import REFERENCE

from bench.frontier.figures import quality_claim
from bench.frontier.front import Key
from bench.frontier.runs import score
from bench.frontier.subject import Subject
from bench.load import alone
from bench.report import Claim


def quality_by_domain(
    subject: Subject, options: Namespace, tell: Callable[[str], None]
) -> dict[str, Mapping[Key, Claim]]:
    """In per cent of full depth as published. options: domains, windows, window_tokens; tell: hears of each
    domain that is scored."""
    quality: dict[str, Mapping[Key, Claim]] = {}
    for domain in options.domains:
        scored = alone(score, subject, domain, options.windows, options.window_tokens)
        base = scored[subject.depths[0], REFERENCE].millibits
        quality[domain] = {key: quality_claim(domain, key, base, of.millibits) for key, of in scored.items()}
        tell(f"quality on {domain} scored")
    return quality
