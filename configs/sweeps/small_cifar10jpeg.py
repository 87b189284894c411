# The learners of TJLS, Table 3, on CIFAR-10 as JPEG files: a learner and a schedule for
# two CPU cores, not the paper's.
title = 'CIFAR-10 as JPEG files, small ResNet-18'
seeds = [0, 1, 2]
# 64 labelled images per update for each, so all make as many updates.
trials = dict(
    tjls=dict(config='../classification/small_cifar10jpeg_tjls.py'),
    jls=dict(config='../classification/small_cifar10jpeg_jls.py'),
    gcn=dict(config='../classification/small_cifar10jpeg_gcn.py'),
    random=dict(config='../classification/small_cifar10jpeg_random.py'),  # the control
)
