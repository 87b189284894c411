# The control: plain classifier, picks at random, synthetic faces for CK+48.
_base_ = ['../_base_/trials/small_ck48.py', '../_base_/methods/random.py']
