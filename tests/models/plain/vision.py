"""Convolutional networks: classification, segmentation, detection, style."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.models.plain.case import Case, normal


class DoubleConv(nn.Module):
    def __init__(self, in_channels, out_channels, mid_channels=None):
        super().__init__()
        if not mid_channels:
            mid_channels = out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.double_conv(x)


class Up(nn.Module):
    def __init__(self, in_channels, out_channels, bilinear=True):
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x, skip):
        x = self.up(x)
        dy = skip.size()[2] - x.size()[2]
        dx = skip.size()[3] - x.size()[3]
        x = F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class UNet(nn.Module):
    """Skip connections kept in a list and popped on the way up."""

    def __init__(self, channels, classes, widths=(4, 8, 16), bilinear=True):
        super().__init__()
        self.inc = DoubleConv(channels, widths[0])
        self.downs = nn.ModuleList()
        self.ups = nn.ModuleList()
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            self.downs.append(nn.Sequential(nn.MaxPool2d(2), DoubleConv(a, b)))
        for a, b in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            self.ups.append(Up(a + b if bilinear else a, b, bilinear))
        self.outc = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, x):
        skips = []
        x = self.inc(x)
        for down in self.downs:
            skips.append(x)
            x = down(x)
        for up in self.ups:
            x = up(x, skips.pop())
        return self.outc(x)


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inplanes, planes, stride=1, downsample=None, norm_layer=None):
        super().__init__()
        norm_layer = norm_layer or nn.BatchNorm2d
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = norm_layer(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = norm_layer(planes)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """Stages reached by name, norms made by functools.partial."""

    def __init__(self, block, layers, num_classes=5, norm_layer=None):
        super().__init__()
        self._norm = norm_layer or partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        self.inplanes = 8
        self.stem = nn.Sequential(
            OrderedDict(conv=nn.Conv2d(3, 8, 3, 2, 1, bias=False), norm=self._norm(8), act=nn.ReLU(True))
        )
        for i, blocks in enumerate(layers):
            setattr(self, f"layer{i + 1}", self._make_layer(block, 8 << i, blocks, stride=1 if i == 0 else 2))
        self.num_stages = len(layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear((8 << (len(layers) - 1)) * block.expansion, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def _make_layer(self, block, planes, blocks, stride=1):
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes * block.expansion, 1, stride, bias=False),
                self._norm(planes * block.expansion),
            )
        layers = [block(self.inplanes, planes, stride, downsample, self._norm)]
        self.inplanes = planes * block.expansion
        layers += [block(self.inplanes, planes, norm_layer=self._norm) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x, return_features=False):
        x = self.stem(x)
        features = OrderedDict()
        for i in range(self.num_stages):
            x = getattr(self, "layer%d" % (i + 1))(x)  # noqa: UP031
            features["res%d" % (i + 2)] = x  # noqa: UP031
        out = self.fc(torch.flatten(self.avgpool(x), 1))
        return (out, features) if return_features else out


class WithFeatures(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out, features = self.net(x, return_features=True)
        return {"logits": out, **{k: v.mean((2, 3)) for k, v in features.items()}}


class DenseLayer(nn.Sequential):
    def __init__(self, in_channels, growth_rate, bn_size, drop_rate):
        super().__init__()
        self.add_module("norm1", nn.BatchNorm2d(in_channels))
        self.add_module("relu1", nn.ReLU(inplace=True))
        self.add_module("conv1", nn.Conv2d(in_channels, bn_size * growth_rate, 1, bias=False))
        self.add_module("norm2", nn.BatchNorm2d(bn_size * growth_rate))
        self.add_module("relu2", nn.ReLU(inplace=True))
        self.add_module("conv2", nn.Conv2d(bn_size * growth_rate, growth_rate, 3, 1, 1, bias=False))
        self.drop_rate = drop_rate

    def forward(self, *inputs):
        new_features = super().forward(torch.cat(inputs, 1))
        if self.drop_rate > 0:
            new_features = F.dropout(new_features, p=self.drop_rate, training=self.training)
        return new_features


class DenseNet(nn.Module):
    def __init__(self, growth_rate=4, blocks=(2, 2), bn_size=2, drop_rate=0.1, classes=5):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 8, 3, padding=1)
        channels, self.blocks, self.transitions = 8, nn.ModuleList(), nn.ModuleList()
        for count in blocks:
            layers = [
                DenseLayer(channels + i * growth_rate, growth_rate, bn_size, drop_rate) for i in range(count)
            ]
            self.blocks.append(nn.ModuleList(layers))
            channels += count * growth_rate
            self.transitions.append(nn.Sequential(nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)))
            channels //= 2
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.conv0(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            for layer in block:
                features.append(layer(*features))
            x = transition(torch.cat(features, 1))
        return self.classifier(F.adaptive_avg_pool2d(F.relu(x, inplace=True), 1).view(x.size(0), -1))


def _make_divisible(v, divisor=8, min_value=None):
    min_value = min_value or divisor
    new_v = max(min_value, int(v + divisor / 2) // divisor * divisor)
    return new_v + divisor if new_v < 0.9 * v else new_v


class InvertedResidual(nn.Module):
    def __init__(self, inp, oup, stride, expand_ratio):
        super().__init__()
        assert stride in [1, 2], f"stride {stride}"
        hidden = _make_divisible(inp * expand_ratio)
        self.use_res_connect = stride == 1 and inp == oup
        layers = []
        if expand_ratio != 1:
            layers.extend([nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(True)])
        layers.extend(
            [
                nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(True),
                nn.Conv2d(hidden, oup, 1, bias=False),
                nn.BatchNorm2d(oup),
            ]
        )
        self.conv = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNet(nn.Module):
    settings = [[1, 8, 1, 1], [6, 16, 2, 2]]  # t, c, n, s

    def __init__(self, num_classes=4):
        super().__init__()
        features, channels = [nn.Conv2d(3, 8, 3, 2, 1)], 8
        for t, c, n, s in self.settings:
            for i in range(n):
                features.append(InvertedResidual(channels, c, s if i == 0 else 1, expand_ratio=t))
                channels = c
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes))

    def forward(self, x):
        x = self.features(x)
        x = x.mean([2, 3])
        return self.classifier(x)


class SwishFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, i):
        result = i * torch.sigmoid(i)
        ctx.save_for_backward(i)
        return result

    @staticmethod
    def backward(ctx, grad_output):
        (i,) = ctx.saved_tensors
        s = torch.sigmoid(i)
        return grad_output * (s * (1 + i * (1 - s)))


class MemoryEfficientSwish(nn.Module):
    def forward(self, x):
        return SwishFunction.apply(x)


def drop_connect(inputs, p, training):
    if not training:
        return inputs
    keep = 1 - p
    mask = keep + torch.rand([inputs.shape[0], 1, 1, 1], dtype=inputs.dtype, device=inputs.device)
    return inputs / keep * torch.floor(mask)


class MBConv(nn.Module):
    def __init__(self, channels, swish):
        super().__init__()
        self.dw = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self._se_reduce = nn.Conv2d(channels, max(1, int(channels * 0.25)), 1)
        self._se_expand = nn.Conv2d(max(1, int(channels * 0.25)), channels, 1)
        self._swish = swish()

    def forward(self, x, drop_connect_rate=None):
        inputs, x = x, self._swish(self.dw(x))
        squeezed = self._se_expand(self._swish(self._se_reduce(F.adaptive_avg_pool2d(x, 1))))
        x = torch.sigmoid(squeezed) * x
        if drop_connect_rate:
            x = drop_connect(x, p=drop_connect_rate, training=self.training)
        return x + inputs


class EfficientNet(nn.Module):
    def __init__(self, swish=nn.SiLU, blocks=3):
        super().__init__()
        self._stem = nn.Conv2d(3, 8, 3, 2, 1)
        self._blocks = nn.ModuleList([MBConv(8, swish) for _ in range(blocks)])

    def forward(self, x):
        x = self._stem(x)
        for idx, block in enumerate(self._blocks):
            rate = 0.2
            if rate:
                rate *= float(idx) / len(self._blocks)
            x = block(x, drop_connect_rate=rate)
        return x.flatten(2).mean(-1)


class Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch1 = nn.Conv2d(3, 4, 1)
        self.branch3 = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.Conv2d(3, 2, 1))
        self.aux_logits = True
        self.aux = nn.Linear(12, 3)

    def _branches(self, x):
        return [self.branch1(x), self.branch3(x), self.branch_pool(x)]

    def forward(self, x):
        out = torch.cat(self._branches(x), 1)
        aux = self.aux(out.mean((2, 3))) if self.aux_logits else None
        return out, aux


class VGG(nn.Module):
    cfgs = {"A": [4, "M", 8, "M"], "B": [4, 4, "M", 8, 8, "M"]}

    def __init__(self, name="B"):
        super().__init__()
        layers, c = [], 3
        for v in self.cfgs[name]:
            if v == "M":
                layers += [nn.MaxPool2d(2, 2)]
            else:
                layers += [nn.Conv2d(c, v, 3, padding=1), nn.ReLU(inplace=True)]
                c = v
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(8 * 4 * 4, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 3)
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(-1, self.num_flat_features(x)))

    def num_flat_features(self, x):
        n = 1
        for s in x.size()[1:]:
            n *= s
        return n


class FPN(nn.Module):
    def __init__(self, widths=(4, 8, 16), out=6):
        super().__init__()
        self.stages = nn.ModuleList(
            [nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((3, *widths[:-1]), widths, strict=True)]
        )
        self.lateral = nn.ModuleList([nn.Conv2d(w, out, 1) for w in widths])
        self.smooth = nn.ModuleDict({f"p{i}": nn.Conv2d(out, out, 3, padding=1) for i in range(len(widths))})

    def _upsample_add(self, x, y):
        _, _, h, w = y.size()
        return F.interpolate(x, size=(h, w), mode="nearest") + y

    def forward(self, x):
        cs = []
        for stage in self.stages:
            x = F.relu(stage(x))
            cs.append(x)
        laterals = [conv(c) for conv, c in zip(self.lateral, cs, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = self._upsample_add(laterals[i], laterals[i - 1])
        return tuple(self.smooth[f"p{i}"](p) for i, p in enumerate(laterals))


class YoloHead(nn.Module):
    """Anchors and a grid that is made again when the feature map's size changes."""

    def __init__(self, anchors=((10, 13), (16, 30)), nc=3, stride=8):
        super().__init__()
        self.nc, self.no, self.na = nc, nc + 5, len(anchors)
        self.stride = stride
        self.grid = torch.zeros(1)
        self.register_buffer("anchors", torch.tensor(anchors).float())
        self.m = nn.Conv2d(4, self.no * self.na, 1)

    def forward(self, x):
        x = self.m(x)
        bs, _, ny, nx = x.shape
        x = x.view(bs, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
        if self.grid.shape[2:4] != x.shape[2:4]:
            self.grid = self._make_grid(nx, ny).to(x.device)
        y = x.sigmoid()
        y[..., 0:2] = (y[..., 0:2] * 2.0 - 0.5 + self.grid) * self.stride
        y[..., 2:4] = (y[..., 2:4] * 2) ** 2 * self.anchors.view(1, self.na, 1, 1, 2)
        return y.view(bs, -1, self.no)

    @staticmethod
    def _make_grid(nx=20, ny=20):
        yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
        return torch.stack((xv, yv), 2).view((1, 1, ny, nx, 2)).float()


class SSDBoxes(nn.Module):
    """Prior boxes made with Python and math, as a tensor literal; decoded predictions."""

    def __init__(self, sizes=(0.2, 0.4), ratios=(2, 0.5)):
        super().__init__()
        self.sizes, self.ratios = sizes, ratios
        self.loc = nn.Conv2d(3, len(sizes) * len(ratios) * 4, 3, padding=1)

    def priors(self, h, w):
        boxes = []
        for i in range(h):
            for j in range(w):
                for s in self.sizes:
                    for r in self.ratios:
                        boxes.append([(j + 0.5) / w, (i + 0.5) / h, s * math.sqrt(r), s / math.sqrt(r)])
        return torch.tensor(boxes).clamp_(min=0, max=1)

    def forward(self, x):
        loc = self.loc(x).permute(0, 2, 3, 1).reshape(x.size(0), -1, 4)
        priors = self.priors(x.size(2), x.size(3)).to(x)
        centers = priors[:, :2] + loc[..., :2] * 0.1 * priors[:, 2:]
        sizes = priors[:, 2:] * torch.exp(loc[..., 2:] * 0.2)
        return torch.cat((centers - sizes / 2, centers + sizes / 2), -1)


class GramStyle(nn.Module):
    """Losses kept on the layers, as tutorials on style transfer do."""

    class StyleLoss(nn.Module):
        def __init__(self, target):
            super().__init__()
            self.target = GramStyle.gram(target).detach()

        def forward(self, x):
            self.loss = F.mse_loss(GramStyle.gram(x), self.target)
            return x

    @staticmethod
    def gram(x):
        a, b, c, d = x.size()
        features = x.view(a * b, c * d)
        return torch.mm(features, features.t()).div(a * b * c * d)

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.loss1 = GramStyle.StyleLoss(torch.randn(2, 4, 6, 6))
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.loss2 = GramStyle.StyleLoss(torch.randn(2, 4, 4, 4))

    def forward(self, x):
        for child in self.children():
            x = child(x)
        score = 0
        for m in self.modules():
            if isinstance(m, GramStyle.StyleLoss):
                score += m.loss
        return score


class CBAM(nn.Module):
    class ChannelGate(nn.Module):
        def __init__(self, channels, reduction=2, pool_types=("avg", "max")):
            super().__init__()
            self.mlp = nn.Sequential(
                nn.Flatten(),
                nn.Linear(channels, channels // reduction),
                nn.ReLU(),
                nn.Linear(channels // reduction, channels),
            )
            self.pool_types = list(pool_types)

        def forward(self, x):
            total = None
            for pool_type in self.pool_types:
                if pool_type == "avg":
                    raw = self.mlp(F.avg_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
                elif pool_type == "max":
                    raw = self.mlp(F.max_pool2d(x, (x.size(2), x.size(3)), stride=(x.size(2), x.size(3))))
                else:
                    raise ValueError(pool_type)
                total = raw if total is None else total + raw
            return x * torch.sigmoid(total).unsqueeze(2).unsqueeze(3).expand_as(x)

    def __init__(self, channels=4):
        super().__init__()
        self.gate = CBAM.ChannelGate(channels)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        x = self.gate(x)
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * self.spatial(pooled).sigmoid()


class ShuffleUnit(nn.Module):
    def __init__(self, channels=8, groups=4):
        super().__init__()
        self.groups = groups
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=groups)
        self.conv2 = nn.Conv2d(channels // 2, channels // 2, 3, padding=1, groups=channels // 2)

    @staticmethod
    def channel_shuffle(x, groups: int):
        b, c, h, w = x.data.size()
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)

    def forward(self, x):
        x = self.channel_shuffle(F.relu(self.conv1(x)), self.groups)
        x1, x2 = x.chunk(2, dim=1)
        return torch.cat((x1, self.conv2(x2)), dim=1)


class SuperResolution(nn.Module):
    def __init__(self, scale=4, feats=8):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.head = nn.Conv2d(3, feats, 3, padding=1)
        body = [nn.Conv2d(feats, feats, 3, padding=1) for _ in range(2)]
        self.body = nn.Sequential(*body)
        ups = []
        if (scale & (scale - 1)) == 0:
            for _ in range(int(math.log(scale, 2))):
                ups += [nn.Conv2d(feats, 4 * feats, 3, padding=1), nn.PixelShuffle(2)]
        self.tail = nn.Sequential(*ups, nn.Conv2d(feats, 3, 3, padding=1))
        self.res_scale = 0.1

    def forward(self, x):
        x = self.head(x - self.mean)
        res = self.body(x).mul(self.res_scale)
        res += x
        return self.tail(res).add_(self.mean).clamp_(0, 1)


class ASPP(nn.Module):
    def __init__(self, rates=(1, 2, 3)):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3, padding=r, dilation=r) for r in rates])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1))
        self.project = nn.Conv2d(4 * (len(rates) + 1), 2, 1)

    def forward(self, x):
        size = x.shape[-2:]
        res = [conv(x) for conv in self.convs]
        res.append(F.interpolate(self.pool(x), size=size, mode="bilinear", align_corners=False))
        return {"out": self.project(torch.cat(res, dim=1)), "size": tuple(size)}


