# Rules for classifiers, to be compared by tools/al_ladder.py. `random` is the control
# of all; `random_again`, another draw, must come out level with it.
rules = dict(
    random=dict(type='tjls_mm.Random'),
    random_again=dict(type='tjls_mm.Random', draw=1),
    auto=dict(type='tjls_mm.Auto'),
    entropy=dict(type='tjls_mm.Entropy'),
    margin=dict(type='tjls_mm.Margin'),
    class_balanced=dict(type='tjls_mm.ClassBalanced', output='probability'),
    balanced_entropy=dict(
        type='tjls_mm.ClassBalanced', output='probability', score='softmax_entropy'
    ),
    core_set=dict(type='tjls_mm.CoreSet'),
    badge=dict(type='tjls_mm.BADGE'),
    bait=dict(type='tjls_mm.BAIT'),
    max_herding=dict(type='tjls_mm.MaxHerding'),
    u_herding=dict(type='tjls_mm.UHerding'),
    typiclust=dict(type='tjls_mm.TypiClust'),
)
