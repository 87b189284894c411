# TJLS on the demo data set.
_base_ = ['../_base_/trials/demo.py', '../_base_/methods/tjls_paper.py']
