"""One GPU check: every figure that only a GPU can show, in one command (`scripts/gpu_check`).

plan      the rows, in their order, the children that measure them and the seconds that they should take
command   starts each child, writes each row as it comes, ends what takes too long
child     a process of its own for rows that share an engine; card, engines, job and peer measure
timeline  the parts of a start, from vLLM's own log
table     rows as lines and as Markdown
"""
