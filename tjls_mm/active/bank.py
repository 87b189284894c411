"""Which images fill the context bank."""

from tjls_mm.errors import InputError
from tjls_mm.randomness import generator


def draw_bank(
    labelled: list[str], pool: list[str], size: int, seed: int, stage: int
) -> list[str]:
    """B - 1 reference images of the context bank, B being the batch.

    ⌈B/2⌉ of the sorted labelled ids, then of the pool; where one side is short, the
    other fills up. InputError if both together are fewer than ``size``.
    """
    if len(labelled) + len(pool) < size:
        raise InputError(
            f'The context bank needs {size} images (batch size less one), the data '
            f'set has {len(labelled) + len(pool)}: use a smaller '
            'train_dataloader.batch_size.'
        )
    from_labelled = min((size + 2) // 2, len(labelled))
    from_labelled = max(from_labelled, size - len(pool))
    rng = generator(seed, stage, 'bank')
    rows = rng.choice(len(labelled), from_labelled, replace=False)
    others = rng.choice(len(pool), size - from_labelled, replace=False)
    return [labelled[i] for i in rows] + [pool[i] for i in others]
