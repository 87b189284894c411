# The plain classifier, and the images between two classes: smallest margin first.
method = dict(query=dict(type='tjls_mm.Margin'))
