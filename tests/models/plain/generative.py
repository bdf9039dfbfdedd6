"""Generative models: adversarial, variational, flows, diffusion."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from inspect import isfunction

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm, weight_norm

from tests.models.plain.case import Case, normal


def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        m.weight.data.normal_(0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        m.weight.data.normal_(1.0, 0.02)
        m.bias.data.fill_(0)


class DCGenerator(nn.Module):
    def __init__(self, ngpu=1, nz=6, ngf=4, nc=3):
        super().__init__()
        self.ngpu = ngpu
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(ngf * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, nc, 4, 2, 1, bias=False),
            nn.Tanh(),
        )
        self.apply(weights_init)

    def forward(self, input):
        if input.is_cuda and self.ngpu > 1:
            output = nn.parallel.data_parallel(self.main, input, range(self.ngpu))
        else:
            output = self.main(input)
        return output


class Critic(nn.Module):
    """Spectral norm by the old hook, weight norm by the parametrization's wrapper."""

    def __init__(self):
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(3, 4, 3, 2, 1))
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.fc = spectral_norm(nn.Linear(4 * 4 * 4, 1))

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).flatten(1)).view(-1)


class ParametrizedCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, 2, 1))
        self.fc = nn.utils.parametrizations.weight_norm(nn.Linear(4 * 4 * 4, 2))

    def forward(self, x):
        return self.fc(F.elu(self.conv(x)).flatten(1))


class ConditionalGAN(nn.Module):
    def __init__(self, classes=5, latent=6):
        super().__init__()
        self.label_emb = nn.Embedding(classes, classes)

        def block(in_feat, out_feat, normalize=True):
            layers = [nn.Linear(in_feat, out_feat)]
            if normalize:
                layers.append(nn.BatchNorm1d(out_feat, 0.8))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            return layers

        self.img_shape = (1, 4, 4)
        self.model = nn.Sequential(
            *block(latent + classes, 8, normalize=False), *block(8, 16), nn.Linear(16, 16), nn.Tanh()
        )

    def forward(self, noise, labels):
        gen_input = torch.cat((self.label_emb(labels), noise), -1)
        img = self.model(gen_input)
        return img.view(img.size(0), *self.img_shape)


class VAE(nn.Module):
    def __init__(self, dim=12, latent=3):
        super().__init__()
        self.fc1 = nn.Linear(dim, 8)
        self.fc21, self.fc22 = nn.Linear(8, latent), nn.Linear(8, latent)
        self.fc3, self.fc4 = nn.Linear(latent, 8), nn.Linear(8, dim)
        self.dim = dim

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu, logvar):
        if self.training:
            std = logvar.mul(0.5).exp_()
            eps = torch.randn_like(std)
            return eps.mul(std).add_(mu)
        return mu

    def decode(self, z):
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def loss_function(self, *args, **kwargs) -> dict:
        recons, x, mu, log_var = args[0], args[1], args[2], args[3]
        kld_weight = kwargs["M_N"]
        recons_loss = F.mse_loss(recons, x)
        kld = torch.mean(-0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp(), dim=1), dim=0)
        loss = recons_loss + kld_weight * kld
        return {"loss": loss, "Reconstruction_Loss": recons_loss.detach(), "KLD": -kld.detach()}

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, self.dim))
        z = self.reparameterize(mu, logvar)
        return self.loss_function(self.decode(z), x, mu, logvar, M_N=0.00025)


class VQEMA(nn.Module):
    """A codebook kept by exponential moving averages, written through .data in training."""

    def __init__(self, dim=4, n_embed=6, decay=0.99, eps=1e-5):
        super().__init__()
        self.dim, self.n_embed, self.decay, self.eps = dim, n_embed, decay, eps
        embed = torch.randn(dim, n_embed)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(n_embed))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, input):
        flatten = input.reshape(-1, self.dim)
        dist = (
            flatten.pow(2).sum(1, keepdim=True)
            - 2 * flatten @ self.embed
            + self.embed.pow(2).sum(0, keepdim=True)
        )
        _, embed_ind = (-dist).max(1)
        embed_onehot = F.one_hot(embed_ind, self.n_embed).type(flatten.dtype)
        embed_ind = embed_ind.view(*input.shape[:-1])
        quantize = F.embedding(embed_ind, self.embed.transpose(0, 1))
        if self.training:
            self.cluster_size.data.mul_(self.decay).add_(embed_onehot.sum(0), alpha=1 - self.decay)
            self.embed_avg.data.mul_(self.decay).add_(
                flatten.transpose(0, 1) @ embed_onehot, alpha=1 - self.decay
            )
            n = self.cluster_size.sum()
            cluster_size = (self.cluster_size + self.eps) / (n + self.n_embed * self.eps) * n
            self.embed.data.copy_(self.embed_avg / cluster_size.unsqueeze(0))
        diff = (quantize.detach() - input).pow(2).mean()
        quantize = input + (quantize - input).detach()
        return quantize, diff, embed_ind


