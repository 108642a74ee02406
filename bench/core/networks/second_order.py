"""The layers of the field's ConvNet, made fast to differentiate twice where the channels stand last.

That layout is the fast one on a CPU, see `laid_out`. But there torch takes the double backward of a kernel by
a convolution whose own kernel is as large as the map, that of a group norm through a graph of forty
operations, and adds maps of zeros for what a ReLU and a pooling do not depend on. In the usual layout the
layers here are torch's own, to the last bit.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bench.core.transfer import device_kind


def channels_last(x: Tensor) -> bool:
    """Whether the channels of maps [N,C,H,W] stand last in memory, and the layers here take them.

    Under autocast torch's own layers do: they keep what they were given, and these would have to cast it.
    """
    last = x.stride(1) == 1 and not x.is_contiguous()
    return last and (x.is_meta or not torch.is_autocast_enabled(x.device.type))  # meta has none


def laid_out(images: Tensor) -> Tensor:
    """Images [N,C,H,W] in the layout in which the networks here are fast: channels last on a CPU."""
    return images.clone(memory_format=torch.channels_last) if device_kind(images.device) == "cpu" else images


class Conv2d(nn.Conv2d):
    """torch's convolution, in one group and undilated."""

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,width,H',W']."""
        if not channels_last(x):
            return super().forward(x)
        return _Conv.apply(x, self.weight, self.bias, self.stride, self.padding)


def _asked(ctx: Any) -> list[bool]:
    """Which of its first three inputs' derivatives the running backward pass needs.

    `needs_input_grad` says which could be asked for. Of a leaf torch tells only that.
    """
    nodes = [node for node, _ in ctx.next_functions] + [None]  # a missing bias has none
    return [
        needed and (hasattr(node, "variable") or torch._C._will_engine_execute_node(node))
        for needed, node in zip(ctx.needs_input_grad[:3], nodes, strict=False)
    ]


class _Conv(Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any) -> Tensor:
        return torch.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.where = inputs[3:]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        return *_ConvBackward.apply(g, x, weight, *ctx.where, _asked(ctx)), None, None


class _ConvBackward(Function):
    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, needed: Any) -> Any:
        return _conv_backward(g, x, weight, stride, padding, needed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:3])
        ctx.where = inputs[3:5]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, s: Tensor | None, t: Tensor | None) -> tuple[Any, ...]:
        (g, x, weight), (stride, padding), needed = ctx.saved_tensors, ctx.where, _asked(ctx)
        d_g = d_x = d_weight = None
        if t is not None and s is None:
            s = torch.zeros_like(weight)
        if needed[0] and u is not None:
            d_g = torch.conv2d(u, weight, None, stride, padding)
        if needed[0] and s is not None:
            along = torch.conv2d(x, s, t, stride, padding)
            d_g = along if d_g is None else d_g.add_(along)
        if needed[1] and s is not None:
            d_x, _, _ = _conv_backward(g, x, s, stride, padding, [True, False, False])
        if needed[2] and u is not None:
            _, d_weight, _ = _conv_backward(g, u, weight, stride, padding, [False, True, False])
        return d_g, d_x, d_weight, None, None, None


def _conv_backward(
    g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, needed: Sequence[bool]
) -> Any:
    return torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], stride, padding, (1, 1), False, (0, 0), 1, needed
    )


class InstanceNorm(nn.GroupNorm):
    """A group norm with one channel per group, which works under vmap.

    Args:
        width: number of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[N,width,H,W] -> [N,width,H,W]."""
        if not channels_last(x):
            return super().forward(x)
        return _Norm.apply(x, self.weight.view(-1, 1, 1), self.bias.view(-1, 1, 1), self.eps)[0]


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


class _Norm(Function):
    """weight y + bias, with y = r (x - <x>), r = (<(x - <x>)^2> + eps)^(-1/2), and <> over a map's pixels.

    What `_NormBackward` sends back along y is already the derivative in x, so that x need not be kept.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        y = x - _mean(x)
        r = (_mean(y.square()) + eps).rsqrt()
        y *= r
        return torch.addcmul(bias, y, weight), y, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, y, r = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(r)
        ctx.save_for_backward(inputs[1], y, r)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, along_y: Tensor | None, _: None) -> tuple[Any, ...]:
        if g is None:
            return along_y, None, None, None
        d_x, d_weight, d_bias, *_ = _NormBackward.apply(g, *ctx.saved_tensors)
        return d_x if along_y is None else d_x.add_(along_y), d_weight, d_bias, None


