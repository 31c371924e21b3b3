"""Ask an address whether a Ray cluster is there, with a time limit: Ray's own client can wait for an answer for ever."""

import re
import threading
from typing import Any

KNOCK_S = 7.0
"""Seconds in which a cluster has to answer: for its name, the connection and the reply together. Ray gives each reply 5."""
_PAST_S = 1.0
"""Seconds that may pass beyond it: a search for a Ray on this machine has no time limit of its own."""
_LAST = "last error: "
"""What stands in gRPC's words before the reason for which the last of a name's addresses failed."""
_RAY, _CLIENT = "/ray.rpc.NodeInfoGcsService/CheckAlive", "/ray.rpc.RayletDriver/ClusterInfo"
"""Requests to which the head of a cluster, and its server for clients, reply to anybody."""


def knock(address: str) -> None:
    """Ask for one reply that only Ray gives.

    Args:
        address: As Ray takes it: HOST:PORT, ray://HOST:PORT, or auto.

    Raises:
        OSError: Nothing is there, or it does not answer in time.
        ValueError: It is something else, or no address.
        RuntimeError: Ray cannot ask, for want of a certificate or a token.
    """
    if address.startswith(("http://", "https://")):
        raise ValueError(
            "that is a page to look at, or to submit jobs to; a job joins a cluster at HOST:6379 or ray://HOST:10001"
        )
    if address == "local" or ("://" in address and not address.startswith("ray://")):
        return  # a Ray that is started, or a client that is somebody else's
    import ray.util.client  # noqa: F401 - before the clock runs: it takes seconds on a crowded machine

    failures: list[BaseException] = []
    asking = threading.Thread(target=_ask, args=(address, failures), daemon=True)
    asking.start()
    asking.join(KNOCK_S + _PAST_S)
    if asking.is_alive():
        raise TimeoutError(f"no reply within {KNOCK_S:.0f} s")
    if failures:
        raise failures[0]


def _ask(address: str, failures: list[BaseException]) -> None:
    """Knock, and append what went wrong."""
    try:
        if address.startswith("ray://"):
            from ray.core.generated import ray_client_pb2

            messages: Any = ray_client_pb2
            ping = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING).SerializeToString()
            where = _checked(address.removeprefix("ray://"))
            reason = _reason(where, _CLIENT, ping)
        else:
            from ray._private.services import canonicalize_bootstrap_address_or_die

            where = _checked(canonicalize_bootstrap_address_or_die(address))
            reason = _reason(where, _RAY, b"")
        if reason is not None:
            # Ray looks for this machine's own address instead of 127.0.0.1.
            raise type(reason)(str(reason) if where in f"{address} {reason}" else f"{reason} (at {where})")
    except BaseException as error:
        failures.append(error)


def _checked(where: str) -> str:
    port = where.rpartition(":")[2]
    if port.isdigit() and not 0 < int(port) < 2**16:
        raise ValueError(f"there is no port {port}, only 1 to {2**16 - 1}")
    return where


def _reason(where: str, method: str, request: bytes) -> OSError | ValueError | None:
    """Why the request gets no reply; None where it gets one."""
    import grpc
    from ray._private.gcs_utils import create_gcs_channel

    channel: Any = create_gcs_channel(where)  # with the certificates and the token that the environment names
    try:
        channel.unary_unary(method)(request, timeout=KNOCK_S)
        return None
    except grpc.RpcError as error:
        failed: Any = error
    finally:
        channel.close()
    said = next(iter((failed.details() or "").strip().splitlines()), "")
    match failed.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeoutError(f"no reply within {KNOCK_S:.0f} s")
        case grpc.StatusCode.UNIMPLEMENTED:
            kind = (
                "server for Ray's clients"
                if method == _CLIENT
                else "head of a Ray cluster, whose clients join at ray://HOST:10001"
            )
            return ValueError(f"something else than Ray answers there, or no {kind}")
        case grpc.StatusCode.UNAVAILABLE if "Failed parsing HTTP/2" in said:
            return ValueError("something else than Ray answers there")
        case grpc.StatusCode.UNAVAILABLE if "Socket closed" in said or (_LAST not in said and "resolving" not in said):
            return ConnectionError("something takes connections there and ends them at once")
        case grpc.StatusCode.UNAVAILABLE:
            return ConnectionError(re.sub(rf"^.*{_LAST}([A-Z_]+: )?", "", said))
        case code:
            return ConnectionError(f"{code.name.lower().replace('_', ' ')}: {said}")
