"""Graphs, points and sets."""

from __future__ import annotations

import inspect
import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.plain.case import Case, normal

EDGES = ((0, 0, 1, 2, 3, 4, 1), (1, 2, 2, 3, 4, 0, 0))


def graph(nodes, features):
    return lambda g: (torch.randn(nodes, features, generator=g), torch.tensor(EDGES))


class GraphConvolution(nn.Module):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.FloatTensor(in_features, out_features))
        if bias:
            self.bias = nn.Parameter(torch.FloatTensor(out_features))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1.0 / math.sqrt(self.weight.size(1))
        self.weight.data.uniform_(-stdv, stdv)
        if self.bias is not None:
            self.bias.data.uniform_(-stdv, stdv)

    def forward(self, input, adj):
        support = torch.mm(input, self.weight)
        output = torch.spmm(adj, support) if adj.is_sparse else torch.mm(adj, support)
        if self.bias is not None:
            return output + self.bias
        else:
            return output

    def __repr__(self):
        return f"{self.__class__.__name__} ({self.in_features} -> {self.out_features})"


class GCN(nn.Module):
    """Dense adjacency, normalized by powers of the degrees."""

    def __init__(self, nfeat=4, nhid=5, nclass=3, dropout=0.5):
        super().__init__()
        self.gc1, self.gc2 = GraphConvolution(nfeat, nhid), GraphConvolution(nhid, nclass, bias=False)
        self.dropout = dropout

    @staticmethod
    def normalize(adj):
        d_inv_sqrt = torch.pow(adj.sum(1), -0.5).flatten()
        d_inv_sqrt[torch.isinf(d_inv_sqrt)] = 0.0
        d = torch.diag(d_inv_sqrt)
        return adj.mm(d).t().mm(d)

    def forward(self, x, edge_index):
        n = x.size(0)
        adj = torch.zeros(n, n)
        adj[edge_index[0], edge_index[1]] = 1.0
        adj = self.normalize(adj + torch.eye(n))
        x = F.dropout(F.relu(self.gc1(x, adj)), self.dropout, training=self.training)
        return F.log_softmax(self.gc2(x, adj), dim=1)


def scatter_add(src, index, dim_size):
    return src.new_zeros(dim_size, *src.shape[1:]).index_add_(0, index, src)


def segment_softmax(src, index, num_nodes):
    peak = torch.full((num_nodes, src.size(1)), float("-inf"))
    peak = peak.scatter_reduce(0, index.unsqueeze(1).expand_as(src), src, reduce="amax")
    out = (src - peak[index]).exp()
    return out / (scatter_add(out, index, num_nodes)[index] + 1e-16)


class GAT(nn.Module):
    def __init__(self, i=4, o=3, heads=2):
        super().__init__()
        self.lin = nn.Linear(i, heads * o, bias=False)
        self.att_src = nn.Parameter(torch.randn(1, heads, o))
        self.att_dst = nn.Parameter(torch.randn(1, heads, o))
        self.heads, self.o = heads, o

    def forward(self, x, edge_index):
        h = self.lin(x).view(-1, self.heads, self.o)
        src, dst = edge_index
        alpha = (h * self.att_src).sum(-1)[src] + (h * self.att_dst).sum(-1)[dst]
        alpha = segment_softmax(F.leaky_relu(alpha, 0.2), dst, x.size(0))
        return scatter_add(h[src] * alpha.unsqueeze(-1), dst, x.size(0)).mean(1)


class MessagePassing(nn.Module):
    """Arguments of message() and update() are found by their names, as graph libraries do."""

    def __init__(self, aggr="add"):
        super().__init__()
        assert aggr in ["add", "mean", "max"], aggr
        self.aggr = aggr
        self.__msg_params__ = [p for p in inspect.signature(self.message).parameters]
        self.__update_params__ = [p for p in inspect.signature(self.update).parameters][1:]

    def propagate(self, edge_index, **kwargs):
        size, data = None, dict(edge_index=edge_index)
        for name in self.__msg_params__:
            if name[-2:] in ("_i", "_j"):
                tmp = kwargs[name[:-2]]
                size = tmp.size(0) if size is None else size
                data[name] = tmp.index_select(0, edge_index[1 if name.endswith("_i") else 0])
            else:
                data[name] = kwargs.get(name)
        out = self.message(*(data[k] for k in self.__msg_params__))
        if self.aggr == "max":
            index = edge_index[1].view(-1, 1).expand_as(out)
            out = out.new_zeros(size, out.size(1)).scatter_reduce_(0, index, out, "amax", include_self=False)
        else:
            count = scatter_add(torch.ones(edge_index.size(1), 1), edge_index[1], size).clamp(min=1)
            out = scatter_add(out, edge_index[1], size)
            out = out / count if self.aggr == "mean" else out
        return self.update(out, **{k: kwargs[k] for k in self.__update_params__ if k in kwargs})

    def message(self, x_j):
        return x_j

    def update(self, aggr_out):
        return aggr_out


