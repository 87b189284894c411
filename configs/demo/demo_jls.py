# JLS on the demo data set.
_base_ = ['../_base_/trials/demo.py', '../_base_/methods/jls_paper.py']