class STN(nn.Module):
    def __init__(self):
        super().__init__()
        self.localization = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2, 2), nn.ReLU(True))
        self.fc_loc = nn.Linear(4 * 6 * 6, 3 * 2)
        self.fc_loc.weight.data.zero_()
        self.fc_loc.bias.data.copy_(torch.tensor([1, 0, 0, 0, 1, 0], dtype=torch.float))

    def stn(self, x):
        theta = self.fc_loc(self.localization(x).view(-1, 4 * 6 * 6)).view(-1, 2, 3)
        grid = F.affine_grid(theta, x.size(), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def forward(self, x):
        return self.stn(x).flatten(1).log_softmax(dim=1)


class CapsNet(nn.Module):
    """Dynamic routing: a loop over detached logits."""

    def __init__(self, in_caps=6, out_caps=3, in_dim=4, out_dim=5, num_routes=3):
        super().__init__()
        self.num_routes = num_routes
        self.W = nn.Parameter(0.1 * torch.randn(1, in_caps, out_caps, out_dim, in_dim))

    @staticmethod
    def squash(s, dim=-1):
        norm2 = (s**2).sum(dim=dim, keepdim=True)
        return norm2 / (1 + norm2) * s / (torch.sqrt(norm2) + 1e-8)

    def forward(self, x):
        batch_size = x.size(0)
        u_hat = torch.matmul(self.W, x[:, :, None, :, None]).squeeze(-1)
        u_hat_detached = u_hat.detach()
        b = torch.zeros(batch_size, self.W.size(1), self.W.size(2), 1, device=x.device)
        for route in range(self.num_routes):
            c = F.softmax(b, dim=2)
            if route == self.num_routes - 1:
                v = self.squash((c * u_hat).sum(dim=1))
            else:
                v = self.squash((c * u_hat_detached).sum(dim=1))
                b = b + (u_hat_detached * v.unsqueeze(1)).sum(-1, keepdim=True)
        return v.norm(dim=-1), v


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        )
        self.fc = nn.Linear(4 * 8 * 8, 5)

    def forward_once(self, x):
        return self.fc(self.cnn(x).view(x.size()[0], -1))

    def forward(self, input1, input2, margin=2.0):
        output1, output2 = self.forward_once(input1), self.forward_once(input2)
        distance = F.pairwise_distance(output1, output2)
        loss = torch.mean(distance.pow(2) + torch.pow(torch.clamp(margin - distance, min=0.0), 2))
        return output1, output2, loss


