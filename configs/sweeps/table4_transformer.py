# TJLS, Table 4 right: depth, heads and hidden units of the transformer. VGG-16 on
# CIFAR-100 with 10, 20, 30 and 40 % of the labels.
title = 'TJLS, Table 4 right: CIFAR-100, VGG-16, transformer'
seeds = [0, 1, 2]  # "mean of 3 trials"
# The batch of 128 images is 64 labelled and 64 of the pool; Random's has the labelled.
trials = {
    # What Sec. 4.1 settles on; the three below are the rows of the table.
    'depth1-heads1-units128': dict(
        config='../classification/vgg16_cifar100_tjls.py',
        options={
            'method.bottleneck.depth': 1,
            'method.bottleneck.heads': 1,
            'method.bottleneck.hidden': 128,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'depth1-heads1-units512': dict(
        config='../classification/vgg16_cifar100_tjls.py',
        options={
            'method.bottleneck.depth': 1,
            'method.bottleneck.heads': 1,
            'method.bottleneck.hidden': 512,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'depth1-heads2-units128': dict(
        config='../classification/vgg16_cifar100_tjls.py',
        options={
            'method.bottleneck.depth': 1,
            'method.bottleneck.heads': 2,
            'method.bottleneck.hidden': 128,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'depth2-heads1-units128': dict(
        config='../classification/vgg16_cifar100_tjls.py',
        options={
            'method.bottleneck.depth': 2,
            'method.bottleneck.heads': 1,
            'method.bottleneck.hidden': 128,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    # The control, not in the paper's table.
    'random': dict(
        config='../classification/vgg16_cifar100_random.py',
        options={
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
}
