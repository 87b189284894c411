# TJLS, Table 4 left: the size of the batch that images attend over. ResNet-18 on
# CIFAR-100 with 10, 20, 30 and 40 % of the labels.
title = 'TJLS, Table 4 left: CIFAR-100, ResNet-18, batch size'
seeds = [0, 1, 2]  # "mean of 3 trials"
# The paper's B counts all images of a batch; batch_size counts the labelled half of
# them (8 + 8 of 16, ..., 64 + 64 of 128). The learning rate stays 0.01, as the paper
# names no other. base_batch_size is what several processes share.
trials = {
    'tjls-batch16': dict(
        config='../classification/resnet18_cifar100_tjls.py',
        options={
            'train_dataloader.batch_size': 8,
            'auto_scale_lr.base_batch_size': 8,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'tjls-batch32': dict(
        config='../classification/resnet18_cifar100_tjls.py',
        options={
            'train_dataloader.batch_size': 16,
            'auto_scale_lr.base_batch_size': 16,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'tjls-batch64': dict(
        config='../classification/resnet18_cifar100_tjls.py',
        options={
            'train_dataloader.batch_size': 32,
            'auto_scale_lr.base_batch_size': 32,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    'tjls-batch128': dict(
        config='../classification/resnet18_cifar100_tjls.py',
        options={
            'train_dataloader.batch_size': 64,
            'auto_scale_lr.base_batch_size': 64,
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
    # The control, not in the paper's table: the 64 labelled images of a batch of 128.
    'random-batch128': dict(
        config='../classification/resnet18_cifar100_random.py',
        options={
            'active_learning.initial': 0.1,
            'active_learning.budget': 0.1,
            'active_learning.stages': 4,
        },
    ),
}
