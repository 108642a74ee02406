"""The gradient of each class's loss, for many classes in one pass.

One forward pass and one backward pass give the inputs of the layers and the gradients of their outputs. The
gradient of a class then follows from the rows of its own images (for a convolution it is the weight gradient
of a grouped convolution with one group per class).

Speed, as a multiple of that of a loop over the classes, measured on one CPU thread for 10 classes of 10 or 64
real and 10 synthetic images, including the way back to the pixels; the first range is for 8x8x1 images and
ConvNet-2, the second for 32x32x3 images and ConvNet-3. All classes at once: 1.1 to 2.0 and 0.5 to 0.9. vmap
of grad: 0.8 to 1.8 and 0.3 to 0.9. Unfolded inputs and matrix products: 0.9 to 1.7 and 0.4 to 0.7. In pieces
of 50 images, as here: 1.1 to 1.6 and 0.9 to 1.0.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.grad import conv2d_weight

from bench.core.errors import UserError, first_line
from bench.core.networks.external import ExternalNetwork
from bench.core.pieces import piece_size

Matched = Literal["kernels", "weights", "all"]

WEIGHED = (nn.Conv2d, nn.Linear)
LAYERS = (*WEIGHED, nn.GroupNorm, nn.LayerNorm)


def matched_parameters(net: nn.Module, matched: Matched) -> list[str]:
    """The names of the parameters whose gradients are matched.

    Args:
        net: the network.
        matched: "kernels", the weights of convolutions (IDC); "weights", those of linear layers as well (DC);
            "all", also biases and the affine parameters of norms.

    Returns:
        Their names, in the order of `net.named_parameters()`.

    Raises:
        UserError: there are no such parameters, or a layer is not supported. Batch norm is not, because it
            couples the images of a batch, so that a class has no gradient of its own.
    """
    names: list[str] = []
    for prefix, module in net.named_modules():
        own = [name for name, _ in module.named_parameters(recurse=False)]
        if not _handled(module):
            raise UserError(
                f"gradient matching cannot take a {type(module).__name__} as in {prefix!r}: use an "
                "architecture of plain convolutions and linear layers with instance, group, layer or no norm"
            )
        if matched != "all":
            kinds = nn.Conv2d if matched == "kernels" else WEIGHED
            own = ["weight"] if isinstance(module, kinds) else []
        names += [f"{prefix}.{name}".removeprefix(".") for name in own]
    if not names:
        raise UserError(f"the network has no {matched} to match: use one with convolutions")
    return names


def _handled(module: nn.Module) -> bool:
    """Whether `_gradient` can compute the gradients of this layer's own parameters, if it has any."""
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return False
    return isinstance(module, LAYERS) or not list(module.parameters(recurse=False))


