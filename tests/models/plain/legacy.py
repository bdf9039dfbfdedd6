"""Code from before torch 1.0 that still runs, and values that leave the graph: .data, numpy, item."""

from __future__ import annotations

import math
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.autograd import Variable
from torch.nn.parameter import Parameter

from tests.models.plain.case import Case, normal, tokens

USE_CUDA = torch.cuda.is_available()
FloatTensor = torch.cuda.FloatTensor if USE_CUDA else torch.FloatTensor


class OldRNN(nn.Module):
    def __init__(self, input_size=4, hidden_size=5, n_layers=2):
        super().__init__()
        self.n_layers, self.hidden_size = n_layers, hidden_size
        self.gru = nn.GRU(input_size, hidden_size, n_layers)

    def init_hidden(self, batch):
        hidden = Variable(torch.zeros(self.n_layers, batch, self.hidden_size))
        return hidden.cuda() if USE_CUDA else hidden

    def forward(self, x):
        output, hidden = self.gru(x, self.init_hidden(x.size(1)))
        return output, hidden


class WeightDrop(nn.Module):
    """Raw weights kept aside, dropped ones set on the module in each call."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(4, 4)
        w = self.module.weight
        del self.module._parameters["weight"]
        self.module.register_parameter("weight_raw", Parameter(w.data))

    def forward(self, *args):
        raw_w = self.module.weight_raw
        self.module.weight = F.dropout(raw_w, p=0.3, training=self.training)
        return self.module.forward(*args)


class DataShapes(nn.Module):
    """Shapes and values read through .data."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        n, d = x.data.shape
        mask = (x.data > 0).float()
        y = self.fc(x) * Variable(mask)
        noise = y.data.new(y.size()).fill_(0.1)
        return y + noise, y.data.new_zeros(n, d), y.data.clone().mul(2)


class DataWrites(nn.Module):
    """Weights clipped and normalized in place through .data at each call."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        self.fc.weight.data.clamp_(-0.3, 0.3)
        norm = self.fc.weight.data.norm(2, 1, keepdim=True)
        self.fc.weight.data = self.fc.weight.data / norm.expand_as(self.fc.weight.data)
        return self.fc(x)


class TypedTensors(nn.Module):
    """Tensors by legacy constructors: sizes, lists, other types."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        ids = torch.LongTensor([0, 2, 1])
        w = FloatTensor([[0.1, 0.2, 0.3, 0.4]])
        z = torch.FloatTensor(x.size(0), 4).fill_(0.5)
        t = torch.Tensor([math.pi]).type_as(x)
        k = torch.ByteTensor([1, 0, 1, 1]).type(torch.bool)
        y = self.fc(x).index_select(1, ids)
        return y, w * z + t, x[:, k], x.new([1, 2, 3, 4]) * x, x.type("torch.DoubleTensor"), x.type()


class Upsampled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        h, w = x.size()[2:]
        y = F.interpolate(self.conv(x), size=(int(h * 1.5), int(w / 2)), mode="bilinear", align_corners=True)
        return (
            F.max_pool2d(y, kernel_size=y.size()[2:]).view(y.size(0), -1),
            nn.Softmax(dim=1)(y),
            nn.ReLU()(y),
        )


class NumpyMath(nn.Module):
    """numpy on Python numbers and constants only."""

    def __init__(self):
        super().__init__()
        self.fc, self.sizes = nn.Linear(4, 4), np.array([2, 4])
        self.scale = np.sqrt(4.0)

    def forward(self, x):
        total = int(np.prod(x.size()[1:]))
        x = x.view(-1, total) * np.sqrt(total) / np.float32(2.0)
        steps = int(np.ceil(np.log2(total)))
        for i in np.arange(steps):
            x = self.fc(x) * float(i + 1)
        return x * self.scale + np.pi + int(self.sizes[0])


