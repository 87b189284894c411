# JLS for classifiers: the learner and a labelled-versus-pool discriminator, jointly.
method = dict(
    query=dict(type='tjls_mm.Discriminator', rule='lowest'),  # TJLS, Eq. 5
    branches=dict(
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead',
            hidden_features=(512,),  # TJLS, Sec. 4.1
            loss_weight=0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
        ),
    ),
)
