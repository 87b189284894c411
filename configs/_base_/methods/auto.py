# The default: a plain learner, and picks by the rule that measured best for its task.
method = dict(query=dict(type='tjls_mm.Auto'))
