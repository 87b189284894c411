# Rules for detectors, to be compared by tools/al_ladder.py. `random` is the control of
# all; `random_again`, another draw, must come out level with it.
rules = dict(
    random=dict(type='tjls_mm.Random'),
    random_again=dict(type='tjls_mm.Random', draw=1),
    auto=dict(type='tjls_mm.Auto'),
    foreground_random=dict(type='tjls_mm.ForegroundRandom'),
    box_count=dict(type='tjls_mm.BoxCount'),
    entropy_sum=dict(type='tjls_mm.Entropy', over='sum'),
    class_balanced=dict(type='tjls_mm.ClassBalanced'),
    clasp=dict(type='tjls_mm.ClaSP'),
    object_herding=dict(type='tjls_mm.ObjectHerding'),
)
