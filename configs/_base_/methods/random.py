# The control of every comparison: the plain learner, picks at random.
method = dict(query=dict(type='tjls_mm.Random'))
