"""The GPU check: every figure that only a GPU can show, in one command (`scripts/gpu_check`).

plan      the rows, their order, the children that measure them, and the seconds that each should take
command   starts each child, writes each row as it arrives, and ends what takes too long
child     a process of its own for rows that share an engine; card, engines, job and peer hold the rows
rates     tokens/s of loaded engines
timeline  the parts of a start, from vLLM's own log
watch     memory, clock and power meanwhile
table     rows as lines and as Markdown
"""
