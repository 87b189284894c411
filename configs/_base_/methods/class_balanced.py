# A plain detector, and picks that balance the classes of its boxes.
method = dict(query=dict(type='tjls_mm.ClassBalanced'))