class _NormBackward(Function):
    """r weight (g - <g> - y <g y>), and the sums of g y and of g."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, y: Tensor, r: Tensor) -> tuple[Tensor, ...]:
        n = g.shape[2] * g.shape[3]
        m, my = _mean(g), _mean(g * y)
        d_x = torch.addcmul(g, y, my, value=-1).sub_(m).mul_(r * weight)
        return d_x, n * my.sum(0), n * m.sum(0), m, my

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, *output[3:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor | None, s: Tensor | None, t: Tensor | None, *_: Any) -> tuple[Any, ...]:
        g, weight, y, r, mg, mgy = ctx.saved_tensors
        u = torch.zeros_like(g) if u is None else u
        s, t = (torch.zeros_like(weight) if v is None else v for v in (s, t))
        n = g.shape[2] * g.shape[3]
        mu, muy = _mean(u), _mean(u * y)
        k = _mean(u * g) - mu * mg - muy * mgy
        a = r * weight
        b = s - a * muy
        d_g = torch.addcmul(t - a * mu, y, b).addcmul_(u, a)
        c = 2 * a * muy * mgy - s * mgy - a * k
        e = a * (mu * mgy + mg * muy) - s * mg
        d_x = torch.addcmul(r * e, y, r * c).addcmul_(g, r * b).addcmul_(u, -r * a * mgy)
        return d_g, n * (r * k).sum(0), d_x, None


class ReLU(nn.ReLU):
    """torch's, not in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return _Relu.apply(x) if x.ndim == 4 and channels_last(x) else super().forward(x)


class _Relu(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.ops.aten.threshold_backward(g, ctx.saved_tensors[0].detach(), 0)


class AvgPool2d(nn.AvgPool2d):
    """torch's, of 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """[N,C,H,W] -> [N,C,H/2,W/2]."""
        even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        return _Pool.apply(x) if even and (channels_last(x) or _large(x)) else super().forward(x)


LARGE = 2**17  # values of maps from which the ways below pay on a CPU
PIECE = 2**20  # values of maps that stay in its cache meanwhile


def _large(x: Tensor) -> bool:
    """Whether torch's pooling, which adds pixel by pixel, takes 2 to 5 times as long as `_pool` does."""
    return x.device.type == "cpu" and x.is_contiguous() and x.numel() >= LARGE


def _pieces(x: Tensor, values: int) -> tuple[Tensor, ...]:
    return x.split(max(1, values // max(1, x[0].numel())))


def _pool(x: Tensor) -> Tensor:
    """Maps [N,C,H,W] -> [N,C,H/2,W/2] by long additions in torch's order, so that every bit is torch's."""
    flat, half = x.view(-1), x.shape[3] // 2
    even, odd = (flat[i::2].contiguous().view(-1, 2, half) for i in (0, 1))
    total = even[:, 0] + odd[:, 0]
    total += even[:, 1]
    total += odd[:, 1]
    return total.div_(4).view(*x.shape[:2], -1, half)


class _Pool(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.cat([_pool(piece) for piece in _pieces(x, PIECE)]) if _large(x) else F.avg_pool2d(x, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return _Spread.apply(g)


class _Spread(Function):
    """The transpose of `_Pool`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor) -> Tensor:
        if channels_last(g) or g.device.type != "cpu":
            return F.interpolate(g / 4, scale_factor=2)
        n, channels, h, w = g.shape
        out = g.new_empty(n, channels * h, 2, w, 2)
        rows = g.reshape(n, channels * h, w)
        for piece, spread in zip(_pieces(rows, PIECE // 32), _pieces(out, PIECE // 8), strict=True):
            spread[:, :, 0, :, 0] = piece / 4
            spread[:, :, 0, :, 1] = spread[:, :, 0, :, 0]
            spread[:, :, 1] = spread[:, :, 0]
        return out.view(n, channels, 2 * h, 2 * w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Tensor:
        return _Pool.apply(u)
