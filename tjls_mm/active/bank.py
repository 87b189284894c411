"""Which images fill the context bank."""

from tjls_mm.errors import InputError
from tjls_mm.randomness import generator


def draw_bank(
    labelled: list[str], pool: list[str], size: int, seed: int, stage: int
) -> list[str]:
    """Reference images of the context bank.

    Args:
        labelled: Sorted ids.
        pool: Sorted ids.
        size: B - 1, B being the batch that images attend over.
        seed: Of the trial.
        stage: Its number.

    Returns:
        ⌈B/2⌉ labelled ids, then pool ids; where one side is short, the other
        fills up.

    Raises:
        InputError: If both together are fewer than ``size``.
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