class SAGE(MessagePassing):
    def __init__(self, i=4, o=3, aggr="mean"):
        super().__init__(aggr=aggr)
        self.l, self.r = nn.Linear(i, o), nn.Linear(i, o)

    def forward(self, x, edge_index):
        return F.normalize(self.propagate(edge_index, x=x, scale=2.0), p=2, dim=-1)

    def message(self, x_i, x_j, scale):
        return (x_j - x_i) * scale

    def update(self, aggr_out, x):
        return self.l(aggr_out) + self.r(x)


class EGNN(nn.Module):
    def __init__(self, i=4, hid=5):
        super().__init__()
        self.edge_mlp = nn.Sequential(nn.Linear(2 * i + 1, hid), nn.SiLU(), nn.Linear(hid, hid))
        self.coord_mlp = nn.Linear(hid, 1, bias=False)
        self.node_mlp = nn.Linear(i + hid, i)

    def forward(self, h, edge_index):
        row, col = edge_index
        coord = h[:, :3]
        diff = coord[row] - coord[col]
        radial = torch.sum(diff**2, 1).unsqueeze(1)
        edge = self.edge_mlp(torch.cat([h[row], h[col], radial], dim=1))
        trans = torch.clamp(diff * self.coord_mlp(edge), min=-100, max=100)
        coord = coord + torch.zeros_like(coord).scatter_add_(0, row[:, None].expand(-1, 3), trans)
        agg = torch.zeros(h.size(0), edge.size(1)).index_add(0, row, edge)
        return h + self.node_mlp(torch.cat([h, agg], dim=1)), coord


class TreeLSTM(nn.Module):
    """Recursion over a Python tree."""

    def __init__(self, dim=4):
        super().__init__()
        self.iou, self.f = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.tree = (0, [(1, [(2, []), (3, [])]), (4, [])])
        self.dim = dim

    def node_forward(self, x, child_c, child_h):
        h_sum = torch.sum(torch.stack(child_h), dim=0) if child_h else torch.zeros(self.dim)
        i, o, u = torch.split(self.iou(x + h_sum), self.dim)
        c = torch.sigmoid(i) * torch.tanh(u)
        for cc, ch in zip(child_c, child_h, strict=True):
            c = c + torch.sigmoid(self.f(x + ch)) * cc
        return c, torch.sigmoid(o) * torch.tanh(c)

    def forward(self, inputs, tree=None):
        index, children = tree or self.tree
        states = [self(inputs, child) for child in children]
        return self.node_forward(inputs[index], [c for c, _ in states], [h for _, h in states])