class HighResolution(nn.Module):
    """Fuse layers in a list of lists, with None on the diagonal."""

    def __init__(self, channels=(4, 8)):
        super().__init__()
        fuse = []
        for i, out in enumerate(channels):
            row = []
            for j, inp in enumerate(channels):
                if j == i:
                    row.append(None)
                elif j > i:
                    row.append(nn.Sequential(nn.Conv2d(inp, out, 1), nn.Upsample(scale_factor=2 ** (j - i))))
                else:
                    row.append(nn.Conv2d(inp, out, 3, 2, 1))
            fuse.append(nn.ModuleList(row))
        self.fuse_layers = nn.ModuleList(fuse)
        self.num_branches = len(channels)

    def forward(self, x):
        x_fuse = []
        for i in range(self.num_branches):
            y = x[0] if i == 0 else self.fuse_layers[i][0](x[0])
            for j in range(1, self.num_branches):
                y = y + (x[j] if i == j else self.fuse_layers[i][j](x[j]))
            x_fuse.append(F.relu(y))
        return x_fuse


class BlurPool(nn.Module):
    """A filter made with numpy in the constructor, pads chosen from a table of functions."""

    def __init__(self, channels=3, filt_size=3, stride=2):
        super().__init__()
        a = np.array({2: [1.0, 1.0], 3: [1.0, 2.0, 1.0]}[filt_size])
        filt = torch.Tensor(a[:, None] * a[None, :])
        filt = filt / torch.sum(filt)
        self.register_buffer("filt", filt[None, None, :, :].repeat((channels, 1, 1, 1)))
        self.pad = {"reflect": nn.ReflectionPad2d, "zero": nn.ZeroPad2d}["reflect"]([1, 1, 1, 1])
        self.stride = stride

    def forward(self, inp):
        return F.conv2d(self.pad(inp), self.filt, stride=self.stride, groups=inp.shape[1])


