# TJLS for classifiers: the discriminator has the hidden layer of TJLS, Sec. 4.1.
_base_ = 'tjls.py'

method = dict(branches=dict(discriminator=dict(hidden_features=(512,))))
