# The learners of TJLS, Table 3, on FashionMNIST: a learner and a schedule for
# two CPU cores, not the paper's.
title = 'FashionMNIST, small ResNet-18'
seeds = [0, 1, 2]
# 64 labelled images per update for each, so all make as many updates.
trials = dict(
    tjls=dict(config='../classification/small_fashionmnist_tjls.py'),
    jls=dict(config='../classification/small_fashionmnist_jls.py'),
    gcn=dict(config='../classification/small_fashionmnist_gcn.py'),
    random=dict(config='../classification/small_fashionmnist_random.py'),  # the control
)