CASES = {
    "unet": Case(lambda: UNet(3, 2), normal(2, 3, 16, 16)),
    "unet_transposed": Case(lambda: UNet(3, 2, (4, 8), bilinear=False), normal(1, 3, 10, 10)),
    "resnet": Case(lambda: ResNet(BasicBlock, [1, 2]), normal(2, 3, 16, 16)),
    "resnet_features": Case(lambda: WithFeatures(ResNet(BasicBlock, [1, 1, 1])), normal(2, 3, 16, 16)),
    "resnet_training": Case(lambda: ResNet(BasicBlock, [1, 1]), normal(2, 3, 16, 16), training=True),
    "densenet": Case(DenseNet, normal(2, 3, 16, 16)),
    "mobilenet": Case(MobileNet, normal(2, 3, 16, 16)),
    "efficientnet": Case(EfficientNet, normal(2, 3, 16, 16)),
    "efficientnet_training": Case(EfficientNet, normal(2, 3, 16, 16), training=True),
    "efficientnet_function": Case(lambda: EfficientNet(MemoryEfficientSwish), normal(2, 3, 16, 16)),
    "inception": Case(Inception, normal(2, 3, 8, 8)),
    "vgg": Case(VGG, normal(2, 3, 16, 16)),
    "fpn": Case(FPN, normal(2, 3, 16, 16)),
    "yolo_head": Case(YoloHead, normal(2, 4, 5, 6)),
    "ssd_boxes": Case(SSDBoxes, normal(2, 3, 3, 2)),
    "gram_style": Case(GramStyle, normal(2, 3, 8, 8)),
    "cbam": Case(CBAM, normal(2, 4, 8, 8)),
    "shuffle": Case(ShuffleUnit, normal(2, 8, 6, 6)),
    "super_resolution": Case(SuperResolution, normal(1, 3, 6, 6)),
    "aspp": Case(ASPP, normal(1, 3, 9, 9)),
    "spatial_transformer": Case(STN, normal(2, 1, 16, 16)),
    "capsules": Case(CapsNet, normal(2, 6, 4)),
    "siamese": Case(
        Siamese, lambda g: (torch.randn(2, 1, 8, 8, generator=g), torch.randn(2, 1, 8, 8, generator=g))
    ),
    "high_resolution": Case(
        HighResolution,
        lambda g: ([torch.randn(1, 4, 8, 8, generator=g), torch.randn(1, 8, 4, 4, generator=g)],),
    ),
    "blur_pool": Case(BlurPool, normal(1, 3, 8, 8)),
}
