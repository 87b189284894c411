# The data set of example_own_data.py where nobody has labelled the pool: people label
# what is selected, in a tool of their own. docs/annotators.md is the way.
_base_ = 'example_own_data.py'

active_learning = dict(
    # The ids of images that are labelled already; no other pool image needs labels.
    # initial='labelled.txt',
    annotator=dict(type='tjls_mm.Manual', format=dict(type='LabelStudio')),
)