class VQStraightThrough(nn.Module):
    def __init__(self, num_embeddings=6, dim=4, beta=0.25):
        super().__init__()
        self.embedding = nn.Embedding(num_embeddings, dim)
        self.embedding.weight.data.uniform_(-1 / num_embeddings, 1 / num_embeddings)
        self.K, self.D, self.beta = num_embeddings, dim, beta

    def forward(self, latents):
        latents = latents.permute(0, 2, 3, 1).contiguous()
        flat = latents.view(-1, self.D)
        dist = (
            torch.sum(flat**2, 1, True)
            + torch.sum(self.embedding.weight**2, 1)
            - 2 * flat @ self.embedding.weight.t()
        )
        inds = torch.argmin(dist, dim=1).unsqueeze(1)
        one_hot = torch.zeros(inds.size(0), self.K, device=latents.device)
        one_hot.scatter_(1, inds, 1)
        quantized = torch.matmul(one_hot, self.embedding.weight).view(latents.shape)
        loss = F.mse_loss(quantized.detach(), latents) * self.beta + F.mse_loss(quantized, latents.detach())
        perplexity = torch.exp(-torch.sum(one_hot.mean(0) * torch.log(one_hot.mean(0) + 1e-10)))
        quantized = latents + (quantized - latents).detach()
        return quantized.permute(0, 3, 1, 2).contiguous(), loss, perplexity


class Coupling(nn.Module):
    def __init__(self, dim, mask):
        super().__init__()
        self.register_buffer("mask", mask)
        make = lambda: nn.Sequential(nn.Linear(dim, 8), nn.LeakyReLU(), nn.Linear(8, dim))  # noqa: E731
        self.s, self.t = make(), make()

    def forward(self, x, reverse=False):
        x_masked = x * self.mask
        s, t = torch.tanh(self.s(x_masked)) * (1 - self.mask), self.t(x_masked) * (1 - self.mask)
        if reverse:
            return x_masked + (1 - self.mask) * (x - t) * torch.exp(-s), -s.sum(dim=1)
        return x_masked + (1 - self.mask) * (x * torch.exp(s) + t), s.sum(dim=1)


