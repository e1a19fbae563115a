"""Images: data sets, normalisation, augmentation, batches."""

from rkd.data import cifar, embedded, folders, npz  # they register
from rkd.data.augment import EpochDraws, draw_epoch
from rkd.data.batches import Batches, evaluation_batches, normalise, used_images
from rkd.data.images import ImageSet, describe, is_there, load, measure_statistics
from rkd.data.normalisation import PRESETS, Normalisation, preset
from rkd.data.sources import DataConfig, Reader, Source, full_name, is_changing, register_source, source_names
from rkd.data.streams import stream_seed
