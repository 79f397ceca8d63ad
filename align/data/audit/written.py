"""Writes what shows of a prompt or an answer as bytes: the same for what looks the same, and otherwise different."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from align.data.prompts import Chat
from align.data.rows.messages import PLAIN_KEYS
from align.data.rows.normal_form import all_visible, visible
from align.data.rows.tables import is_text, joined, messages


def written(value: Any) -> bytes:
    """A text is what shows of it. Of a message that is role and content: the length of what shows, the role, and what shows.

    Args:
        value: A text, messages, or a `Chat`, which with what its template is given is written as JSON.
    """
    if isinstance(value, str):
        return visible(value).encode()
    if not isinstance(value, Chat) and all(map(_plain, value)):
        shown = [(visible(message["content"]).encode(), message["role"].encode()) for message in value]
        return b"".join(b"%d:%s:%s" % (len(content), role, content) for content, role in shown)
    if isinstance(value, Chat):
        value = [list(value), value.template]
    return json.dumps(all_visible(value), sort_keys=True).encode()


def all_written(column: Any) -> list[bytes]:
    """`written` of each value of an Arrow column, of texts or of messages that are role and content."""
    if is_text(column):
        return [visible(text).encode() for text in column.to_pylist()]
    bounds, roles, contents = messages(column)
    if roles.null_count or contents.null_count:
        return [written(value) for value in column.to_pylist()]
    kind = pa.large_string()
    if not pc.call_function("all", [pc.call_function("string_is_ascii", [contents])]).as_py():
        contents = pa.array([visible(text) for text in contents.to_pylist()], kind)
    sizes = pc.call_function("binary_length", [contents])
    texts = [part.cast(kind) for part in (sizes, roles, contents)]
    each = pc.call_function("binary_join_element_wise", [*texts, pa.scalar(":", kind)])
    return [text.encode() for text in joined(each, bounds, "").to_pylist()]


def _plain(message: Any) -> bool:
    """Whether a message is role and content, and nothing else that is there."""
    parts = {name: value for name, value in message.items() if value is not None}
    return parts.keys() == PLAIN_KEYS and isinstance(parts["content"], str)
