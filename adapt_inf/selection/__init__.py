"""Which samples to train on and which to forget: arrays in, arrays out; to be read beside the paper.

In the order of a round: `clusters` finds pseudo-skills, `scores` rate samples, `experts` choose a score per cluster,
`budgets` split a count over clusters, `coverage` draws inside a cluster, `strategies` ties these together, `dedup`
prunes by what `neighbours` finds. `blocks` keeps all of it within `memory_mb`.
"""
