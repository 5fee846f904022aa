"""Who does a stage's parts: the processes of this machine, or the actors of a Ray cluster.

A part (a file of sketches, a block of candidates, a cluster) is the unit. Whoever does it writes its files whole or
hands back a table, so neither who did a part, nor in which order, nor how often it was begun shows in a result.
"""
