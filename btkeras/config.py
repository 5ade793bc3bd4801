"""Every setting of an experiment, as frozen dataclasses that refuse invalid values; the defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from btkeras.config_rules import Section, between, distinct, fraction, not_negative, one_of, positive, rule

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "step", "linear", "cosine", "one_cycle")
CACHES = ("auto", "device", "memory", "disk", "none")
MONITORS = ("val_accuracy", "val_macro_recall", "val_loss")
LOSSES = ("cross_entropy", "focal")
CLASS_WEIGHTS = ("none", "balanced")
TESTS = ("rotating", "fixed")
PATCHES = ("lesion_cutmix", "lesion_removal", "background_cutmix")  # of AugmentConfig
GROUPINGS = ("image", "duplicate", "patient", "series", "official")

_seed = between(0, 2**32 - 1)
_crop = rule(lambda crop: 0.1 <= crop[0] <= 1 <= crop[1] <= 2, "be two fractions, 0.1..1 and 1..2")
_seeds = rule(lambda seeds: seeds and all(0 <= s < 2**32 for s in seeds), "hold at least one seed of 0..4294967295")


@dataclass(frozen=True)
class ModelConfig(Section):
    """Attributes:
    name: A key of ``btkeras.models.MODELS``, or of ``btkeras.models.lbp.CLASSIFIERS``.
    weights: ``random``; ``imagenet`` (Keras' own, downloaded) or a file of such; or another run's ``best.keras``.
    frozen_epochs: Epochs at the start that train the head alone, whose large gradients would harm pretrained weights.
    """

    name: str = "improved_resnet34"
    weights: Annotated[str, rule(bool, "be random, imagenet or a file")] = "random"
    frozen_epochs: Annotated[int, not_negative] = 0


@dataclass(frozen=True)
class DataConfig(Section):
    """How images become the network's input, and how the dataset is split.

    Attributes:
        image_size: Side of the network's square input, pixels.
        channels: 1 (grey) or 3 (as stored; grey images get three equal channels).
        harmonize: Whether images are cropped to the head, normalised in intensity and made grey.
        test_fraction: Share of each class in the test subset, rounded down per class.
        validation_fraction: Share of the rest in the validation subset, rounded down per class.
        split_seed: Seed of the split.
        group_by: What a split keeps in one subset: ``image`` nothing, as the paper; ``duplicate`` near-duplicates;
            ``patient``; ``series`` similar slices of adjacent numbers; ``official`` as published.
        split_column: The manifest's column of ``official``; "" for ``official_fold`` or ``subset``, whichever there is.
        cache: Where decoded images are cached; ``auto`` goes by the free memory. ``device`` is JAX's GPU.
    """

    image_size: Annotated[int, between(32, 2048)] = 224
    channels: Annotated[int, one_of((1, 3))] = 3
    harmonize: bool = False
    test_fraction: Annotated[float, between(0.01, 0.9)] = 0.2
    validation_fraction: Annotated[float, between(0.01, 0.9)] = 0.2
    split_seed: Annotated[int, _seed] = 0
    group_by: Annotated[str, one_of(GROUPINGS)] = "image"
    split_column: str = ""
    cache: Annotated[str, one_of(CACHES)] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = rule(lambda column: self.group_by == "official" or not column, "go with data.group_by=official only")
        fits("data.split_column", self.split_column)


@dataclass(frozen=True)
class AugmentConfig(Section):
    """Random changes of training images (paper, section 4.1: random crop, both flips, brightness).

    Attributes:
        crop: Smallest (to 1) and largest (from 1) side of the random crop, relative to the image, which gets a black
            margin above 1. Evaluation takes 1.
        horizontal_flip: Whether half of the images are mirrored left to right.
        vertical_flip: Whether half of the images are mirrored top to bottom.
        brightness: Largest shift up or down, as a fraction of the full range 0..255.
        rotation: Largest rotation to either side, degrees.
        aspect_ratio: Largest change of width to height, as a power of two: 0.2 is 1 : 1.15 either way.
        lesion_cutmix: Share of the images that get the tumour, and so the class, of a similar slice.
        lesion_removal: Share of the tumour slices, with boxes, that get tissue in its place and become ``no_tumor``.
        background_cutmix: Share of the images that get tissue beside their tumour, and keep their class.
        cutmix_classes: Classes whose tumours may cover each other; where a pituitary tumour is, means a class.
    """

    crop: Annotated[tuple[float, float], _crop] = (0.8, 1.0)
    horizontal_flip: bool = True
    vertical_flip: bool = True
    brightness: Annotated[float, fraction] = 0.2
    rotation: Annotated[float, between(0, 180)] = 0.0
    aspect_ratio: Annotated[float, fraction] = 0.0
    lesion_cutmix: Annotated[float, fraction] = 0.0
    lesion_removal: Annotated[float, fraction] = 0.0
    background_cutmix: float = 0.0
    cutmix_classes: Annotated[tuple[str, ...], distinct] = ("glioma", "meningioma")

    def __post_init__(self) -> None:
        super().__post_init__()
        between(0, 1 - self.lesion_cutmix - self.lesion_removal)("augment.background_cutmix", self.background_cutmix)


@dataclass(frozen=True)
class IntensityConfig(Section):
    """Random changes of intensity, applied in this order; each image draws a strength between 0 and the value.

    Attributes:
        probability: Share of the images that are changed at all.
        histogram: Share of the images whose histogram is matched to another image of their batch.
        curve: Largest share of a random intensity curve, which may fall, as contrasts invert from T1 to T2.
        gamma: Largest exponent either way, as a power of two: 1 is an exponent of 1/2..2.
        bias_field: Largest change of brightness across the image, as a power of two.
        blur: Largest share of a blurred copy; half of it is the largest share of sharpening.
        noise: Largest standard deviation of noise, as a fraction of the image's own.
        inversion: Share of the images that become their negative.
    """

    probability: Annotated[float, fraction] = 1.0
    histogram: Annotated[float, fraction] = 0.0
    curve: Annotated[float, fraction] = 0.0
    gamma: Annotated[float, between(0, 4)] = 0.0
    bias_field: Annotated[float, between(0, 4)] = 0.0
    blur: Annotated[float, fraction] = 0.0
    noise: Annotated[float, fraction] = 0.0
    inversion: Annotated[float, fraction] = 0.0


@dataclass(frozen=True)
class CooldownConfig(Section):
    """The last epochs of a training, with less augmentation (He et al. 2019, arXiv:1909.09148).

    Attributes:
        epochs: How many of the last ``train.epochs``; 0 for none.
        intensity: ``intensity.probability`` in them, not above that.
        lesion_cutmix: ``augment.lesion_cutmix`` in them, not above that; the other patches shrink in proportion.
    """

    epochs: Annotated[int, not_negative] = 0
    intensity: float = 0.0
    lesion_cutmix: float = 0.0


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """Attributes:
    name: ``adam``, ``adamw`` or ``sgd`` (with Nesterov momentum).
    learning_rate: The highest rate of the schedule.
    weight_decay: Decoupled weight decay of the kernels of convolutions and dense layers.
    momentum: Momentum of ``sgd``; the others keep Keras' defaults.
    ema: Momentum of the moving average of weights and batch statistics that is validated and saved; 0 for none.
    """

    name: Annotated[str, one_of(OPTIMIZERS)] = "adam"
    learning_rate: Annotated[float, positive] = 1e-3
    weight_decay: Annotated[float, fraction] = 0.0
    momentum: Annotated[float, between(0, 0.9999)] = 0.9
    ema: Annotated[float, between(0, 0.99999)] = 0.0


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """The learning rate over the training, as a multiple of ``optimizer.learning_rate``.

    Attributes:
        name: ``constant``; ``step`` (the paper's); ``linear`` or ``cosine``, down to ``final_fraction``; or
            ``one_cycle``, up for ``warmup_epochs`` (if 0, 30 % of the epochs), then down, both along a cosine.
        warmup_epochs: Epochs of linear warm-up before the schedule starts.
        step_epochs: Epochs between two steps.
        step_factor: What each step multiplies the rate by.
        final_fraction: Share of the rate at the end of ``linear``, ``cosine`` and ``one_cycle``.
    """

    name: Annotated[str, one_of(SCHEDULES)] = "step"
    warmup_epochs: Annotated[float, between(0, 100_000)] = 0.0
    step_epochs: Annotated[float, positive] = 100.0
    step_factor: Annotated[float, fraction] = 0.1
    final_fraction: Annotated[float, fraction] = 0.0


@dataclass(frozen=True)
class TrainConfig(Section):
    """Attributes:
    epochs: Passes over the training subset.
    batch_size: Images per step, over all devices together.
    seed: Seed of the weights, the data order and the augmentation.
    precision: ``auto`` takes what is fastest on the device.
    jit_compile: Compile the training step with XLA: faster on GPUs, slower on CPUs.
    label_smoothing: Probability moved from the true class to all classes evenly.
    monitor: Validation metric that chooses the best checkpoint; ties go to the loss, its own to the accuracy.
    early_stopping: Stop after so many epochs without a better checkpoint; 0 never stops early.
    deterministic: Bit-identical runs on the same machine, at some cost in speed on GPUs.
    keep_state: Keep the state of a finished run, three times as large as the model, for more epochs later.
    loss: ``cross_entropy``, or ``focal`` (Lin et al. 2017, arXiv:1708.02002), in which sure predictions count less.
    focal_gamma: How much less: their part is multiplied by (1 - probability) to this power.
    class_weight: ``none``, or ``balanced``: a class counts inversely to its share of the training images, on average 1.
    teacher: A run whose probabilities are learnt, beside the true classes (knowledge distillation); "" for none.
    teacher_share: Share of a target that is the teacher's probabilities.
    """

    epochs: Annotated[int, between(1, 100_000)] = 300
    batch_size: Annotated[int, between(1, 65_536)] = 64
    seed: Annotated[int, _seed] = 0
    precision: Annotated[str, one_of(PRECISIONS)] = "auto"
    jit_compile: bool = False
    label_smoothing: Annotated[float, between(0, 0.9)] = 0.0
    monitor: Annotated[str, one_of(MONITORS)] = "val_accuracy"
    early_stopping: Annotated[int, not_negative] = 0
    deterministic: bool = True
    keep_state: bool = False
    loss: Annotated[str, one_of(LOSSES)] = "cross_entropy"
    focal_gamma: Annotated[float, between(0, 10)] = 2.0
    class_weight: Annotated[str, one_of(CLASS_WEIGHTS)] = "none"
    teacher: str = ""
    teacher_share: Annotated[float, fraction] = 0.7


@dataclass(frozen=True)
class PhantomConfig(Section):
    """Attributes, of the synthetic dataset of ``--data phantom``:
    patients: Number of patients, spread evenly over the four classes.
    slices: Slices of each patient.
    image_size: Side of the square images, pixels.
    seed: Seed of everything in them.
    difficulty: 0 is easy (strong lesions, little noise), 1 the default, 2 very hard.
    """

    patients: Annotated[int, between(4, 1_000_000)] = 120
    slices: Annotated[int, between(1, 1000)] = 5
    image_size: Annotated[int, between(48, 1024)] = 96
    seed: Annotated[int, _seed] = 0
    difficulty: Annotated[float, between(0, 2)] = 1.0


@dataclass(frozen=True)
class CVConfig(Section):
    """Cross-validation (paper, section 4.3).

    Attributes:
        models: Networks to compare; none means ``model.name`` alone.
        folds: Number of folds, in each of which every class has its share.
        seeds: Seeds of the trainings, each with the same folds; they replace ``train.seed``.
        test: ``rotating``: every image is tested once. ``fixed``: all folds have one test subset, as in the paper.
        overrides: By model, its own settings as for ``--set``: ``vgg16: [optimizer.learning_rate=1e-4]``.
    """

    models: Annotated[tuple[str, ...], distinct] = ()
    folds: Annotated[int, between(2, 1000)] = 5
    seeds: Annotated[tuple[int, ...], _seeds, distinct] = (0,)
    test: Annotated[str, one_of(TESTS)] = "rotating"
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperimentConfig:
    """All sections."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    intensity: IntensityConfig = field(default_factory=IntensityConfig)
    cooldown: CooldownConfig = field(default_factory=CooldownConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    phantom: PhantomConfig = field(default_factory=PhantomConfig)
    cv: CVConfig = field(default_factory=CVConfig)

    def __post_init__(self) -> None:
        most = self.train.epochs
        within = rule(lambda epochs: epochs <= most, f"not be above train.epochs, which is {most}")
        within("model.frozen_epochs", self.model.frozen_epochs)
        within("cooldown.epochs", self.cooldown.epochs)
        between(0, self.intensity.probability)("cooldown.intensity", self.cooldown.intensity)
        between(0, self.augment.lesion_cutmix)("cooldown.lesion_cutmix", self.cooldown.lesion_cutmix)
