"""Every setting of an experiment: frozen dataclasses that reject what they do not know.

The defaults are the paper's protocol (design: Adam 1e-3, times 0.1 every 100 of 300 epochs, batch 64, 224 pixels).
``btkeras.config_io`` reads and writes them as YAML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from btkeras.errors import ConfigError

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "step", "linear", "cosine", "one_cycle")
CACHES = ("auto", "memory", "disk", "none")
MONITORS = ("val_accuracy", "val_loss")
TESTS = ("rotating", "fixed")
GROUPINGS = ("image", "duplicate", "patient", "series", "official")


def _require(holds: bool, rule: str, received: object) -> None:
    if not holds:
        raise ConfigError(rule, received=received)


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{key} must be one of {', '.join(allowed)}", repr(value))


def _between(key: str, value: float, low: float, high: float) -> None:
    _require(low <= value <= high, f"{key} must be between {low:g} and {high:g}", value)


def _positive(key: str, value: float) -> None:
    _require(0 < value < math.inf, f"{key} must be a number above 0", value)


def _seed(key: str, value: int) -> None:
    # What every generator in use takes.
    _require(0 <= value < 2**32, f"{key} must be between 0 and 4294967295", value)


def _distinct(key: str, values: tuple[object, ...]) -> None:
    _require(len(set(values)) == len(values), f"{key} must name each once", list(values))


@dataclass(frozen=True)
class ModelConfig:
    """Attributes:
    name: A key of ``btkeras.models.MODELS``, or of ``btkeras.models.lbp.CLASSIFIERS``.
    weights: ``random``; ``imagenet`` (Keras' own, which are downloaded); or a file of weights without the head.
    frozen_epochs: So many epochs at the start train the head alone, to spare pretrained weights its first,
        large gradients. Batch normalisation keeps its statistics meanwhile.
    """

    name: str = "improved_resnet34"
    weights: str = "random"
    frozen_epochs: int = 0

    def __post_init__(self) -> None:
        _require(bool(self.weights), "model.weights must be random, imagenet or a file", repr(self.weights))
        _require(self.frozen_epochs >= 0, "model.frozen_epochs must not be negative", self.frozen_epochs)


@dataclass(frozen=True)
class DataConfig:
    """How images become the network's input, and how the dataset is split.

    Attributes:
        image_size: Side of the network's square input, pixels.
        channels: 1 (grey) or 3 (as stored; grey images get three equal channels).
        harmonize: Whether images are cropped to the head, put on one scale of intensity and made grey, so that
            collections look alike (``btkeras.preprocessing.harmonize``).
        test_fraction: Part of each class that is tested, rounded down per class.
        validation_fraction: Part of the rest that validates, rounded down per class.
        split_seed: Seed of the split; another number is another split.
        group_by: What a split keeps together (``btkeras.splitting.groups.group_records``): ``image`` nothing, as the paper;
            ``duplicate`` near-copies; ``patient`` the slices of each patient; ``series`` slices of neighbouring
            numbers that look alike, where patients are not named; ``official`` tests the folds of FigShare's authors.
        cache: Where decoded images are kept: in memory, on disk, nowhere, or decided by the memory that is free.
    """

    image_size: int = 224
    channels: int = 3
    harmonize: bool = False
    test_fraction: float = 0.2
    validation_fraction: float = 0.2
    split_seed: int = 0
    group_by: str = "image"
    cache: str = "auto"

    def __post_init__(self) -> None:
        _between("data.image_size", self.image_size, 32, 2048)
        _require(self.channels in (1, 3), "data.channels must be 1 or 3", self.channels)
        _between("data.test_fraction", self.test_fraction, 0.01, 0.9)
        _between("data.validation_fraction", self.validation_fraction, 0.01, 0.9)
        _seed("data.split_seed", self.split_seed)
        _one_of("data.group_by", self.group_by, GROUPINGS)
        _one_of("data.cache", self.cache, CACHES)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes to training images (paper, section 4.1: random crop, both flips, brightness).

    Attributes:
        crop: Smallest and largest side of the random crop, as a fraction of the image's side; the crop is
            resized to ``data.image_size``. Above 1 the image is surrounded by black. Evaluation shows the
            whole image (1), so 1 must lie in the range: an object then has the same size in both.
        horizontal_flip: Whether half of the images are mirrored left to right.
        vertical_flip: Whether half of the images are mirrored top to bottom.
        brightness: Largest shift up or down, as a fraction of the full range 0..255.
        rotation: Largest turn to either side, degrees.
        aspect_ratio: Largest change of the ratio of width to height, as a power of two: 0.2 is 1 : 1.15 either way.
        lesion_cutmix: Part of random pairs, a slice with a tumour and one of ``no_tumor``, that exchange what lies in
            the tumour's box, and their classes. Needs boxes in the dataset; heads should fill their images alike
            (``data.harmonize``).
        background_cutmix: Part of the pairs that exchange tissue beside the tumour instead, and keep their classes, so that
            the edge of a patch tells no class.
        cutmix_classes: Classes whose tumours are exchanged. A pituitary tumour means little off its place.
    """

    crop: tuple[float, float] = (0.8, 1.0)
    horizontal_flip: bool = True
    vertical_flip: bool = True
    brightness: float = 0.2
    rotation: float = 0.0
    aspect_ratio: float = 0.0
    lesion_cutmix: float = 0.0
    background_cutmix: float = 0.0
    cutmix_classes: tuple[str, ...] = ("glioma", "meningioma")

    def __post_init__(self) -> None:
        low, high = self.crop
        _require(0.1 <= low <= 1 <= high <= 2, "augment.crop must be two fractions, 0.1..1 and 1..2", list(self.crop))
        _between("augment.brightness", self.brightness, 0, 1)
        _between("augment.rotation", self.rotation, 0, 180)
        _between("augment.aspect_ratio", self.aspect_ratio, 0, 1)
        _between("augment.lesion_cutmix", self.lesion_cutmix, 0, 1)
        # Decoys are there to hide the edges of exchanged tumours.
        most = 1 - self.lesion_cutmix if self.lesion_cutmix else 0
        _between("augment.background_cutmix", self.background_cutmix, 0, most)
        _distinct("augment.cutmix_classes", self.cutmix_classes)


@dataclass(frozen=True)
class IntensityConfig:
    """Random changes to how training images look, as other scanners and sequences would: all off by default.

    Each image gets a strength of its own between nothing and the value given here. The changes are applied in the
    order of the attributes.

    Attributes:
        probability: Share of the images that are changed at all; the others keep the accuracy on the dataset's own kind.
        histogram: Part of the images that take the grey levels of another image of their batch (histogram
            matching): what a class's intensities are then tells nothing about the class.
        curve: Largest share of a random curve of grey levels, 0 staying 0, in place of the straight line. It need not
            rise, so that it turns contrasts over as another sequence does (T1, T2, FLAIR).
        gamma: Largest exponent either way, as a power of two: 1 is an exponent of 1/2..2.
        bias_field: Largest change of brightness across the image, as a power of two.
        blur: Largest share of a blurred copy; half of it is the largest share of sharpening.
        noise: Largest standard deviation of noise, as a fraction of the image's own.
        inversion: Part of the images that become their negative.
    """

    probability: float = 1.0
    histogram: float = 0.0
    curve: float = 0.0
    gamma: float = 0.0
    bias_field: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    inversion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("probability", "histogram", "curve", "blur", "noise", "inversion"):
            _between(f"intensity.{name}", getattr(self, name), 0, 1)
        _between("intensity.gamma", self.gamma, 0, 4)
        _between("intensity.bias_field", self.bias_field, 0, 4)


@dataclass(frozen=True)
class CooldownConfig:
    """The end of a training, on images that are changed less (He et al. 2019, arXiv:1909.09148).

    Strong augmentation teaches what holds elsewhere, and leaves batch statistics and boundaries that fit the changed
    images; a few epochs at a low learning rate bring them back to the images as they come.

    Attributes:
        epochs: Last epochs of ``train.epochs`` that refine; 0 for none.
        intensity: ``intensity.probability`` in them, not above that.
        lesion_cutmix: ``augment.lesion_cutmix`` in them, not above that; decoys become fewer in proportion.
    """

    epochs: int = 0
    intensity: float = 0.0
    lesion_cutmix: float = 0.0

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, "cooldown.epochs must not be negative", self.epochs)


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    name: ``adam``, ``adamw`` or ``sgd`` (with Nesterov momentum).
    learning_rate: The highest rate that the schedule reaches.
    weight_decay: Decoupled weight decay; applied to kernels of convolutions and dense layers only.
    momentum: Momentum of ``sgd``; the others keep Keras' defaults.
    ema: Momentum of the exponential moving average of the weights that is validated and kept; 0 keeps none.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    ema: float = 0.0

    def __post_init__(self) -> None:
        _one_of("optimizer.name", self.name, OPTIMIZERS)
        _positive("optimizer.learning_rate", self.learning_rate)
        _between("optimizer.weight_decay", self.weight_decay, 0, 1)
        _between("optimizer.momentum", self.momentum, 0, 0.9999)
        _between("optimizer.ema", self.ema, 0, 0.99999)


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over the training, as a multiple of ``optimizer.learning_rate``.

    Attributes:
        name: ``constant``; ``step`` (times ``step_factor`` every ``step_epochs``, the paper's); ``linear`` or
            ``cosine`` (down to ``final_fraction`` at the end); ``one_cycle`` (up for ``warmup_epochs``, or 30 % of
            the epochs when that is 0, then down, both along a cosine).
        warmup_epochs: Epochs of linear warm-up before the schedule starts.
        step_epochs: Epochs between two steps.
        step_factor: Factor of each step.
        final_fraction: What is left of the rate at the end of ``linear``, ``cosine`` and ``one_cycle``.
    """

    name: str = "step"
    warmup_epochs: float = 0.0
    step_epochs: float = 100.0
    step_factor: float = 0.1
    final_fraction: float = 0.0

    def __post_init__(self) -> None:
        _one_of("schedule.name", self.name, SCHEDULES)
        _between("schedule.warmup_epochs", self.warmup_epochs, 0, 100_000)
        _positive("schedule.step_epochs", self.step_epochs)
        _between("schedule.step_factor", self.step_factor, 0, 1)
        _between("schedule.final_fraction", self.final_fraction, 0, 1)


@dataclass(frozen=True)
class TrainConfig:
    """Attributes:
    epochs: Passes over the training split.
    batch_size: Images per step, over all devices together.
    seed: Seed of the weights, the data order and the augmentation.
    precision: ``auto`` takes what the device does best; a device without bfloat16 is measured, not guessed.
    jit_compile: Compile the training step with XLA. Pays on GPUs; on CPUs it was slower wherever measured.
    label_smoothing: Probability moved from the true class to all classes evenly.
    monitor: What the best checkpoint is chosen by, on the validation split; ties go to the other figure.
    early_stopping: Stop after so many epochs without a better checkpoint; 0 never stops early.
    deterministic: Bit-identical runs on the same machine, at some cost in speed on GPUs.
    """

    epochs: int = 300
    batch_size: int = 64
    seed: int = 0
    precision: str = "auto"
    jit_compile: bool = False
    label_smoothing: float = 0.0
    monitor: str = "val_accuracy"
    early_stopping: int = 0
    deterministic: bool = True

    def __post_init__(self) -> None:
        _between("train.epochs", self.epochs, 1, 100_000)
        _between("train.batch_size", self.batch_size, 1, 65_536)
        _seed("train.seed", self.seed)
        _one_of("train.precision", self.precision, PRECISIONS)
        _between("train.label_smoothing", self.label_smoothing, 0, 0.9)
        _one_of("train.monitor", self.monitor, MONITORS)
        _require(self.early_stopping >= 0, "train.early_stopping must not be negative", self.early_stopping)


@dataclass(frozen=True)
class PhantomConfig:
    """The synthetic dataset of ``--data phantom``.

    Attributes:
        patients: Number of patients, spread evenly over the four classes.
        slices: Slices of each patient.
        image_size: Side of the square images, pixels.
        seed: Seed of everything in them.
        difficulty: 0 is easy (strong lesions, little noise), 1 the default, 2 very hard.
    """

    patients: int = 120
    slices: int = 5
    image_size: int = 96
    seed: int = 0
    difficulty: float = 1.0

    def __post_init__(self) -> None:
        _between("phantom.patients", self.patients, 4, 1_000_000)
        _between("phantom.slices", self.slices, 1, 1000)
        _between("phantom.image_size", self.image_size, 48, 1024)
        _seed("phantom.seed", self.seed)
        _between("phantom.difficulty", self.difficulty, 0, 2)


@dataclass(frozen=True)
class CVConfig:
    """Cross-validation, of ``btkeras cv`` (paper, section 4.3).

    Attributes:
        models: Networks to compare; none means ``model.name`` alone.
        folds: Parts that each class is dealt into.
        seeds: A training per seed, each with the same folds; replace ``train.seed``.
        test: ``rotating``: every image is tested once, in the fold it was dealt to. ``fixed``: the test part is the
            same in all folds and the validation part rotates, which the paper's figures suggest.
        overrides: By model, what its training has otherwise, as for ``--set``: ``vgg16: [optimizer.learning_rate=1e-4]``.
    """

    models: tuple[str, ...] = ()
    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    test: str = "rotating"
    overrides: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _distinct("cv.models", self.models)
        _between("cv.folds", self.folds, 2, 1000)
        _require(bool(self.seeds), "cv.seeds must hold at least one seed", list(self.seeds))
        _distinct("cv.seeds", self.seeds)
        for seed in self.seeds:
            _seed("cv.seeds", seed)
        _one_of("cv.test", self.test, TESTS)


@dataclass(frozen=True)
class ExperimentConfig:
    """The whole tree; functions take the part they need."""

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
        for key, epochs in (
            ("model.frozen_epochs", self.model.frozen_epochs),
            ("cooldown.epochs", self.cooldown.epochs),
        ):
            rule = f"{key} must not be above train.epochs, which is {self.train.epochs}"
            _require(epochs <= self.train.epochs, rule, epochs)
        _between("cooldown.intensity", self.cooldown.intensity, 0, self.intensity.probability)
        _between("cooldown.lesion_cutmix", self.cooldown.lesion_cutmix, 0, self.augment.lesion_cutmix)
