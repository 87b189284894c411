"""Annotators: who labels selected images, and the files of their tools."""

from .annotators import Annotator, Oracle
from .boxes import Answer, Box, Delivery, ImageRecord, Problem, untouched
from .class_folders import ClassFolders
from .class_table import ClassTable
from .coco_json import CocoJson
from .cvat import Cvat
from .export_images import export_images
from .formats import AnnotationFormat
from .label_studio import LabelStudio, LabelStudioChoices
from .manual import Manual
from .pascal_voc import PascalVoc
from .store import read_answers, write_answers
from .yolo import Yolo

__all__ = [
    'AnnotationFormat',
    'Annotator',
    'Answer',
    'Box',
    'ClassFolders',
    'ClassTable',
    'CocoJson',
    'Cvat',
    'Delivery',
    'ImageRecord',
    'LabelStudio',
    'LabelStudioChoices',
    'Manual',
    'Oracle',
    'PascalVoc',
    'Problem',
    'Yolo',
    'export_images',
    'read_answers',
    'untouched',
    'write_answers',
]