def per_class_gradients(
    net: nn.Module,
    images: Tensor,
    targets: Tensor,
    groups: int,
    matched: Matched,
    create_graph: bool,
) -> list[Tensor]:
    """The gradient of each class's mean cross-entropy in the matched parameters.

    The classes are processed a few at a time, so that a piece fits a CPU's cache or a GPU's memory: half as
    many where they do not. The network is not changed.

    Args:
        net: the network.
        images: [K*B,C,H,W], class after class, B of each.
        targets: classes int64 [K*B], or probabilities [K*B,n_classes].
        groups: number of classes, K.
        matched: which parameters, see `matched_parameters`.
        create_graph: make the gradients differentiable in images and targets; never in the network.

    Returns:
        A gradient [K,*shape] for each matched parameter, in the order of `matched_parameters`.

    Raises:
        ValueError: the images do not divide into K classes.
        UserError: the network has a layer that is not supported, or calls a layer twice.
    """
    size, rest = divmod(len(images), groups)
    if rest or not size:
        raise ValueError(f"{len(images)} images do not divide into {groups} classes")
    names = matched_parameters(net, matched)
    pieces, first, most = list[list[Tensor]](), 0, max(1, piece_size(images.device, images.shape) // size)
    while first < groups:
        k = min(most, groups - first)
        some = slice(first * size, (first + k) * size)
        try:
            pieces.append(_piece(net, names, images[some], targets[some], k, create_graph))
        except torch.OutOfMemoryError:
            if k == 1:
                raise
            most = -(-k // 2)  # the next turn begins when the failed one has let its tensors go
            continue
        first += k
    return [torch.cat(parts) for parts in zip(*pieces, strict=True)]


def check_matchable(net: nn.Module, image_shape: tuple[int, int, int], matched: Matched) -> None:
    """Check a network on the meta device, before anything is computed.

    Args:
        net: the network.
        image_shape: (C, H, W).
        matched: which parameters, see `matched_parameters`.

    Raises:
        UserError: as `per_class_gradients`.
    """
    names = matched_parameters(net, matched)
    if not isinstance(net, ExternalNetwork):  # ours are known, and a first pass on meta takes a second
        return
    try:
        _forward(net, _layers(net, names), torch.empty(1, *image_shape, device="meta"))
    except RuntimeError as error:  # such as a layer that overwrites what another gave
        raise UserError(f"gradient matching cannot take this network: {first_line(error)}") from error


def _layers(net: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    """The layers of these parameters, by name."""
    return {layer: net.get_submodule(layer) for layer, _, _ in (name.rpartition(".") for name in names)}


def _forward(
    net: nn.Module, layers: dict[str, nn.Module], images: Tensor
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The logits, and inputs and outputs of the layers; no graph to the network's own parameters."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if layer in outputs:
                raise UserError(f"gradient matching cannot take a network that calls its {layer!r} twice")
            inputs[layer] = given[0]
            outputs[layer] = output.requires_grad_()  # the first layer's may not require a gradient yet

        return hook

    hooks = [module.register_forward_hook(keep(layer)) for layer, module in layers.items()]
    try:
        with torch.enable_grad():
            weights = {name: p.detach() for name, p in net.named_parameters()}
            return functional_call(net, weights, (images,)), inputs, outputs
    finally:
        for hook in hooks:
            hook.remove()


def _piece(
    net: nn.Module, names: list[str], images: Tensor, targets: Tensor, k: int, create_graph: bool
) -> list[Tensor]:
    """`per_class_gradients` for k classes in one pass."""
    layers = _layers(net, names)
    logits, inputs, outputs = _forward(net, layers, images)
    with torch.enable_grad():
        loss = F.cross_entropy(logits, targets, reduction="sum") * (k / len(images))
    signals = torch.autograd.grad(loss, list(outputs.values()), create_graph=create_graph)
    of = dict(zip(outputs, signals, strict=True))
    with torch.set_grad_enabled(create_graph):
        where = (name.rpartition(".") for name in names)
        return [_gradient(layers[at], leaf, inputs[at], of[at], k) for at, _, leaf in where]


def _gradient(module: nn.Module, leaf: str, x: Tensor, signal: Tensor, k: int) -> Tensor:
    """Gradient [k,*shape] of a layer's weight or bias, from its input and the gradient of its output.

    It has at least float32, whatever the layer computed in.
    """
    x, signal = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, signal))
    if isinstance(module, nn.Conv2d):
        if leaf == "bias":
            return _by_class(signal, k).sum((1, 3, 4))
        x, signal = (_by_class(t, k).transpose(0, 1).flatten(1, 2) for t in (x, signal))  # [B, k*C, h, w]
        shape = (k * module.out_channels, module.in_channels, *module.kernel_size)
        weight = conv2d_weight(x, shape, signal, module.stride, module.padding, module.dilation, groups=k)
        return weight.unflatten(0, (k, -1))
    if isinstance(module, nn.Linear):
        signal = _by_class(signal, k).flatten(1, -2)
        return signal.sum(1) if leaf == "bias" else signal.mT @ _by_class(x, k).flatten(1, -2)
    if leaf == "weight":
        signal = signal * _normalised(module, x)
    if isinstance(module, nn.GroupNorm):
        return _by_class(signal, k).transpose(1, 2).flatten(2).sum(2)
    return _by_class(signal, k).sum(1)  # a layer norm over whole images


def _by_class(x: Tensor, k: int) -> Tensor:
    return x.unflatten(0, (k, -1))


def _normalised(module: nn.Module, x: Tensor) -> Tensor:
    """The output of a norm before its affine map."""
    if isinstance(module, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, eps=module.eps)
    assert isinstance(module, nn.LayerNorm)
    return F.layer_norm(x, module.normalized_shape, eps=module.eps)
