"""Chaos rounds: a run whose parts are killed, again and again, and a count of the documents that were lost or doubled (`scripts/chaos`).

material   the corpus and the model of a round, and where its source and output lie
nodes      a Ray cluster of several nodes on this machine
disturb    starts the run again and again, and kills its parts
outcome    compares the finished dataset with the source, and with that of a run that nobody disturbed
"""
