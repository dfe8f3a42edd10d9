"""Keep the original state of what cnictl changes on the host, so that a reset can restore it exactly.

The file is /var/lib/cnictl/former.json. A value is written before the first change only: a later run would find what
cnictl made. Only a run that holds the node's lock may write.
"""

import json
import os
from dataclasses import fields
from typing import Any

from cnictl.core import durable
from cnictl.core.errors import Problem
from cnictl.core.paths import STATE_DIR
from cnictl.node.spec.node_spec import FAMILIED, NodeSpec, Peer, as_data, from_data

RECORD = f"{STATE_DIR}/former.json"
_SPECS = "specs"


def recall(key: str) -> Any:
    """Return the value under `key`; None without one."""
    return _read().get(key)


def remember(key: str, value: Any) -> None:
    """Keep `value` (JSON, not None) unless the key already holds one."""
    record = _read()
    if key not in record:
        _write({**record, key: value})


def amend(key: str, value: Any) -> None:
    """Keep `value` under `key`, in place of its present value."""
    _write({**_read(), key: value})


def forget(key: str) -> None:
    """Remove a key, because its original state has been restored."""
    record = _read()
    if record.pop(key, None) is not None:
        _write(record)


def specs() -> list[NodeSpec]:
    """Return every spec that may have left something on this host; the latest one comes last."""
    return [from_data(data) for data in _read().get(_SPECS, [])]


def newer_keys() -> set[str]:
    """Return the keys of the recorded specs that only a newer cnictl knows."""
    kept, own = _read().get(_SPECS, []), {field.name for field in (*fields(NodeSpec), *fields(Peer))}
    keys = {key for data in kept for part in (data, *data["peers"]) for key in part}
    return keys - own - {"peers", *FAMILIED}


def _as_kept(spec: NodeSpec, record: dict[str, Any]) -> dict[str, Any]:
    """Return the spec's data, with the latest record's keys of a newer cnictl."""
    latest: dict[str, Any] = next(iter(record.get(_SPECS, [])[-1:]), {})
    newer = newer_keys()
    return {**{key: value for key, value in latest.items() if key in newer}, **as_data(spec)}


def add_spec(spec: NodeSpec) -> None:
    """Record, before any change, that `spec` may leave something on this host."""
    record = _read()
    data = _as_kept(spec, record)
    others = [other for other in record.get(_SPECS, []) if _footprint(other) != _footprint(data)]
    if record.get(_SPECS) != [*others, data]:
        _write({**record, _SPECS: [*others, data]})


def _footprint(data: dict[str, Any]) -> list[Any]:
    """Return the values that determine the names of things on the host. Peers' routes are found by their mark."""
    return [data[key] for key in ("name", "bridge", "subnet", "network")]


def only_spec(spec: NodeSpec | None) -> None:
    """Record that nothing of any other spec is left."""
    record = _read()
    wanted = [_as_kept(spec, record)] if spec is not None else []
    if record.get(_SPECS, []) != wanted:
        record[_SPECS] = wanted
        if not wanted:
            del record[_SPECS]
        _write(record)


def snapshot() -> dict[str, Any]:
    """Return the whole record."""
    return _read()


def restore(record: dict[str, Any]) -> None:
    """Replace the record by a `snapshot`, because later changes were undone."""
    if _read() != record:
        _write(record)


def _read() -> dict[str, Any]:
    try:
        record = json.loads(durable.contents(RECORD))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Problem(
            f"{RECORD} is damaged: {error}",
            "a reset restores its content: repair the file, or move it away to reset without it",
        ) from None
    return dict(record)


def _write(record: dict[str, Any]) -> None:
    if not record:
        if os.path.exists(RECORD):
            os.unlink(RECORD)
        return
    durable.make_folder(STATE_DIR)
    # a line for each key: with `indent`, json uses its slow encoder, and a spec may have thousands of peers
    lines = [f"{json.dumps(key)}: {json.dumps(record[key], sort_keys=True)}" for key in sorted(record)]
    durable.replace(RECORD, ("{" + ",\n ".join(lines) + "}\n").encode(), 0o600)
