# JLS for any detector of mmdet: the learner and a labelled-versus-pool discriminator.
method = dict(
    query=dict(type='tjls_mm.Discriminator', rule='lowest'),  # TJLS, Eq. 5
    branches=dict(
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead',
            normalize=False,  # the vector is standardised
            loss_weight=0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
            # With all of its gradient it learns its images by heart, through the
            # confidences, and the task loses a quarter of its mAP: docs/results.md.
            gradient_scale=0.02,
        ),
    ),
)