class RealNVP(nn.Module):
    """The prior is a torch.distributions object made from buffers in a property."""

    def __init__(self, dim=4, flows=3):
        super().__init__()
        mask = torch.arange(dim).float() % 2
        self.flows = nn.ModuleList([Coupling(dim, mask if i % 2 == 0 else 1 - mask) for i in range(flows)])
        self.register_buffer("loc", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @property
    def prior(self):
        return torch.distributions.Independent(torch.distributions.Normal(self.loc, self.scale), 1)

    def forward(self, x):
        log_det, z = torch.zeros(x.shape[0], device=x.device), x
        for flow in self.flows:
            z, ld = flow(z)
            log_det = log_det + ld
        back = z
        for flow in reversed(self.flows):
            back, _ = flow(back, reverse=True)
        return self.prior.log_prob(z) + log_det, back


class InvertibleConv(nn.Module):
    """Glow: data-dependent initialization at the first call, kept in a buffer."""

    def __init__(self, channels=4):
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.inited = False

    def initialize_parameters(self, x):
        with torch.no_grad():
            self.bias.copy_(-x.mean((0, 2, 3), keepdim=True))
            self.logs.copy_(torch.log(1 / (x.std((0, 2, 3), keepdim=True) + 1e-6)))
        self.inited = True

    def forward(self, x):
        if not self.inited:
            self.initialize_parameters(x)
        x = (x + self.bias) * torch.exp(self.logs)
        _, _, h, w = x.shape
        dlogdet = torch.slogdet(self.weight)[1] * h * w
        return F.conv2d(x, self.weight[:, :, None, None]), dlogdet


class MaskedConv2d(nn.Conv2d):
    def __init__(self, mask_type, *args, **kwargs):
        super().__init__(*args, **kwargs)
        assert mask_type in {"A", "B"}
        self.register_buffer("mask", self.weight.data.clone())
        _, _, kh, kw = self.weight.size()
        self.mask.fill_(1)
        self.mask[:, :, kh // 2, kw // 2 + (mask_type == "B") :] = 0
        self.mask[:, :, kh // 2 + 1 :] = 0

    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class PixelCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            MaskedConv2d("A", 1, 4, 5, 1, 2),
            nn.ReLU(True),
            MaskedConv2d("B", 4, 4, 3, 1, 1),
            nn.ReLU(True),
            nn.Conv2d(4, 6, 1),
        )

    def forward(self, x):
        return self.net(x)


class MADE(nn.Module):
    class MaskedLinear(nn.Linear):
        def set_mask(self, mask):
            self.register_buffer("mask", mask)

        def forward(self, input):
            return F.linear(input, self.mask * self.weight, self.bias)

    def __init__(self, n=5, hidden=9):
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        degrees = [torch.arange(n), torch.randint(0, n - 1, (hidden,), generator=rng), torch.arange(n) - 1]
        self.layers = nn.ModuleList([MADE.MaskedLinear(n, hidden), MADE.MaskedLinear(hidden, 2 * n)])
        self.layers[0].set_mask((degrees[1][:, None] >= degrees[0][None]).float())
        self.layers[1].set_mask((degrees[2][:, None] >= degrees[1][None]).float().repeat(2, 1))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == len(self.layers) - 1 else layer(x).relu()
        return torch.chunk(x, 2, dim=1)


def exists(x):
    return x is not None


def default(val, d):
    if exists(val):
        return val
    return d() if isfunction(d) else d


class SinusoidalPosEmb(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        half_dim = self.dim // 2
        emb = math.log(10000) / (half_dim - 1)
        emb = torch.exp(torch.arange(half_dim, device=x.device) * -emb)
        emb = x[:, None] * emb[None, :]
        return torch.cat((emb.sin(), emb.cos()), dim=-1)


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x, *args, **kwargs):
        return self.fn(x, *args, **kwargs) + x


class TimeBlock(nn.Module):
    def __init__(self, dim, dim_out, *, time_emb_dim=None, groups=2):
        super().__init__()
        self.mlp = (
            nn.Sequential(nn.SiLU(), nn.Linear(time_emb_dim, dim_out * 2)) if exists(time_emb_dim) else None
        )
        self.proj, self.norm = nn.Conv2d(dim, dim_out, 3, padding=1), nn.GroupNorm(groups, dim_out)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x, time_emb=None):
        scale_shift = None
        if exists(self.mlp) and exists(time_emb):
            time_emb = self.mlp(time_emb)[:, :, None, None]
            scale_shift = time_emb.chunk(2, dim=1)
        h = self.norm(self.proj(x))
        if exists(scale_shift):
            scale, shift = scale_shift
            h = h * (scale + 1) + shift
        return F.silu(h) + self.res_conv(x)


class LinearAttention(nn.Module):
    def __init__(self, dim, heads=2, dim_head=4):
        super().__init__()
        self.scale, self.heads = dim_head**-0.5, heads
        self.to_qkv = nn.Conv2d(dim, dim_head * heads * 3, 1, bias=False)
        self.to_out = nn.Conv2d(dim_head * heads, dim, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = map(lambda t: t.reshape(b, self.heads, -1, h * w), self.to_qkv(x).chunk(3, dim=1))
        q, k = q.softmax(dim=-2) * self.scale, k.softmax(dim=-1)
        context = torch.einsum("b h d n, b h e n -> b h d e", k, v)
        out = torch.einsum("b h d e, b h d n -> b h e n", context, q)
        return self.to_out(out.reshape(b, -1, h, w))


class DiffusionUNet(nn.Module):
    def __init__(self, dim=4, dim_mults=(1, 2), channels=3, out_dim=None):
        super().__init__()
        dims = [dim, *map(lambda m: dim * m, dim_mults)]
        in_out = list(zip(dims[:-1], dims[1:], strict=True))
        self.init_conv = nn.Conv2d(channels, dim, 1)
        time_dim = dim * 4
        self.time_mlp = nn.Sequential(
            SinusoidalPosEmb(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.downs, self.ups = nn.ModuleList([]), nn.ModuleList([])
        for ind, (dim_in, dim_out) in enumerate(in_out):
            is_last = ind >= len(in_out) - 1
            self.downs.append(
                nn.ModuleList(
                    [
                        TimeBlock(dim_in, dim_out, time_emb_dim=time_dim),
                        Residual(LinearAttention(dim_out)),
                        nn.Conv2d(dim_out, dim_out, 4, 2, 1) if not is_last else nn.Identity(),
                    ]
                )
            )
            self.ups.insert(
                0,
                nn.ModuleList(
                    [
                        TimeBlock(dim_out * 2, dim_in, time_emb_dim=time_dim),
                        nn.ConvTranspose2d(dim_in, dim_in, 4, 2, 1) if ind > 0 else nn.Identity(),
                    ]
                ),
            )
        self.final_conv = nn.Conv2d(dim, default(out_dim, channels), 1)

    def forward(self, x, time):
        x = self.init_conv(x)
        t = self.time_mlp(time) if exists(self.time_mlp) else None
        h = []
        for block, attn, downsample in self.downs:
            x = attn(block(x, t))
            h.append(x)
            x = downsample(x)
        for block, upsample in self.ups:
            x = upsample(block(torch.cat((x, h.pop()), dim=1), t))
        return self.final_conv(x)


def extract(a, t, x_shape):
    b, *_ = t.shape
    return a.gather(-1, t).reshape(b, *((1,) * (len(x_shape) - 1)))


class DDPM(nn.Module):
    """Noise schedule in buffers, random steps drawn inside forward, a few steps of sampling."""

    def __init__(self, timesteps=8):
        super().__init__()
        self.denoise = nn.Sequential(nn.Linear(5, 8), nn.SiLU(), nn.Linear(8, 4))
        betas = torch.linspace(1e-4, 0.02, timesteps)
        alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        register = lambda name, val: self.register_buffer(name, val.to(torch.float32))  # noqa: E731
        register("betas", betas)
        register("sqrt_ac", torch.sqrt(alphas_cumprod))
        register("sqrt_1m_ac", torch.sqrt(1.0 - alphas_cumprod))
        self.num_timesteps = int(timesteps)

    def q_sample(self, x_start, t, noise=None):
        noise = default(noise, lambda: torch.randn_like(x_start))
        return (
            extract(self.sqrt_ac, t, x_start.shape) * x_start
            + extract(self.sqrt_1m_ac, t, x_start.shape) * noise
        )

    @torch.no_grad()
    def sample(self, shape):
        img = torch.randn(shape)
        for i in reversed(range(0, self.num_timesteps)):
            t = torch.full((shape[0],), i, dtype=torch.long)
            eps = self.denoise(torch.cat((img, t[:, None].float() / self.num_timesteps), 1))
            noise = torch.randn_like(img) if i > 0 else 0.0
            img = img - extract(self.betas, t, img.shape) * eps + 0.1 * noise
        return img

    def forward(self, x, *args, **kwargs):
        t = torch.randint(0, self.num_timesteps, (x.shape[0],), device=x.device).long()
        noise = torch.randn_like(x)
        x_noisy = self.q_sample(x, t, noise=noise)
        predicted = self.denoise(torch.cat((x_noisy, t[:, None].float() / self.num_timesteps), 1))
        return F.l1_loss(predicted, noise), self.sample(x.shape)


class EqualLinear(nn.Module):
    """The weight scaled at each call by a pre-forward hook, as progressive GANs do."""

    class EqualLR:
        def __init__(self, name):
            self.name = name

        def compute_weight(self, module):
            weight = getattr(module, self.name + "_orig")
            fan_in = weight.data.size(1) * weight.data[0][0].numel()
            return weight * math.sqrt(2 / fan_in)

        @staticmethod
        def apply(module, name):
            fn = EqualLinear.EqualLR(name)
            weight = getattr(module, name)
            del module._parameters[name]
            module.register_parameter(name + "_orig", nn.Parameter(weight.data))
            module.register_forward_pre_hook(fn)

        def __call__(self, module, input):
            setattr(module, self.name, self.compute_weight(module))

    def __init__(self, i=6, o=5):
        super().__init__()
        linear = nn.Linear(i, o)
        linear.bias.data.zero_()
        EqualLinear.EqualLR.apply(linear, "weight")
        self.linear = linear

    def forward(self, input):
        return self.linear(input)


class StyledGenerator(nn.Module):
    """Style mixing decided by Python's random module."""

    def __init__(self, dim=4, layers=3):
        super().__init__()
        self.mapping = nn.Sequential(*[m for _ in range(2) for m in (nn.Linear(dim, dim), nn.LeakyReLU(0.2))])
        self.blocks = nn.ModuleList([nn.Linear(dim, dim) for _ in range(layers)])
        self.noise_weight = nn.ParameterList([nn.Parameter(torch.zeros(1) + 0.1) for _ in range(layers)])
        self.const = nn.Parameter(torch.randn(1, dim))

    def forward(self, styles, noise=None, mixing_range=(-1, -1)):
        w = [self.mapping(s) for s in styles]
        batch = w[0].shape[0]
        if noise is None:
            noise = [torch.randn(batch, 1) for _ in self.blocks]
        inject_index = sorted(random.sample(list(range(len(self.blocks))), len(w) - 1)) if len(w) > 1 else []
        out, crossover = self.const.repeat(batch, 1), 0
        for i, block in enumerate(self.blocks):
            if crossover < len(inject_index) and i > inject_index[crossover]:
                crossover = min(crossover + 1, len(w) - 1)
            out = block(out) * (1 + w[crossover]) + self.noise_weight[i] * noise[i]
        return out


@dataclass
class FlowOutput:
    """What the autoencoder returns."""

    latent: torch.Tensor
    recon: torch.Tensor | None = None
    extras: dict | None = None


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = weight_norm(nn.Linear(6, 3))
        self.decoder = nn.Linear(3, 6)

    def forward(self, x):
        out = FlowOutput(latent=torch.tanh(self.encoder(x)))
        out.recon = F.linear(out.latent, self.encoder.weight.t(), self.decoder.bias)
        out.extras = dict(l1=out.latent.abs().mean(), shape=list(out.recon.shape))
        return out


def _pair(n, labels):
    return lambda g: (torch.randn(2, n, generator=g), torch.randint(0, labels, (2,), generator=g))


CASES = {
    "dcgan": Case(DCGenerator, normal(2, 6, 1, 1)),
    "critic": Case(Critic, normal(2, 3, 8, 8)),
    "critic_training": Case(Critic, normal(2, 3, 8, 8), training=True),
    "critic_parametrized": Case(ParametrizedCritic, normal(2, 3, 8, 8)),
    "conditional_gan": Case(ConditionalGAN, _pair(6, 5)),
    "vae": Case(VAE, normal(3, 12)),
    "vae_training": Case(VAE, normal(3, 12), training=True),
    "vq_ema": Case(VQEMA, normal(2, 5, 4)),
    "vq_ema_training": Case(VQEMA, normal(2, 5, 4), training=True),
    "vq_straight_through": Case(VQStraightThrough, normal(2, 4, 3, 3)),
    "real_nvp": Case(RealNVP, normal(3, 4)),
    "glow": Case(InvertibleConv, normal(2, 4, 3, 3)),
    "pixelcnn": Case(PixelCNN, normal(2, 1, 6, 6)),
    "made": Case(MADE, normal(3, 5)),
    "diffusion_unet": Case(
        DiffusionUNet, lambda g: (torch.randn(2, 3, 8, 8, generator=g), torch.rand(2, generator=g) * 100)
    ),
    "ddpm": Case(DDPM, normal(3, 4)),
    "equal_lr": Case(EqualLinear, normal(3, 6)),
    "styled_generator": Case(StyledGenerator, lambda g: ([torch.randn(2, 4, generator=g)],)),
    "styled_generator_mixing": Case(
        StyledGenerator,
        lambda g: ([torch.randn(2, 4, generator=g), torch.randn(2, 4, generator=g)],),
        kept=False,
    ),
    "autoencoder": Case(AutoEncoder, normal(3, 6)),
}
