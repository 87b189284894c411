# TJLS, Table 3: what stands between the features and the two branches. VGG-16 on
# CIFAR-100, 10 % to 40 % of the labels in 7 stages; "we increase the number of
# unlabelled examples used for training by 50%".
title = 'TJLS, Table 3: CIFAR-100, VGG-16'
seeds = [0, 1, 2]  # the paper does not say how many
# An update of each trains 64 labelled images, and 64 of the pool beside them where the
# method has a discriminator.
trials = dict(
    jls=dict(
        config='../classification/vgg16_cifar100_jls.py',
        options={'method.pool_ratio': 1.5},
    ),
    gcn=dict(
        config='../classification/vgg16_cifar100_gcn.py',
        options={'method.pool_ratio': 1.5},
    ),
    tjls=dict(
        config='../classification/vgg16_cifar100_tjls.py',
        options={'method.pool_ratio': 1.5},
    ),
    # The control, not in the paper's table. It trains on no image of the pool.
    random=dict(config='../classification/vgg16_cifar100_random.py'),
)
