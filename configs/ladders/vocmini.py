# The rules of docs/results.md, on voc_mini; they want pretrained features, see there.
_balance = dict(type='ClassBalance')
_probe = dict(type='ProbeScore')
_score = dict(type='BoxScore', kind='score')
_entropy = dict(type='BoxScore', kind='score_entropy', gamma=0.5)
rules = dict(
    random=dict(type='tjls_mm.Random'),
    random_again=dict(type='tjls_mm.Random', draw=1),
    auto=dict(type='tjls_mm.Auto'),  # balanced_gamma by another name
    balanced_gamma=dict(type='tjls_mm.ClassBalanced', gamma=0.5),
    class_balanced=dict(type='tjls_mm.ClassBalanced'),
    balanced_scores=dict(type='tjls_mm.ClassBalanced', score='score'),
    probe=dict(type='tjls_mm.Composition', score=_probe, balance=_balance),
    sum_probe=dict(
        type='tjls_mm.Composition',
        score=dict(type='Sum', scores=[_score, _probe]),
        balance=_balance,
    ),
    sum_gamma=dict(
        type='tjls_mm.Composition',
        score=dict(type='Sum', scores=[_entropy, _probe]),
        balance=_balance,
    ),
    max_herding=dict(type='tjls_mm.MaxHerding', features='pretrained_feature'),
    object_herding=dict(type='tjls_mm.ObjectHerding', cost='image'),
    foreground_random=dict(type='tjls_mm.ForegroundRandom'),
    box_count=dict(type='tjls_mm.BoxCount'),
)
