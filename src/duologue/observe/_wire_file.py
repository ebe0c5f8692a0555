"""The name of the wire journal, by itself because the journal imports much."""

WIRE_FILE = "wire.jsonl"
