# The control: plain classifier, picks at random, ResNet-18 on synthetic faces for RaFD.
_base_ = ['../_base_/trials/resnet18_rafd.py', '../_base_/methods/random.py']
