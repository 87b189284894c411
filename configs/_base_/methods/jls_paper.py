# JLS of the paper for SSD: the learner and a labelled-versus-pool discriminator on all
# its confidences, jointly. Other detectors: jls.py.
method = dict(
    query=dict(type='tjls_mm.Discriminator', rule='lowest'),  # TJLS, Eq. 5
    vector=dict(type='tjls_mm.ConfidenceFlatten'),  # TJLS, Sec. 4.2
    branches=dict(
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead',
            loss_weight=0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
        ),
    ),
)
