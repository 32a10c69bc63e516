"""The root of what the gateway raises; each kind stands beside the code that raises it.

GatewayError
    ApiKeyError         `auth`: a key that cannot be one
    ArtifactError       `artifacts`: the artifact storage failed or refused
    BrokerUnavailable   `broker`: the broker did not answer
    FrameError          `frames`: a message between worker and child is too long, or is none
    HandlersError       `handlers`: a job type, its input or its result is not what it has to be
    Problem             `problems`: a request is refused; what the client is told
    StrictJsonError     `strict_json`: a body that is not JSON in one reading only
    WatchersClosed      `watching`: the process stops, so nothing more will be seen of a job
"""

from __future__ import annotations


class GatewayError(Exception):
    """Anything the gateway raises on purpose."""
