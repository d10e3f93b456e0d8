"""Which revision of a HeliosDeployment clients are sent to.

Asked by `surroundings`, which makes the Services, and by `revisions`, which sees for decisions: within a pass
the two must not differ, though somebody deletes the Service between them. It writes nothing.
"""

from __future__ import annotations

from helios_operator.api.types import Deployment
from helios_operator.cluster.kinds import REVISION, SERVICE
from helios_operator.cluster.mirror import Mirror
from helios_operator.cluster.ownership import is_own
from helios_operator.render import names
from helios_operator.render.service import routed_revision


def routed(hd: Deployment, mirror: Mirror) -> int | None:
    """What the client Service selects, while there is such a revision; else what the status says serves.
    Where somebody deleted the Service, or changed its selector, what served goes on serving."""
    service = mirror.get(SERVICE, hd.namespace, hd.name)
    selected = routed_revision(service) if service and is_own(hd, service) else None
    if selected and mirror.get(REVISION, hd.namespace, names.revision(hd.name, selected)):
        return selected
    return hd.status.active.revision if hd.status.active else selected