class NumpyTensors(nn.Module):
    """Data through numpy arrays and back."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table = np.linspace(0, 1, 4, dtype=np.float32)

    def forward(self, x):
        y = self.fc(x)
        a = y.detach().cpu().numpy()
        order = np.argsort(a.sum(0))
        return y[:, torch.from_numpy(order.copy())] + torch.from_numpy(self.table), float(a.mean())


class NumpyConstants(nn.Module):
    """Constant arrays made in forward and turned into tensors."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.grid = np.linspace(-1, 1, 4)

    def forward(self, x):
        mask = torch.from_numpy(np.triu(np.ones((4, 4)), k=1).astype("float32"))
        return (
            self.fc(x) @ mask
            + torch.tensor(self.grid, dtype=torch.float32)
            + torch.as_tensor(np.zeros(4)).float()
        )


class Items(nn.Module):
    """Python numbers out of tensors, used in arithmetic and as sizes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, lengths):
        y = self.fc(x)
        longest = lengths.max().item()
        scale = y.abs().max().item()
        return y[:, :longest] / scale, int(lengths.sum()), lengths.tolist()


class Branches(nn.Module):
    """Branches on values of tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        if x.sum() > 0:
            x = self.a(x)
        else:
            x = self.b(x)
        if torch.isnan(x).any():
            raise ValueError("nan")
        while x.norm() > 10:
            x = x / 2
        return x


class Validated(nn.Module):
    """Checks of values that always pass."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(12, 4)

    def forward(self, ids):
        assert ids.min() >= 0 and ids.max() < 12, "out of range"
        x = self.emb(ids)
        assert not torch.isnan(x).any()
        if not torch.all(torch.isfinite(x)):
            x = torch.nan_to_num(x)
        return x


class StochasticDepth(nn.Module):
    """Layers skipped by random numbers, of Python, numpy and torch."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            draw = (random.random, np.random.uniform, lambda: torch.rand(1).item())[i]()
            if self.training and draw < 0.5:
                continue
            x = layer(x)
        return x


class CutMix(nn.Module):
    """Boxes and a permutation from numpy's random numbers."""

    def __init__(self, alpha=1.0):
        super().__init__()
        self.conv, self.alpha = nn.Conv2d(3, 2, 1), alpha

    def forward(self, x):
        lam = np.random.beta(self.alpha, self.alpha)
        index = torch.randperm(x.size(0))
        cx, cy = np.random.randint(x.size(2)), np.random.randint(x.size(3))
        x = x.clone()
        x[:, :, :cx, :cy] = x[index, :, :cx, :cy]
        return self.conv(lam * x + (1 - lam) * x[index])


