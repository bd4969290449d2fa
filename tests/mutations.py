"""Files as a stranger could have written them: plain data with entries changed, bytes mangled."""

import json
from copy import deepcopy

HOSTILE = (
    None, True, -1, 0, 7, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 10**400, 2**63, "",
    "x" * 10_000, "../../x", "\0", "<script>", "\ud800", [], {}, [[]], {"a": {"b": {}}}, [None] * 99,
)  # fmt: skip


def _places(value, at=()):
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        if isinstance(child, dict | list):
            yield from _places(child, (*at, key))
        else:
            yield (*at, key)


def mutate(content, draw):
    """Some entries replaced, removed or added."""
    content = json.loads(json.dumps(content))
    for _ in range(draw.choice((1, 1, 2, 5))):
        *parents, last = draw.choice(list(_places(content))[1:])
        holder = content
        for key in parents:
            holder = holder[key]
        change = draw.random()
        if change < 0.2:
            del holder[last]
        elif change < 0.3 and isinstance(holder, dict):
            last = draw.choice(("", "<b>", "x" * 500, "a.b", last.upper()))
            holder[last] = deepcopy(draw.choice(HOSTILE))
        else:
            holder[last] = deepcopy(draw.choice(HOSTILE))  # which a later change may change
    return content


def mangle(text, draw):
    """The same, of bytes: cut, doubled, or with some that do not belong."""
    data = bytearray(text.encode())
    place = draw.randrange(len(data))
    kind = draw.randrange(4)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        data[place:place] = bytes(draw.randrange(256) for _ in range(4))
    elif kind == 2:
        data[place:place] = draw.choice(
            (b"[" * 5000, b'{"a":' * 5000, b"&a [*a]", b"!!int x", b": ")
        )
    else:
        data[place] = draw.randrange(256)
    return bytes(data)
