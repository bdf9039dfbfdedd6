"""Reinforcement learning and mixtures: distributions, noise, memories, experts."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.distributions import Beta, Categorical, MultivariateNormal, Normal, kl_divergence

from tests.models.plain.case import Case, normal


def mlp(sizes, activation, output_activation=nn.Identity):
    layers = []
    for j in range(len(sizes) - 1):
        act = activation if j < len(sizes) - 2 else output_activation
        layers += [nn.Linear(sizes[j], sizes[j + 1]), act()]
    return nn.Sequential(*layers)


class ActorCritic(nn.Module):
    def __init__(self, obs=4, actions=3):
        super().__init__()
        self.affine, self.action_head, self.value_head = (
            nn.Linear(obs, 8),
            nn.Linear(8, actions),
            nn.Linear(8, 1),
        )

    def act(self, state):
        x = F.relu(self.affine(state))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)

    def forward(self, state):
        probs, value = self.act(state)
        m = Categorical(probs)
        action = m.sample()
        return action, m.log_prob(action), m.entropy(), value


class UncheckedActorCritic(ActorCritic):
    def forward(self, state):
        probs, value = self.act(state)
        m = Categorical(probs, validate_args=False)
        action = m.sample()
        return action, m.log_prob(action), m.entropy().mean(), value


class GaussianPolicy(nn.Module):
    """A tanh-squashed normal, its log-probability corrected, clamped log deviations."""

    LOG_STD_MIN, LOG_STD_MAX = -20, 2

    def __init__(self, obs=4, act=2):
        super().__init__()
        self.net = mlp([obs, 8, 8], nn.ReLU, nn.ReLU)
        self.mu, self.log_std = nn.Linear(8, act), nn.Linear(8, act)

    def forward(self, obs, deterministic=False, with_logprob=True):
        out = self.net(obs)
        mu, std = self.mu(out), torch.exp(torch.clamp(self.log_std(out), self.LOG_STD_MIN, self.LOG_STD_MAX))
        pi = Normal(mu, std)
        action = mu if deterministic else pi.rsample()
        logp = None
        if with_logprob:
            logp = pi.log_prob(action).sum(axis=-1)
            logp -= (2 * (np.log(2) - action - F.softplus(-2 * action))).sum(axis=1)
        return torch.tanh(action), logp


class PPO(nn.Module):
    """A loss over old log-probabilities, a covariance kept in a plain tensor."""

    def __init__(self, obs=4, act=2, eps_clip=0.2):
        super().__init__()
        self.actor, self.critic = mlp([obs, 8, act], nn.Tanh, nn.Tanh), mlp([obs, 8, 1], nn.Tanh)
        self.action_var = torch.full((act,), 0.36)
        self.eps_clip = eps_clip

    def evaluate(self, state, action):
        mean = self.actor(state)
        cov = torch.diag_embed(self.action_var.expand_as(mean))
        dist = MultivariateNormal(mean, cov)
        return dist.log_prob(action), self.critic(state).squeeze(-1), dist.entropy()

    def forward(self, state, action, advantage):
        logp, value, entropy = self.evaluate(state, action)
        ratios = torch.exp(logp - logp.detach())
        surr1, surr2 = (
            ratios * advantage,
            torch.clamp(ratios, 1 - self.eps_clip, 1 + self.eps_clip) * advantage,
        )
        return (-torch.min(surr1, surr2) + 0.5 * F.mse_loss(value, advantage) - 0.01 * entropy).mean()


class BetaPolicy(nn.Module):
    def __init__(self, obs=4, act=2):
        super().__init__()
        self.a, self.b = nn.Linear(obs, act), nn.Linear(obs, act)
        self.prior = None

    def forward(self, x):
        dist = Beta(F.softplus(self.a(x)) + 1, F.softplus(self.b(x)) + 1)
        uniform = Beta(torch.ones_like(dist.concentration1), torch.ones_like(dist.concentration0))
        return dist.mean, kl_divergence(dist, uniform).sum(-1)


class NoisyLinear(nn.Module):
    def __init__(self, i, o, std_init=0.4):
        super().__init__()
        self.in_features, self.out_features, self.std_init = i, o, std_init
        self.weight_mu, self.weight_sigma = nn.Parameter(torch.empty(o, i)), nn.Parameter(torch.empty(o, i))
        self.register_buffer("weight_epsilon", torch.empty(o, i))
        self.reset_parameters()
        self.reset_noise()

    def reset_parameters(self):
        mu_range = 1.0 / math.sqrt(self.in_features)
        self.weight_mu.data.uniform_(-mu_range, mu_range)
        self.weight_sigma.data.fill_(self.std_init / math.sqrt(self.in_features))

    @staticmethod
    def scale_noise(size):
        x = torch.randn(size)
        return x.sign().mul(x.abs().sqrt())

    def reset_noise(self):
        epsilon_in, epsilon_out = self.scale_noise(self.in_features), self.scale_noise(self.out_features)
        self.weight_epsilon.copy_(epsilon_out.ger(epsilon_in))

    def forward(self, x):
        return F.linear(x, self.weight_mu + self.weight_sigma * self.weight_epsilon)


class Rainbow(nn.Module):
    """Dueling heads over a support, noise drawn anew in each call."""

    def __init__(self, obs=4, actions=2, atoms=5):
        super().__init__()
        self.feature, self.adv, self.val = (
            nn.Linear(obs, 6),
            NoisyLinear(6, actions * atoms),
            NoisyLinear(6, atoms),
        )
        self.support = torch.linspace(-1, 1, atoms)
        self.actions, self.atoms = actions, atoms

    def dist(self, x):
        feature = F.relu(self.feature(x))
        advantage = self.adv(feature).view(-1, self.actions, self.atoms)
        value = self.val(feature).view(-1, 1, self.atoms)
        return F.softmax(value + advantage - advantage.mean(dim=1, keepdim=True), dim=-1).clamp(min=1e-3)

    def forward(self, x):
        self.adv.reset_noise()
        self.val.reset_noise()
        return torch.sum(self.dist(x) * self.support, dim=2)


class EpsilonGreedy(nn.Module):
    """Steps counted on the module, numpy's random state, an int action."""

    def __init__(self):
        super().__init__()
        self.q, self.steps_done = nn.Linear(4, 3), 0

    def forward(self, state):
        eps = 0.05 + 0.85 * math.exp(-1.0 * self.steps_done / 200)
        self.steps_done += 1
        if np.random.rand() > eps:
            return self.q(state).max(1)[1].view(-1, 1)
        return torch.tensor([[np.random.randint(3)]], dtype=torch.long)


