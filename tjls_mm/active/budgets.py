"""How many images are labelled at which stage."""

from collections.abc import Sequence

from tjls_mm.errors import InputError


def image_count(value: int | float, total: int, name: str) -> int:
    """Number of images from a count, or from a fraction of all, a float in (0, 1].

    InputError, naming the setting, if the value is neither.
    """
    if isinstance(value, float) and 0 < value <= 1:
        return max(1, round(value * total))
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    raise InputError(
        f'active_learning.{name} must be a positive number of images, or a fraction '
        f'of them in (0.0, 1.0], got {value!r}.'
    )


def expand_budgets(
    total: int, budget: int | float | Sequence[int | float], stages: int
) -> list[int]:
    """Images to select after each stage but the last, as configured.

    A budget is a count, a fraction of ``total`` (labelled and pool images together),
    or one of them per selection. InputError if they are none, too many or too few.
    """
    if not isinstance(budget, (list, tuple)):
        return [image_count(budget, total, 'budget')] * (stages - 1)
    if len(budget) != stages - 1:
        raise InputError(
            f'active_learning.budget lists {len(budget)} budgets; {stages} stages '
            f'make {stages - 1} selections.'
        )
    return [image_count(b, total, 'budget') for b in budget]


def fit_budgets(
    total: int,
    n_labelled: int,
    budgets: Sequence[int],
    done: int = 0,
    allow_short_stage: bool = False,
) -> list[int]:
    """Budgets that fit into what is left of the pool.

    Args:
        total: Labelled and pool images together.
        n_labelled: Labelled now.
        budgets: Of this and later selections.
        done: Selections that were made.
        allow_short_stage: Let the last selection take what is left.

    Raises:
        InputError: If they do not fit; says how many stages would.
    """
    budgets, left = list(budgets), total - n_labelled
    for i, wanted in enumerate(budgets):
        if wanted <= left:
            left -= wanted
            continue
        if allow_short_stage and i == len(budgets) - 1 and left > 0:
            budgets[i] = left
            break
        short = ''
        if left:
            short = (
                f', or {done + i + 2} with a last selection of {left} '
                '(active_learning.allow_short_stage=True)'
            )
        raise InputError(
            f'{n_labelled} labelled images and {len(budgets)} selections '
            f'({n_labelled + sum(budgets)} images) are more than the {total} images '
            f'of the data set: {done + i + 1} stages fit{short}. Lower '
            'active_learning.stages, budget or initial.'
        )
    return budgets
