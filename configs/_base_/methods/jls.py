# JLS for any detector of mmdet: the learner and a labelled-versus-pool discriminator.
method = dict(
    query=dict(type='tjls_mm.Discriminator', rule='lowest'),  # TJLS, Eq. 5
    branches=dict(
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead',
            normalize=False,  # the vector is standardised
            loss_weight=0.05,
        ),
    ),
)
