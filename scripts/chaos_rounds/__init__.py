"""Chaos rounds: a run that is disturbed again and again, and a count of the documents that were lost or doubled (`scripts/chaos`).

material   the corpus and the model of a round, and where its source and output lie
nodes      a Ray cluster of several nodes on this machine, and its processes
namespace  a disk that only the processes of a round see
scene      what a fault can reach
kinds      all kinds of faults: when each is due, how often it is chosen, where it fits; the plan of a round
kills      processes, nodes and the driver that die
pauses     processes that stand still, and go on
disks      the disk of the output that is full
clocks     hosts whose clocks are off
networks   a store that cannot be reached
packages   nodes that have another bulkembed
damages    objects of the output that are changed, cut or deleted
disturb    starts the run again and again, and injects the faults
record     what was injected, and how the starts ended
outcome    compares the dataset with the source, and with that of a run that nobody disturbed
table      results of several rounds as one table
"""
