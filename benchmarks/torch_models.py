"""The models of the benchmarks in plain PyTorch, with the shapes of their Keras counterparts."""

from torch import Tensor, nn


def document_001(classes: int) -> nn.Module:
    """The 150×150 stack: three convolutions, dense 1024, logits."""
    return nn.Sequential(
        *[nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Flatten(), nn.Linear(17 * 17 * 128, 1024), nn.ReLU(), nn.Linear(1024, classes)],
    )


def document_004(classes: int) -> nn.Module:
    """The 28×28 stack: three convolutions, dense 64, logits."""
    return nn.Sequential(
        *[nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(64, 64, 3), nn.ReLU()],
        *[nn.Flatten(), nn.Linear(3 * 3 * 64, 64), nn.ReLU(), nn.Linear(64, classes)],
    )


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (Sandler et al. 2018, table 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*_conv_norm(inputs, inner, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_conv_norm(inner, inner, 3, stride, groups=inner), nn.ReLU6(inplace=True)]
        self.block = nn.Sequential(*expand, *depthwise, *_conv_norm(inner, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.adds else self.block(x)


def mobilenet_v2(classes: int) -> nn.Module:
    """MobileNetV2 of width 1 (Sandler et al. 2018, table 2)."""
    parts: list[nn.Module] = [*_conv_norm(3, 32, 3, 2), nn.ReLU6(inplace=True)]
    inputs = 32
    for expansion, outputs, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(repeats):
            parts.append(InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion))
            inputs = outputs
    parts += [*_conv_norm(320, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(1280, classes))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 with a shortcut (He et al. 2015, figure 5); the first has the stride, as in keras.applications."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.block = nn.Sequential(
            *[*_conv_norm(inputs, inner, 1, stride), nn.ReLU(inplace=True)],
            *[*_conv_norm(inner, inner, 3), nn.ReLU(inplace=True)],
            *_conv_norm(inner, outputs, 1),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.block(x) + self.shortcut(x))


def resnet50(classes: int) -> nn.Module:
    """ResNet-50 (He et al. 2015, table 1)."""
    parts: list[nn.Module] = [*_conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for inner, repeats, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for repeat in range(repeats):
            parts.append(Bottleneck(inputs, inner, stride if repeat == 0 else 1))
            inputs = 4 * inner
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, classes))
