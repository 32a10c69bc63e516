"""Published signatures, for whoever signs and for whoever verifies.

The first three are the known answers of the webhook contract. That of `X-Signature` is GitHub's,
from its page on validating webhook deliveries, whose header is the same HMAC under another name.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from delivery.models import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One message and its signature."""

    scheme: Scheme
    secret: str
    signature: str
    message_id: str = "msg_p5jXN8AQM9LWM0D4loKWxJek"
    timestamp: int = 1_614_265_330
    body: bytes = b'{"test": 2432232314}'

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that the message comes with."""
        name = "x-signature" if self.scheme == "x-signature" else "webhook-signature"
        return {
            "webhook-id": self.message_id,
            "webhook-timestamp": str(self.timestamp),
            name: self.signature,
        }


V1: Final = Vector(
    scheme="v1",
    secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    signature="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
)
V1_OTHER: Final = Vector(
    scheme="v1",
    secret="whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    signature="v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    message_id="msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    timestamp=1_649_367_553,
    body=b'{"email":"test@example.com","username":"test_user"}',
)
V1A: Final = Vector(
    scheme="v1a",
    secret=(
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6K"
        "vg=="
    ),
    signature=(
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TB"
        "Ag=="
    ),
)
X_SIGNATURE: Final = Vector(
    scheme="x-signature",
    secret="It's a Secret to Everybody",
    signature="757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    body=b"Hello, World!",
)

VECTORS: Final = (V1, V1_OTHER, V1A, X_SIGNATURE)

PUBLIC_KEY: Final = "whpk_" + base64.b64encode(base64.b64decode(V1A.secret[5:])[32:]).decode()
"""Verifies what `V1A` signed."""