class TNet(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.k, self.conv, self.bn, self.fc = k, nn.Conv1d(k, 8, 1), nn.BatchNorm1d(8), nn.Linear(8, k * k)

    def forward(self, x):
        batchsize = x.size()[0]
        x = torch.max(F.relu(self.bn(self.conv(x))), 2, keepdim=True)[0].view(-1, 8)
        iden = torch.eye(self.k, dtype=torch.float32).flatten().view(1, -1).repeat(batchsize, 1)
        if x.is_cuda:
            iden = iden.cuda()
        return (self.fc(x) + iden).view(-1, self.k, self.k)


class PointNet(nn.Module):
    def __init__(self, global_feat=False, feature_transform=True):
        super().__init__()
        self.stn, self.conv1, self.conv2 = TNet(3), nn.Conv1d(3, 6, 1), nn.Conv1d(6, 8, 1)
        self.global_feat, self.feature_transform = global_feat, feature_transform
        if self.feature_transform:
            self.fstn = TNet(k=6)

    def forward(self, x):
        n_pts = x.size()[2]
        trans = self.stn(x)
        x = F.relu(self.conv1(torch.bmm(x.transpose(2, 1), trans).transpose(2, 1)))
        if self.feature_transform:
            trans_feat = self.fstn(x)
            x = torch.bmm(x.transpose(2, 1), trans_feat).transpose(2, 1)
        else:
            trans_feat = None
        pointfeat = x
        x = torch.max(self.conv2(x), 2, keepdim=True)[0].view(-1, 8)
        if self.global_feat:
            return x, trans, trans_feat
        return torch.cat([x.view(-1, 8, 1).repeat(1, 1, n_pts), pointfeat], 1), trans, trans_feat


def square_distance(src, dst):
    return torch.sum((src[:, :, None] - dst[:, None]) ** 2, dim=-1)


def index_points(points, idx):
    B = points.shape[0]
    view_shape = list(idx.shape)
    view_shape[1:] = [1] * (len(view_shape) - 1)
    repeat_shape = list(idx.shape)
    repeat_shape[0] = 1
    batch_indices = torch.arange(B, dtype=torch.long).to(points.device).view(view_shape).repeat(repeat_shape)
    return points[batch_indices, idx, :]


class SetAbstraction(nn.Module):
    """Farthest points one by one, neighbours within a ball, in-place masks."""

    def __init__(self, npoint=3, radius=1.5, nsample=4):
        super().__init__()
        self.npoint, self.radius, self.nsample = npoint, radius, nsample
        self.mlp = nn.Conv2d(3, 5, 1)

    def farthest_point_sample(self, xyz):
        B, N, _ = xyz.shape
        centroids = torch.zeros(B, self.npoint, dtype=torch.long)
        distance = torch.ones(B, N) * 1e10
        farthest = torch.zeros(B, dtype=torch.long)
        batch_indices = torch.arange(B, dtype=torch.long)
        for i in range(self.npoint):
            centroids[:, i] = farthest
            centroid = xyz[batch_indices, farthest, :].view(B, 1, 3)
            dist = torch.sum((xyz - centroid) ** 2, -1)
            mask = dist < distance
            distance[mask] = dist[mask]
            farthest = torch.max(distance, -1)[1]
        return centroids

    def query_ball_point(self, xyz, new_xyz):
        B, N, _ = xyz.shape
        S = new_xyz.shape[1]
        group_idx = torch.arange(N, dtype=torch.long).view(1, 1, N).repeat([B, S, 1])
        group_idx[square_distance(new_xyz, xyz) > self.radius**2] = N
        group_idx = group_idx.sort(dim=-1)[0][:, :, : self.nsample]
        group_first = group_idx[:, :, 0].view(B, S, 1).repeat([1, 1, self.nsample])
        mask = group_idx == N
        group_idx[mask] = group_first[mask]
        return group_idx

    def forward(self, xyz):
        new_xyz = index_points(xyz, self.farthest_point_sample(xyz))
        idx = self.query_ball_point(xyz, new_xyz)
        grouped = index_points(xyz, idx) - new_xyz.view(xyz.size(0), self.npoint, 1, 3)
        return torch.max(F.relu(self.mlp(grouped.permute(0, 3, 2, 1))), 2)[0]


def knn(x, k):
    inner = -2 * torch.matmul(x.transpose(2, 1), x)
    xx = torch.sum(x**2, dim=1, keepdim=True)
    return (-xx - inner - xx.transpose(2, 1)).topk(k=k, dim=-1)[1]


class DGCNN(nn.Module):
    def __init__(self, k=3):
        super().__init__()
        self.k, self.conv1, self.conv2 = k, nn.Conv2d(6, 4, 1), nn.Conv2d(8, 5, 1)

    def get_graph_feature(self, x, idx=None):
        batch_size, num_dims, num_points = x.size(0), x.size(1), x.size(2)
        x = x.view(batch_size, -1, num_points)
        if idx is None:
            idx = knn(x, k=self.k)
        device = torch.device("cuda") if x.is_cuda else torch.device("cpu")
        idx = (idx + torch.arange(0, batch_size, device=device).view(-1, 1, 1) * num_points).view(-1)
        x = x.transpose(2, 1).contiguous()
        feature = x.view(batch_size * num_points, -1)[idx, :].view(batch_size, num_points, self.k, num_dims)
        x = x.view(batch_size, num_points, 1, num_dims).repeat(1, 1, self.k, 1)
        return torch.cat((feature - x, x), dim=3).permute(0, 3, 1, 2).contiguous()

    def forward(self, x):
        x1 = self.conv1(self.get_graph_feature(x)).max(dim=-1, keepdim=False)[0]
        x2 = self.conv2(self.get_graph_feature(x1)).max(dim=-1, keepdim=False)[0]
        return torch.cat((F.adaptive_max_pool1d(x1, 1).squeeze(), F.adaptive_avg_pool1d(x2, 1).squeeze()), 1)


class SetTransformer(nn.Module):
    class MAB(nn.Module):
        def __init__(self, dim, heads, ln=False):
            super().__init__()
            self.heads = heads
            self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
            if ln:
                self.ln0 = nn.LayerNorm(dim)

        def forward(self, Q, K):
            Q, K, V = self.q(Q), self.k(K), self.v(K)
            split = Q.size(-1) // self.heads
            Q_, K_, V_ = (torch.cat(t.split(split, 2), 0) for t in (Q, K, V))
            A = torch.softmax(Q_.bmm(K_.transpose(1, 2)) / math.sqrt(split), 2)
            out = torch.cat((Q_ + A.bmm(V_)).split(Q.size(0), 0), 2)
            out = out if getattr(self, "ln0", None) is None else self.ln0(out)
            return out + F.relu(self.o(out))

    def __init__(self, dim=4, heads=2, inds=3):
        super().__init__()
        self.inducing = nn.Parameter(torch.Tensor(1, inds, dim))
        nn.init.xavier_uniform_(self.inducing)
        self.mab0, self.mab1 = SetTransformer.MAB(dim, heads), SetTransformer.MAB(dim, heads, ln=True)

    def forward(self, x):
        h = self.mab0(self.inducing.repeat(x.size(0), 1, 1), x)
        return self.mab1(x, h)


class NeRF(nn.Module):
    """Positional encodings as a list of lambdas; volume rendering."""

    def __init__(self, depth=3, width=8, skips=(1,), freqs=2):
        super().__init__()
        self.embed_fns = [lambda x: x]
        for freq in 2.0 ** torch.linspace(0.0, freqs - 1, steps=freqs):
            for p_fn in (torch.sin, torch.cos):
                self.embed_fns.append(lambda x, p_fn=p_fn, freq=freq: p_fn(x * freq))
        dim = 3 * len(self.embed_fns)
        self.skips = list(skips)
        self.pts_linears = nn.ModuleList(
            [nn.Linear(dim, width)]
            + [
                nn.Linear(width, width) if i not in self.skips else nn.Linear(width + dim, width)
                for i in range(depth - 1)
            ]
        )
        self.out = nn.Linear(width, 4)

    def forward(self, rays):
        near, far, n = 2.0, 6.0, 5
        t_vals = torch.linspace(0.0, 1.0, steps=n)
        z_vals = (near * (1.0 - t_vals) + far * t_vals).expand([rays.shape[0], n])
        pts = rays[..., None, :] * z_vals[..., :, None]
        embedded = torch.cat([fn(pts) for fn in self.embed_fns], -1)
        h = embedded
        for i, _ in enumerate(self.pts_linears):
            h = F.relu(self.pts_linears[i](h))
            if i in self.skips:
                h = torch.cat([embedded, h], -1)
        raw = self.out(h)
        dists = torch.cat(
            [z_vals[..., 1:] - z_vals[..., :-1], torch.Tensor([1e10]).expand(z_vals[..., :1].shape)], -1
        )
        alpha = 1.0 - torch.exp(-F.relu(raw[..., 3]) * dists)
        trans = torch.cumprod(torch.cat([torch.ones((alpha.shape[0], 1)), 1.0 - alpha + 1e-10], -1), -1)[
            :, :-1
        ]
        weights = alpha * trans
        return torch.sum(weights[..., None] * torch.sigmoid(raw[..., :3]), -2), torch.sum(
            weights * z_vals, -1
        )


class Siren(nn.Module):
    class SineLayer(nn.Module):
        def __init__(self, i, o, is_first=False, omega_0=30):
            super().__init__()
            self.omega_0, self.linear = omega_0, nn.Linear(i, o)
            with torch.no_grad():
                bound = 1 / i if is_first else (6 / i) ** 0.5 / omega_0
                self.linear.weight.uniform_(-bound, bound)

        def forward(self, x):
            return torch.sin(self.omega_0 * self.linear(x))

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(Siren.SineLayer(2, 6, is_first=True), Siren.SineLayer(6, 6), nn.Linear(6, 1))

    def forward(self, coords):
        coords = coords.clone().detach().requires_grad_(True)
        return self.net(coords), coords


CASES = {
    "gcn": Case(GCN, graph(5, 4)),
    "gat": Case(GAT, graph(5, 4)),
    "sage": Case(SAGE, graph(5, 4)),
    "sage_max": Case(lambda: SAGE(aggr="max"), graph(5, 4)),
    "egnn": Case(EGNN, graph(5, 4)),
    "tree_lstm": Case(TreeLSTM, normal(5, 4)),
    "pointnet": Case(PointNet, normal(2, 3, 6)),
    "set_abstraction": Case(SetAbstraction, normal(2, 7, 3)),
    "dgcnn": Case(DGCNN, normal(2, 3, 6)),
    "set_transformer": Case(SetTransformer, normal(2, 5, 4)),
    "nerf": Case(NeRF, normal(4, 3)),
    "siren": Case(Siren, normal(5, 2), kept=False),
}
