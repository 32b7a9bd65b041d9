"""Schemas of the kinds that are not Kubernetes' own, as far as our manifests use them: what is in no list here is refused.

PodMonitor: the Prometheus operator's API reference, monitoring.coreos.com/v1. InferencePool: the reference of the Gateway API
inference extension, inference.networking.k8s.io/v1.
"""

NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 253}
PORT_NUMBER = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS = {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string", "maxLength": 63}}


def closed(required, optional=None):
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def kind(api_version, name, spec):
    return closed(
        {
            "apiVersion": {"const": api_version},
            "kind": {"const": name},
            "metadata": closed({"name": NAME}, {"labels": LABELS}),
            "spec": spec,
        }
    )


SELECTOR = closed({"matchLabels": LABELS})

POD_MONITOR = kind(
    "monitoring.coreos.com/v1",
    "PodMonitor",
    closed(
        {
            "selector": SELECTOR,
            "podMetricsEndpoints": {
                "type": "array",
                "minItems": 1,
                "items": closed(
                    {"port": {"type": "string"}},
                    {
                        "path": {"type": "string", "pattern": "^/"},
                        "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                    },
                ),
            },
        }
    ),
)

INFERENCE_POOL = kind(
    "inference.networking.k8s.io/v1",
    "InferencePool",
    closed(
        {
            "selector": SELECTOR,
            "targetPorts": {
                "type": "array",
                "minItems": 1,
                "maxItems": 8,
                "uniqueItems": True,
                "items": closed({"number": PORT_NUMBER}),
            },
            "endpointPickerRef": closed(
                {"name": NAME, "port": closed({"number": PORT_NUMBER})},
                {
                    "group": {"type": "string"},
                    "kind": {"type": "string"},
                    "failureMode": {"enum": ["FailOpen", "FailClose"]},
                },
            ),
        }
    ),
)

OF_OTHERS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("inference.networking.k8s.io/v1", "InferencePool"): INFERENCE_POOL,
}
