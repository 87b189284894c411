"""How many images are labelled at which stage."""

from collections.abc import Sequence

from tjls_mm.errors import InputError


def image_count(value: int | float, total: int, name: str) -> int:
    """Number of images from a count or a fraction of all.

    Args:
        value: A count, or a fraction in (0, 1] given as float.
        total: Labelled and pool images together.
        name: Of the setting, for the message.

    Raises:
        InputError: If the value is neither.
    """
    if isinstance(value, float) and 0 < value <= 1:
        return max(1, round(value * total))
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InputError(
        f'active_learning.{name} must be a positive number of images, or a fraction '
        f'of them in (0.0, 1.0], got {value!r}.'
    )


def plan_budgets(
    total: int,
    initial: int,
    budget: int | float | Sequence[int | float],
    stages: int,
    allow_short_stage: bool = False,
) -> list[int]:
    """Images to select after each stage but the last.

    Args:
        total: Labelled and pool images together.
        initial: Images labelled at stage 0.
        budget: Per stage, as count or fraction of ``total``, or one per selection.
        stages: Number of stages, at least 1.
        allow_short_stage: Let the last selection take what is left.

    Returns:
        ``stages - 1`` budgets.

    Raises:
        InputError: If they do not fit into the pool; says how many stages would.
    """
    if not isinstance(budget, (list, tuple)):
        budgets = [image_count(budget, total, 'budget')] * (stages - 1)
    else:
        budgets = [image_count(b, total, 'budget') for b in budget]
        if len(budgets) != stages - 1:
            raise InputError(
                f'active_learning.budget lists {len(budgets)} budgets; {stages} '
                f'stages make {stages - 1} selections.'
            )
    if initial > total:
        raise InputError(
            f'active_learning.initial asks for {initial} images, the data set has '
            f'{total}.'
        )
    left = total - initial
    for i, wanted in enumerate(budgets):
        if wanted <= left:
            left -= wanted
            continue
        is_last = i == len(budgets) - 1
        if allow_short_stage and is_last and left > 0:
            budgets[i] = left
            break
        short = ''
        if left:
            short = (
                f', or {i + 2} with a last selection of {left} '
                '(active_learning.allow_short_stage=True)'
            )
        raise InputError(
            f'{initial} initial images and {stages - 1} selections '
            f'({initial + sum(budgets)} images) are more than the {total} images '
            f'of the data set: {i + 1} stages fit{short}. Lower '
            'active_learning.stages, budget or initial.'
        )
    return budgets