class MDN(nn.Module):
    def __init__(self, i=3, o=2, k=4):
        super().__init__()
        self.pi, self.sigma, self.mu = nn.Linear(i, k), nn.Linear(i, o * k), nn.Linear(i, o * k)
        self.o, self.k = o, k

    def forward(self, x):
        pi = F.softmax(self.pi(x), dim=1)
        sigma = torch.exp(self.sigma(x)).view(-1, self.k, self.o)
        mu = self.mu(x).view(-1, self.k, self.o)
        picked = Categorical(logits=pi.log()).sample().view(-1, 1, 1).expand(-1, 1, self.o)
        return pi, mu.gather(1, picked).squeeze(1) + torch.randn(x.size(0), self.o) * sigma.gather(
            1, picked
        ).squeeze(1)


class SparseDispatcher:
    """Sends each row to its experts and puts the results together, by positions that depend on data."""

    def __init__(self, num_experts, gates):
        self._gates, self._num_experts = gates, num_experts
        sorted_experts, index_sorted = torch.nonzero(gates).sort(0)
        _, self._expert_index = sorted_experts.split(1, dim=1)
        self._batch_index = torch.nonzero(gates)[index_sorted[:, 1], 0]
        self._part_sizes = (gates > 0).sum(0).tolist()
        self._nonzero_gates = torch.gather(gates[self._batch_index.flatten()], 1, self._expert_index)

    def dispatch(self, inp):
        return torch.split(inp[self._batch_index].squeeze(1), self._part_sizes, dim=0)

    def combine(self, expert_out):
        stitched = torch.cat(expert_out, 0).mul(self._nonzero_gates)
        return torch.zeros(self._gates.size(0), stitched.size(1)).index_add(0, self._batch_index, stitched)


