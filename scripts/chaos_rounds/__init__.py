"""Chaos rounds: runs whose processes and nodes are killed, and a count of the documents that were lost or doubled (`scripts/chaos`)."""
