# TJLS, Table 3: what stands between the features and the two branches. VGG-16 on
# CIFAR-100, 10 % to 40 % of the labels in 7 stages; "we increase the number of
# unlabelled examples used for training by 50%".
title = 'TJLS, Table 3: CIFAR-100, VGG-16'
seeds = [0, 1, 2]  # the paper does not say how many
# All of them see 128 images per update: 64 labelled and 64 of the pool, or, for
# Random, 128 labelled. An epoch is a pass over the labelled images for each, so Random
# makes half as many updates of the classifier.
trials = dict(
    jls=dict(
        config='../vgg16_cifar100_jls.py',
        options={'active_learning.joint.pool_ratio': 1.5},
    ),
    gcn=dict(
        config='../vgg16_cifar100_gcn.py',
        options={'active_learning.joint.pool_ratio': 1.5},
    ),
    tjls=dict(
        config='../vgg16_cifar100_tjls.py',
        options={'active_learning.joint.pool_ratio': 1.5},
    ),
    # The control, not in the paper's table. It trains on no image of the pool.
    random=dict(config='../vgg16_cifar100_random.py'),
)