class SparseMoE(nn.Module):
    def __init__(self, dim=4, experts=3, k=2):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(dim, dim) for _ in range(experts)])
        self.w_gate, self.k = nn.Parameter(torch.randn(dim, experts)), k

    def gates(self, x):
        logits = x @ self.w_gate
        top, idx = logits.topk(self.k, dim=1)
        return torch.zeros_like(logits).scatter(1, idx, F.softmax(top, dim=1))

    def forward(self, x):
        dispatcher = SparseDispatcher(len(self.experts), self.gates(x))
        inputs = dispatcher.dispatch(x)
        return dispatcher.combine([self.experts[i](inputs[i]) for i in range(len(self.experts))])


class SoftMoE(SparseMoE):
    """Every expert sees every row; where a row's gate is zero nothing comes of it."""

    def forward(self, x):
        gates, out = self.gates(x), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            out += gates[:, i : i + 1] * expert(x)
        load = gates.gt(0).float().sum(0)
        return out, load.float().var() / (load.float().mean() ** 2 + 1e-10)


class MaskedMoE(SparseMoE):
    """Rows of an expert picked by a mask, skipped where there are none."""

    def forward(self, x):
        gates, out = self.gates(x), torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            mask = gates[:, i] > 0
            if mask.any():
                out[mask] += gates[mask, i].unsqueeze(1) * expert(x[mask])
        return out


class Recurrent(nn.Module):
    """A window of past observations in a deque on the module."""

    def __init__(self, obs=3, window=4):
        super().__init__()
        self.cell, self.window = nn.GRUCell(obs, 5), deque(maxlen=window)

    def forward(self, obs):
        self.window.append(obs.detach())
        h = None
        for past in self.window:
            h = self.cell(past, h)
        return h


class DNC(nn.Module):
    """Usage sorted into an allocation, cumulative products."""

    def __init__(self, cells=5, width=3):
        super().__init__()
        self.key, self.cells = nn.Linear(4, width), cells
        self.register_buffer("usage", torch.linspace(0.1, 0.9, cells))
        self.register_buffer("memory", torch.randn(cells, width))

    def forward(self, x):
        sorted_usage, phi = torch.topk(self.usage, self.cells, dim=0, largest=False)
        prod = torch.cumprod(torch.cat([torch.ones(1), sorted_usage])[:-1], 0)
        allocation = ((1 - sorted_usage) * prod).gather(
            0, torch.topk(phi, k=self.cells, dim=0, largest=False)[1]
        )
        weights = F.softmax(
            F.cosine_similarity(self.key(x).unsqueeze(1), self.memory.unsqueeze(0), dim=-1), -1
        )
        with torch.no_grad():
            self.usage.mul_(0.9).add_(0.1 * weights.mean(0))
        return weights @ self.memory, allocation


def _ppo(g):
    return torch.randn(3, 4, generator=g), torch.randn(3, 2, generator=g), torch.randn(3, generator=g)


CASES = {
    "actor_critic": Case(ActorCritic, normal(3, 4)),
    "actor_critic_unchecked": Case(UncheckedActorCritic, normal(3, 4)),
    "gaussian_policy": Case(GaussianPolicy, normal(3, 4)),
    "ppo": Case(PPO, _ppo),
    "beta_policy": Case(BetaPolicy, normal(3, 4)),
    "rainbow": Case(Rainbow, normal(3, 4)),
    "epsilon_greedy": Case(EpsilonGreedy, normal(1, 4), grad=False, kept=False),
    "mdn": Case(MDN, normal(3, 3)),
    "sparse_moe": Case(SparseMoE, normal(5, 4), changes=True),
    "soft_moe": Case(SoftMoE, normal(5, 4)),
    "masked_moe": Case(MaskedMoE, normal(5, 4), changes=True),
    "recurrent_window": Case(Recurrent, normal(2, 3), changes=True),
    "dnc": Case(DNC, normal(2, 4)),
}
