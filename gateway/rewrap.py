"""Everything that is sealed in the store, deliveries and jobs: counted by key, sealed anew."""

from __future__ import annotations

import re

from delivery.rewrap import DELIVERY_SEALED, Sealed
from gateway.models import callback_row

SEALED = (
    *DELIVERY_SEALED,
    Sealed(
        noun="jobs",
        name=re.compile(r"j:(job_[0-9A-Za-z]+)"),
        fields=("callbackUrl", "headers"),
        row=callback_row,
    ),
)
"""Everything that the gateway and delivery seal."""
