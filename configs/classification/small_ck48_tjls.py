# TJLS on synthetic faces for CK+48, for two CPU cores.
_base_ = ['../_base_/trials/small_ck48.py', '../_base_/methods/tjls_classifier.py']
