"""Wait for the notice that this spot node is taken away, and tell the cluster: python deploy/drain.py HEAD:PORT.

From then on Ray puts no more work on the node. Where it fails, little is lost: a node that goes away unannounced costs the chunks
that were in work on it. Amazon gives two minutes, Google half a minute.
"""

import argparse
import json
import os
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

AWS = "http://169.254.169.254"
GOOGLE = "metadata.google.internal"
EVERY_S = 5.0
GOOGLE_S = 30
"""Seconds that Google gives; Amazon names the moment."""


def _answer(url: str, method: str = "GET", **headers: str) -> str | None:
    """What a node's own metadata server answers; None where it has no such thing, or there is none."""
    asked = urllib.request.Request(url, method=method, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=2) as reply:
            return reply.read().decode()
    except (urllib.error.URLError, OSError, ValueError):
        return None


def seconds_left(now: datetime) -> int | None:
    """Seconds until this node is taken away; None while nobody says that it is.

    Source: Amazon EC2, "Spot Instance interruption notices"; Google Compute Engine, "Preemptible VM instances".

    Args:
        now: The time.
    """
    aws = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", AWS).rstrip("/")
    token = _answer(f"{aws}/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    if token is not None:
        said = _answer(f"{aws}/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token)
        if said is None:
            return None
        at = datetime.fromisoformat(json.loads(said)["time"].replace("Z", "+00:00"))
        return max(0, int((at - now).total_seconds()))
    google = os.environ.get("GCE_METADATA_HOST", GOOGLE)
    said = _answer(f"http://{google}/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google")
    return GOOGLE_S if said is not None and said.strip() == "TRUE" else None


def drain(head: str, address: str, seconds: int) -> str:
    """Have Ray put no more work on the node of an IP address; returns its id.

    Args:
        head: HOST:PORT of the cluster.
        address: The node's own.
        seconds: Until it is gone.

    Raises:
        RuntimeError: The cluster has no such node, or refuses.
    """
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    client = GcsClient(address=head)
    nodes = client.get_all_node_info(timeout=10).values()
    alive = [one.node_id.hex() for one in nodes if one.state == 0 and one.node_manager_address == address]
    if not alive:
        raise RuntimeError(f"no node at {address} in the cluster of {head}")
    preempted = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = time.time_ns() // 1_000_000 + seconds * 1000
    accepted, why = client.drain_node(alive[0], preempted, "the spot node is taken away", deadline_ms)
    if not accepted:
        raise RuntimeError(f"Ray does not drain {alive[0]}: {why}")
    return alive[0]


def main() -> None:
    """Wait, and drain once."""
    parser = argparse.ArgumentParser(prog="deploy/drain.py", description=__doc__)
    parser.add_argument("head", help="HOST:PORT of the cluster")
    parser.add_argument("--node-ip-address", help="of this node; found out if not given")
    asked = parser.parse_args()
    while (seconds := seconds_left(datetime.now(UTC))) is None:
        time.sleep(EVERY_S)
    from ray.util import get_node_ip_address

    node = drain(asked.head, asked.node_ip_address or get_node_ip_address(), seconds)
    print(f"{node}: taken away in {seconds} s, no more work is put on it", flush=True)


if __name__ == "__main__":
    main()