class MultiBoxLoss(nn.Module):
    """Hard negatives by sorting, masks that change shapes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x, labels):
        conf = self.fc(x)
        pos = labels > 0
        loss_c = torch.logsumexp(conf, 1, keepdim=True) - conf.gather(1, labels.view(-1, 1))
        loss_c[pos] = 0
        _, loss_idx = loss_c.view(-1).sort(0, descending=True)
        _, idx_rank = loss_idx.sort(0)
        num_neg = torch.clamp(3 * pos.long().sum(), max=pos.size(0) - 1)
        neg = idx_rank < num_neg.expand_as(idx_rank)
        chosen = (pos | neg).nonzero().squeeze(1)
        return F.cross_entropy(conf[chosen], labels[chosen], reduction="sum") / pos.sum().float()


class CenterLoss(nn.Module):
    def __init__(self, classes=3, dim=4):
        super().__init__()
        self.num_classes = classes
        self.centers = nn.Parameter(torch.randn(classes, dim))

    def forward(self, x, labels):
        batch_size = x.size(0)
        distmat = (
            torch.pow(x, 2).sum(dim=1, keepdim=True).expand(batch_size, self.num_classes)
            + torch.pow(self.centers, 2).sum(dim=1, keepdim=True).expand(self.num_classes, batch_size).t()
        )
        distmat = torch.addmm(distmat, x, self.centers.t(), beta=1, alpha=-2)
        classes = torch.arange(self.num_classes).long()
        mask = (
            labels.unsqueeze(1)
            .expand(batch_size, self.num_classes)
            .eq(classes.expand(batch_size, self.num_classes))
        )
        return (distmat * mask.float()).clamp(min=1e-12, max=1e12).sum() / batch_size


class FocalLoss(nn.Module):
    def __init__(self, gamma=2, alpha=0.25, size_average=True):
        super().__init__()
        self.gamma, self.alpha, self.size_average = gamma, alpha, size_average
        if isinstance(alpha, (float, int)):
            self.alpha = torch.Tensor([alpha, 1 - alpha])
        self.fc = nn.Linear(4, 2)

    def forward(self, x, target):
        logpt = F.log_softmax(self.fc(x), dim=1).gather(1, target.view(-1, 1)).view(-1)
        pt = Variable(logpt.data.exp())
        if self.alpha is not None:
            if self.alpha.type() != x.data.type():
                self.alpha = self.alpha.type_as(x.data)
            logpt = logpt * Variable(self.alpha.gather(0, target.data.view(-1)))
        loss = -1 * (1 - pt) ** self.gamma * logpt
        return loss.mean() if self.size_average else loss.sum()


class TripletLoss(nn.Module):
    """Hardest pairs per row, found in a Python loop with masks."""

    def __init__(self, margin=0.3):
        super().__init__()
        self.ranking_loss = nn.MarginRankingLoss(margin=margin)

    def forward(self, inputs, targets):
        n = inputs.size(0)
        dist = torch.pow(inputs, 2).sum(dim=1, keepdim=True).expand(n, n)
        dist = dist + dist.t()
        dist = dist.addmm(inputs, inputs.t(), beta=1, alpha=-2).clamp(min=1e-12).sqrt()
        mask = targets.expand(n, n).eq(targets.expand(n, n).t())
        dist_ap, dist_an = [], []
        for i in range(n):
            dist_ap.append(dist[i][mask[i]].max().unsqueeze(0))
            dist_an.append(dist[i][mask[i] == 0].min().unsqueeze(0))
        dist_ap, dist_an = torch.cat(dist_ap), torch.cat(dist_an)
        return self.ranking_loss(dist_an, dist_ap, torch.ones_like(dist_an)), (
            dist_an > dist_ap
        ).float().mean()


class ArcMargin(nn.Module):
    def __init__(self, i=4, o=5, s=30.0, m=0.5, easy_margin=False):
        super().__init__()
        self.weight = Parameter(torch.FloatTensor(o, i))
        nn.init.xavier_uniform_(self.weight)
        self.s, self.easy_margin = s, easy_margin
        self.cos_m, self.sin_m, self.th, self.mm = (
            math.cos(m),
            math.sin(m),
            math.cos(math.pi - m),
            math.sin(math.pi - m) * m,
        )

    def forward(self, input, label):
        cosine = F.linear(F.normalize(input), F.normalize(self.weight))
        sine = torch.sqrt((1.0 - torch.pow(cosine, 2)).clamp(0, 1))
        phi = cosine * self.cos_m - sine * self.sin_m
        phi = (
            torch.where(cosine > 0, phi, cosine)
            if self.easy_margin
            else torch.where(cosine > self.th, phi, cosine - self.mm)
        )
        one_hot = torch.zeros(cosine.size(), device=input.device)
        one_hot.scatter_(1, label.view(-1, 1).long(), 1)
        return ((one_hot * phi) + ((1.0 - one_hot) * cosine)) * self.s


class DiceLoss(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, input, target, weights=None):
        num, total = input.size(1), 0.0
        for i in range(num):
            a, b = input[:, i].contiguous().view(-1).sigmoid(), target[:, i].contiguous().view(-1)
            loss = 1 - (2.0 * (a * b).sum() + 1e-5) / (a.sum() + b.sum() + 1e-5)
            if weights is not None:
                loss *= weights[i]
            total += loss
        return total / num


class SSIM(nn.Module):
    """A window made at the first call and kept while size and type stay."""

    def __init__(self, window_size=3, size_average=True):
        super().__init__()
        self.window_size, self.size_average, self.channel = window_size, size_average, 1
        self.window = self.create_window(window_size, 1)

    @staticmethod
    def gaussian(window_size, sigma):
        gauss = torch.Tensor(
            [math.exp(-((x - window_size // 2) ** 2) / float(2 * sigma**2)) for x in range(window_size)]
        )
        return gauss / gauss.sum()

    @classmethod
    def create_window(cls, window_size, channel):
        one = cls.gaussian(window_size, 1.5).unsqueeze(1)
        two = one.mm(one.t()).float().unsqueeze(0).unsqueeze(0)
        return Variable(two.expand(channel, 1, window_size, window_size).contiguous())

    def forward(self, img1, img2):
        (_, channel, _, _) = img1.size()
        if channel == self.channel and self.window.data.type() == img1.data.type():
            window = self.window
        else:
            window = self.create_window(self.window_size, channel)
            if img1.is_cuda:
                window = window.cuda(img1.get_device())
            window = window.type_as(img1)
            self.window, self.channel = window, channel
        mu1, mu2 = (F.conv2d(i, window, padding=1, groups=channel) for i in (img1, img2))
        sigma12 = F.conv2d(img1 * img2, window, padding=1, groups=channel) - mu1 * mu2
        ssim_map = (2 * mu1 * mu2 + 0.01**2) * (2 * sigma12 + 0.03**2) / (mu1.pow(2) + mu2.pow(2) + 0.01**2)
        return ssim_map.mean() if self.size_average else ssim_map.mean(1).mean(1).mean(1)


def _labelled(*shape, labels=3):
    return lambda g: (torch.randn(*shape, generator=g), torch.randint(0, labels, shape[:1], generator=g))


def _two(*shape):
    return lambda g: (torch.randn(*shape, generator=g), torch.rand(*shape, generator=g))


CASES = {
    "old_rnn": Case(OldRNN, normal(3, 2, 4)),
    "weight_drop": Case(WeightDrop, normal(2, 4)),
    "weight_drop_training": Case(WeightDrop, normal(2, 4), training=True),
    "data_shapes": Case(DataShapes, normal(2, 4)),
    "data_writes": Case(DataWrites, normal(2, 4)),
    "typed_tensors": Case(TypedTensors, normal(2, 4)),
    "upsampled": Case(Upsampled, normal(1, 3, 6, 6)),
    "numpy_math": Case(NumpyMath, normal(2, 2, 2), kept=False),
    "numpy_tensors": Case(NumpyTensors, normal(2, 4), kept=False),
    "numpy_constants": Case(NumpyConstants, normal(2, 4), kept=False),
    "items": Case(Items, lambda g: (torch.randn(2, 4, generator=g), torch.tensor([1, 3])), changes=True),
    "branches": Case(Branches, normal(2, 4), changes=True),
    "validated": Case(Validated, tokens(12, 2, 3), changes=True),
    "stochastic_depth": Case(StochasticDepth, normal(2, 4), kept=False),
    "stochastic_depth_training": Case(StochasticDepth, normal(2, 4), training=True, kept=False),
    "cut_mix": Case(CutMix, normal(2, 3, 4, 4), kept=False),
    "multi_box_loss": Case(
        MultiBoxLoss,
        lambda g: (torch.randn(6, 4, generator=g), torch.tensor([0, 1, 0, 2, 0, 0])),
        changes=True,
    ),
    "center_loss": Case(CenterLoss, _labelled(4, 4)),
    "focal_loss": Case(FocalLoss, _labelled(4, 4, labels=2)),
    "triplet_loss": Case(
        TripletLoss, lambda g: (torch.randn(4, 3, generator=g), torch.tensor([0, 1, 0, 1])), changes=True
    ),
    "arc_margin": Case(ArcMargin, _labelled(3, 4, labels=5)),
    "dice_loss": Case(DiceLoss, _two(2, 2, 3, 3)),
    "ssim": Case(SSIM, _two(1, 1, 6, 6)),
    "ssim_channels": Case(SSIM, _two(1, 3, 6, 6)),
}
