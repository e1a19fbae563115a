"""FitNets: Hints for Thin Deep Nets (Romero et al. 2015, Equation 3), in RepDistiller's form without pre-training.

Compares a hint map of the student, passed through a trained regressor, with the teacher's hint map.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from rkd.config import Natural, Weight, frozen
from rkd.errors import ConfigError
from rkd.methods.base import Batch, Context, Options, SingleLoss, register_method
from rkd.methods.numeric import Shape, match, upcast


def regressor(student: Shape, teacher: Shape, relu: bool = True) -> nn.Sequential:
    """Return the convolution (with bias), BatchNorm and ReLU that bring a student map to a teacher map's shape.

    RepDistiller's rules for sizes: student twice the teacher, 3x3 convolution of stride 2; teacher twice the student,
    transposed 4x4 convolution of stride 2; student at least the teacher's size, convolution without padding whose
    kernel is 1 + the difference. Elsewhere (a teacher more than twice, or between one and two times, the student's
    size) RepDistiller has no rule, and SemCKD's is taken: a 3x3 convolution at the student's size, to which the
    teacher's map is then pooled by `rkd.methods.numeric.match`.

    Args:
        student, teacher: (channels, height, width) of square maps.
        relu: whether it ends in a ReLU.
    """
    (inputs, size, _), (outputs, target, _) = student, teacher
    if size == 2 * target:
        conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    elif 2 * size == target:
        conv = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    elif size >= target:
        conv = nn.Conv2d(inputs, outputs, 1 + size - target)
    else:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else []))


@frozen
class FitNetOptions(Options):
    """RepDistiller's values (`-b 100`).

    Attributes:
        hint_layer: which map is the hint, in both networks: 0 the stem, 1 the first stage, and so on.
    """

    loss_weight: Weight = 100.0
    hint_layer: Natural = 2


@register_method("fitnet", FitNetOptions, "FitNet")
class FitNet(SingleLoss):
    """Mean squared error between the regressed student hint and the teacher's hint, in a single stage of training.
    ConfigError for a hint layer that one of the networks lacks."""

    def __init__(self, context: Context, options: FitNetOptions) -> None:
        super().__init__(context, options)
        student, teacher = ((shapes.stem, *shapes.stages) for shapes in context.shapes)
        last = min(len(student), len(teacher)) - 1
        if options.hint_layer > last:
            raise ConfigError(f"hint_layer is {options.hint_layer}; both networks have 0 (stem) to {last}")
        self.regressor = regressor(student[options.hint_layer], teacher[options.hint_layer])

    def loss(self, batch: Batch) -> Tensor:
        maps = ((taps.stem, *taps.stages) for taps in (batch.student, batch.teacher))
        student, teacher = (each[self.options.hint_layer] for each in maps)
        return F.mse_loss(*match(upcast(self.regressor(student)), upcast(teacher)))
