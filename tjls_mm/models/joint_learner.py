"""What every jointly trained learner has in common."""

TURNS = ('joint', 'task', 'sampler')


class JointLearner:
    """Mixin of a module that owns the task branch and the discriminator.

    The hook that decides about updates, the scoring hook and the stage loop know
    learners by this class only.

    Attributes:
        turn: Whose update is computed: 'task', 'sampler', or 'joint' for the
            weighted sum of both. Set by AlternatingUpdateHook.
    """

    turn = 'joint'

    def pool_outputs(self, feats, names) -> dict:
        """Outputs per image that query strategies ask for.

        Args:
            feats: What the model's ``extract_feat`` returned for B images.
            names: Names of the wanted outputs, e.g. ('logit',).

        Returns:
            One tensor of leading size B per name.

        Raises:
            KeyError: If this learner cannot provide an output.
        """
        raise KeyError(f'{type(self).__name__} provides no pool outputs')


def find_joint_learner(model) -> JointLearner | None:
    """The joint learner inside a model (wrapped or not), or None."""
    return next((m for m in model.modules() if isinstance(m, JointLearner)), None)
