"""People label what was selected, in a tool of their own."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tjls_mm.annotation.annotators import Annotator
from tjls_mm.annotation.boxes import Answer, Delivery, ImageRecord, Problem, untouched
from tjls_mm.annotation.export_images import export_images
from tjls_mm.annotation.formats import IMAGES, AnnotationFormat
from tjls_mm.annotation.store import read_answers, write_answers
from tjls_mm.errors import InputError
from tjls_mm.files import read_json, remove_leftovers, write_json, write_text
from tjls_mm.registry import ANNOTATION_FORMATS, ANNOTATORS, build_own
from tjls_mm.stage_folder import StageFolder

SENT, WRITTEN, README = 'sent.json', 'formats.json', 'README.md'
"""In the folder for people: what they were asked and what was suggested, in which
formats it was written, and what to do."""

_AGAIN = 'Then run the same command again'


@ANNOTATORS.register_module()
class Manual(Annotator):
    """Exports selected images for people, and takes what comes back.

    The trial ends while it waits. The same command looks for answers in ``answers`` of
    the stage: files, folders and zips of any of the formats.

    Args:
        format: Config of an annotation format, or a list of them: all are written, and
            each may come back. The first is the one to recommend.
        suggest_above: Score in [0, 1] from which predictions are given as suggestions;
            None for no suggestions. There are none where the query strategy and the
            branches ask nothing of the pool.
        accept_untouched: Believe a delivery in which everything is as it was sent, in
            formats that do not tell suggestions from answers.
    """

    def __init__(
        self,
        format: Mapping | Sequence[Mapping],
        suggest_above: float | None = 0.3,
        accept_untouched: bool = False,
    ) -> None:
        self.configs = [format] if isinstance(format, Mapping) else list(format)
        if not self.configs or not all(isinstance(c, Mapping) for c in self.configs):
            known = ', '.join(sorted(ANNOTATION_FORMATS.module_dict))
            raise InputError(
                'active_learning.annotator.format: expected dict(type=NAME), or a '
                f'list of them, got {format!r}. Known: {known}.'
            )
        above = suggest_above
        is_score = isinstance(above, int | float) and not isinstance(above, bool)
        if above is not None and not (is_score and 0 <= above <= 1):
            raise InputError(
                'active_learning.annotator.suggest_above: expected a score in [0, 1] '
                f'or None, got {above!r}.'
            )
        self.formats: list[AnnotationFormat] = [
            build_own(ANNOTATION_FORMATS, config) for config in self.configs
        ]
        self.suggest_above = suggest_above
        self.accept_untouched = accept_untouched
        self._state = ''

    def problems(self, source):
        task = source.task
        fitting = sorted(
            name
            for name, cls in ANNOTATION_FORMATS.module_dict.items()
            if cls.task == task
        )
        for one in self.formats:
            if one.task != task:
                yield (
                    f'active_learning.annotator.format {type(one).__name__} is of '
                    f'{one.task}, and data_source of {task}: use one of '
                    f'{", ".join(fitting)}.'
                )

    def first_images(self, problem: str) -> str:
        return (
            f'{problem} Manual asks people about images that a stage selected, not '
            'about the first labelled ones: label some and name them in '
            'active_learning.initial, as a list file or the start of their ids.'
        )

    def annotate(
        self, source, image_ids: Sequence[str], folder: StageFolder
    ) -> Sequence[str] | None:
        """Export, or read what came back.

        Returns:
            Images that were answered; None while answers are missing, unless
            ``accept_partial``.

        Raises:
            InputError: If there is something wrong with what came back, and not
                ``accept_partial``; ``problems.csv`` lists all of it.
        """
        images, sent = self._export(source, image_ids, folder)
        folder.drop.mkdir(exist_ok=True)
        places = _delivered(folder.drop)
        folder.problems.unlink(missing_ok=True)
        if not places:
            count = f'{sum(map(bool, sent.values()))} with suggestions'
            self._state = f'Exported: {len(images)} images, {count}; no answers yet.'
            return None
        delivery = self._read(places, images, sent, source.classes)
        self._say(delivery, folder)
        if not (self.accept_partial and delivery.answers):
            self._raise(delivery, folder)
        missing = len(images) - len(delivery.answers)
        summary = f'{folder.drop}: {delivery.summary()}.'
        if not delivery.answers or (missing and not self.accept_partial):
            self._state = summary
            if delivery.answers:
                self._state += (
                    f' Add the rest, or give {missing} back to the pool with '
                    '--accept-partial.'
                )
            return None
        print(summary, flush=True)
        write_answers(folder.annotations, images, delivery.answers, source.classes)
        return [image_id for image_id in image_ids if image_id in delivery.answers]

    def _say(self, delivery: Delivery, folder: StageFolder) -> None:
        """Write what is wrong or worth a look, and print of the latter the first."""
        if delivery.problems or delivery.warnings:
            delivery.write_problems(folder.problems)
        if delivery.warnings:
            first, count = delivery.warnings[0], len(delivery.warnings)
            more = f' {folder.problems} lists all {count}.' if count > 1 else ''
            print(f'WARNING: {first}{more}', flush=True)
        if delivery.problems and self.accept_partial:
            count = f'{len(delivery.problems)} problems'
            print(f'WARNING: {count}, listed in {folder.problems}.', flush=True)

    def what_to_do(self, folder: StageFolder) -> str:
        return (
            f'{self._state} Steps: {folder.to_annotate / README}. Put what your tool '
            f'exports into {folder.drop}, then run the same command again.'
        )

    def _raise(self, delivery: Delivery, folder: StageFolder) -> None:
        if not delivery.problems:
            return
        try:
            delivery.raise_problems(folder.problems)
        except InputError as error:
            good = len(delivery.answers)
            partial = f', with --accept-partial to take the {good} good answers now'
            raise InputError(f'{error} {_AGAIN}{partial if good else ""}.') from None

    def _export(
        self, source, image_ids: Sequence[str], folder: StageFolder
    ) -> tuple[list[ImageRecord], dict[str, Answer]]:
        """Write for people what is not there; what was asked, what was suggested."""
        out = folder.to_annotate
        if (out / SENT).exists():
            images, sent, _ = read_answers(out / SENT)
            if [image.image_id for image in images] == list(image_ids):
                self._write(folder, images, sent, source.classes)
                return images, sent
            # People have these already; a list that changed is no list of ours.
            raise InputError(
                f'{out} was written for other images than {folder.selected}: restore '
                f'that file, or remove {out} to export again.'
            )
        for path in (out, out / IMAGES):
            remove_leftovers(path)
        (out / WRITTEN).unlink(missing_ok=True)
        files = source.image_files(image_ids)
        # One that has no file of its own is pixels.
        given = (
            (i, files[i] if i in files else source.open_image(i)) for i in image_ids
        )
        images = export_images(out / IMAGES, given)
        sent = {}
        if self.suggest_above is not None:
            sent = self.predictions(image_ids, self.suggest_above)
        self._write(folder, images, sent, source.classes)
        answers = {image_id: sent.get(image_id, ()) for image_id in image_ids}
        write_answers(out / SENT, images, answers, source.classes)  # the mark, last
        return images, sent

    def _write(
        self,
        folder: StageFolder,
        images: Sequence[ImageRecord],
        sent: Mapping[str, Answer],
        classes: Sequence[str],
    ) -> None:
        """Files of formats that are not there: people may work in those that are."""
        out = folder.to_annotate
        for form in self.formats:
            if getattr(form, 'document_root', '') is None:
                # One server for all stages.
                form.document_root = str(folder.path.parent.absolute())
        before = read_json(out / WRITTEN) if (out / WRITTEN).exists() else {}
        named = [repr(dict(config)) for config in self.configs]
        if before.get('formats') == named:
            return
        shown = {image_id: answer for image_id, answer in sent.items() if answer}
        for form, name in zip(self.formats, named, strict=True):
            if name not in before.get('written', ()):
                form.write(out, images, shown, classes)
        write_text(out / README, self._readme(folder, images, shown))
        written = [*before.get('written', ()), *named]
        write_json(out / WRITTEN, {'formats': named, 'written': sorted(set(written))})

    def _readme(
        self, folder: StageFolder, images: Sequence[ImageRecord], sent: Mapping
    ) -> str:
        count = len(sent)
        if count:
            said = (
                f'The model of this stage suggests labels for {count} of them (scores '
                f'from {self.suggest_above}). Correct them: they may be wrong, and '
                'what it misses is worth most.'
            )
        else:
            said = 'There are no suggestions.'
        several = len(self.formats) > 1
        head = 'One of these ways.' if several else ''
        parts = [
            f'# {len(images)} images to label, of {folder.path.name}',
            f'They are in folder {IMAGES}, most wanted first. {said} {head}'.strip(),
        ]
        for form in self.formats:
            parts += [f'## {type(form).__name__}', form.instructions().strip()]
        parts += [
            '## When you are done',
            'Put what your tool exported, a file, folder or zip, into',
            f'    {folder.drop.absolute()}',
            'and run the same command again. It says how many images are answered, and '
            f'lists what is wrong in {folder.problems.name}. With --accept-partial it '
            'takes what is there and gives the other images back to the pool.',
        ]
        whole = ('#', ' ', '1.')
        parts = [p if p.startswith(whole) else textwrap.fill(p, 88) for p in parts]
        return '\n\n'.join(parts) + '\n'

    def _read(
        self,
        places: Sequence[Path],
        images: Sequence[ImageRecord],
        sent: Mapping[str, Answer],
        classes: Sequence[str],
    ) -> Delivery:
        """All places together, each in the format that finds most in it."""
        found = []
        for place in places:
            tries = [(f, f.read(place, images, classes)) for f in self.formats]
            form, delivery = max(tries, key=lambda one: _fit(one[1]))
            if not form.tells_suggestions:
                self._note_untouched(delivery, sent, place.name)
            found.append(delivery)
        names = ', '.join(place.name for place in places)
        return found[0] if len(found) == 1 else _join(found, images, names)

    def _note_untouched(
        self, delivery: Delivery, sent: Mapping[str, Answer], file: str
    ) -> None:
        """Warn of suggestions that came back as they were; refuse if all is as sent."""
        answers = delivery.answers
        same = untouched(answers, sent)
        empty = [i for i, one in answers.items() if not one and not sent.get(i)]
        if len(same) + len(empty) == len(answers) > 1 and not self.accept_untouched:
            what = f'all {len(answers)} images came back as they were sent'
            advice = (
                'Deliver what was labelled; if somebody did look at them, set '
                'active_learning.annotator.accept_untouched=True.'
            )
            delivery.problems.append(Problem('', file, '', what, advice))
            delivery.refused += answers
            answers.clear()
        elif same:
            shown = ', '.join(same[:3]) + ', …' * (len(same) > 3)
            what = f'{len(same)} images came back as they were suggested ({shown})'
            advice = 'Make sure that somebody looked at them.'
            delivery.warnings.insert(0, Problem('', file, '', what, advice))


def _fit(delivery: Delivery) -> tuple[int, int]:
    said = len(delivery.answers) + len(delivery.skipped) + len(delivery.refused)
    return said, -len(delivery.problems)


def _delivered(drop: Path) -> list[Path]:
    """What people put into a folder: each zip, and the folder if it holds more."""
    paths = sorted(path for path in drop.iterdir() if not path.name.startswith('.'))
    zips = [p for p in paths if p.suffix.lower() == '.zip' and p.is_file()]
    others = [path for path in paths if path not in zips and _holds_files(path)]
    return [*zips, *[drop] * bool(others)]


def _holds_files(path: Path) -> bool:
    return path.is_file() or any(p.is_file() for p in path.rglob('*'))


def _join(
    deliveries: Sequence[Delivery], images: Sequence[ImageRecord], file: str
) -> Delivery:
    """Several deliveries as one: what one says of an image counts, if others agree."""
    joined = Delivery()
    for one in deliveries:
        joined.problems += one.problems
        joined.warnings += one.warnings
    for image in images:
        image_id = image.image_id
        answers = [d.answers[image_id] for d in deliveries if image_id in d.answers]
        if any(image_id in d.refused for d in deliveries):
            joined.refused.append(image_id)
        elif any(answer != answers[0] for answer in answers):
            what = f'{len(answers)} deliveries answer differently'
            joined.problems.append(
                Problem(image_id, file, '', what, 'Leave one of them there.')
            )
            joined.refused.append(image_id)
        elif answers:
            joined.answers[image_id] = answers[0]
        elif any(image_id in d.skipped for d in deliveries):
            joined.skipped.append(image_id)
        else:
            joined.unanswered.append(image_id)
    return joined
