"""Text and sequences: recurrent, convolutional, attention."""

from __future__ import annotations

import copy
import math
import random
from collections import namedtuple
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Variable

from tests.models.plain.case import Case, normal, tokens


class CharRNN(nn.Module):
    def __init__(self, vocab=11, n_layers=2, hidden=8):
        super().__init__()
        self.n_layers, self.n_hidden = n_layers, hidden
        self.lstm = nn.LSTM(vocab, hidden, n_layers, dropout=0.3, batch_first=True)
        self.fc = nn.Linear(hidden, vocab)
        self.vocab = vocab

    def init_hidden(self, batch_size):
        weight = next(self.parameters()).data
        return (
            weight.new(self.n_layers, batch_size, self.n_hidden).zero_(),
            weight.new(self.n_layers, batch_size, self.n_hidden).zero_(),
        )

    def forward(self, x):
        hidden = self.init_hidden(x.size(0))
        hidden = tuple([each.data for each in hidden])
        r_output, hidden = self.lstm(F.one_hot(x, self.vocab).float(), hidden)
        return self.fc(r_output.contiguous().view(-1, self.n_hidden)), hidden


class LSTMTagger(nn.Module):
    """The hidden state lives on the module between calls."""

    def __init__(self, vocab=11, tags=4):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, 6)
        self.lstm = nn.LSTM(6, 5)
        self.hidden2tag = nn.Linear(5, tags)
        self.hidden = None

    def forward(self, sentence):
        embeds = self.word_embeddings(sentence)
        lstm_out, self.hidden = self.lstm(embeds.view(len(sentence), 1, -1), self.hidden)
        self.hidden = tuple(h.detach() for h in self.hidden)
        return F.log_softmax(self.hidden2tag(lstm_out.view(len(sentence), -1)), dim=1)


class GRUCell(nn.Module):
    def __init__(self, i, h):
        super().__init__()
        for gate in ("z", "r", "n"):
            setattr(self, f"W_{gate}", nn.Linear(i, h))
            setattr(self, f"U_{gate}", nn.Linear(h, h, bias=False))
        self.hidden_size = h

    def forward(self, x, h=None):
        if h is None:
            h = x.new_zeros(x.size(0), self.hidden_size)
        z = torch.sigmoid(self.W_z(x) + self.U_z(h))
        r = torch.sigmoid(self.W_r(x) + self.U_r(h))
        n = torch.tanh(self.W_n(x) + self.U_n(r * h))
        return (1 - z) * n + z * h


class Attention(nn.Module):
    def __init__(self, method, hidden):
        super().__init__()
        self.method = method
        if self.method not in ["dot", "general", "concat"]:
            raise ValueError(self.method, "is not an appropriate attention method.")
        if self.method == "general":
            self.attn = nn.Linear(hidden, hidden)
        elif self.method == "concat":
            self.attn = nn.Linear(hidden * 2, hidden)
            self.v = nn.Parameter(torch.randn(hidden))

    def dot_score(self, hidden, encoder_output):
        return torch.sum(hidden * encoder_output, dim=2)

    def general_score(self, hidden, encoder_output):
        return torch.sum(hidden * self.attn(encoder_output), dim=2)

    def concat_score(self, hidden, encoder_output):
        hidden = hidden.expand(encoder_output.size(0), -1, -1)
        return torch.sum(self.v * self.attn(torch.cat((hidden, encoder_output), 2)).tanh(), dim=2)

    def forward(self, hidden, encoder_outputs):
        energies = getattr(self, f"{self.method}_score")(hidden, encoder_outputs).t()
        return F.softmax(energies, dim=1).unsqueeze(1)


class Seq2Seq(nn.Module):
    SOS_TOKEN = 1

    def __init__(self, vocab=12, hidden=6, method="concat", teacher_forcing_ratio=0.5):
        super().__init__()
        self.embedding = nn.Embedding(vocab, hidden)
        self.encoder = nn.GRU(hidden, hidden, bidirectional=True)
        self.decoder = GRUCell(hidden, hidden)
        self.attention = Attention(method, hidden)
        self.out = nn.Linear(hidden * 2, vocab)
        self.teacher_forcing_ratio = teacher_forcing_ratio

    def forward(self, src, target=None, max_length=5):
        encoded, hidden = self.encoder(self.embedding(src))
        outputs = encoded[:, :, : hidden.size(-1)] + encoded[:, :, hidden.size(-1) :]
        state = hidden[0]
        word = torch.LongTensor([[self.SOS_TOKEN for _ in range(src.size(1))]])[0]
        use_teacher_forcing = target is not None and random.random() < self.teacher_forcing_ratio
        decoded = []
        for t in range(max_length if target is None else target.size(0)):
            state = self.decoder(self.embedding(word), state)
            context = self.attention(state.unsqueeze(0), outputs).bmm(outputs.transpose(0, 1)).squeeze(1)
            logits = self.out(torch.cat((state, context), 1))
            decoded.append(logits)
            word = target[t] if use_teacher_forcing else logits.topk(1)[1].squeeze(1).detach()
        return torch.stack(decoded)


class PackedClassifier(nn.Module):
    def __init__(self, vocab=12):
        super().__init__()
        self.emb = nn.Embedding(vocab, 5, padding_idx=0)
        self.rnn = nn.GRU(5, 6, batch_first=True)
        self.fc = nn.Linear(6, 2)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.emb(x), lengths, batch_first=True, enforce_sorted=False
        )
        output, h = self.rnn(packed)
        output, lens = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
        return self.fc(h[-1]), output.sum(1), lens


class TextCNN(nn.Module):
    def __init__(self, vocab=12, kernel_sizes=(2, 3, 4), num=3, static=False):
        super().__init__()
        self.embed = nn.Embedding(vocab, 6)
        self.convs = nn.ModuleList([nn.Conv2d(1, num, (K, 6)) for K in kernel_sizes])
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(len(kernel_sizes) * num, 3)
        self.static = static

    def forward(self, x):
        x = self.embed(x)
        if self.static:
            x = Variable(x)
        x = x.unsqueeze(1)
        x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        x = [F.max_pool1d(i, i.size(2)).squeeze(2) for i in x]
        return self.fc1(self.dropout(torch.cat(x, 1)))


def clones(module, n):
    return nn.ModuleList([copy.deepcopy(module) for _ in range(n)])


class LayerNorm(nn.Module):
    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


def attention(query, key, value, mask=None, dropout=None):
    d_k = query.size(-1)
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(d_k)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -1e9)
    p_attn = F.softmax(scores, dim=-1)
    if dropout is not None:
        p_attn = dropout(p_attn)
    return torch.matmul(p_attn, value), p_attn


class MultiHeadedAttention(nn.Module):
    """Keeps the last attention weights on the module."""

    def __init__(self, h, d_model, dropout=0.1):
        super().__init__()
        assert d_model % h == 0
        self.d_k, self.h = d_model // h, h
        self.linears = clones(nn.Linear(d_model, d_model), 4)
        self.attn = None
        self.dropout = nn.Dropout(p=dropout)

    def forward(self, query, key, value, mask=None):
        if mask is not None:
            mask = mask.unsqueeze(1)
        nbatches = query.size(0)
        query, key, value = [
            lin(x).view(nbatches, -1, self.h, self.d_k).transpose(1, 2)
            for lin, x in zip(self.linears, (query, key, value), strict=False)
        ]
        x, self.attn = attention(query, key, value, mask=mask, dropout=self.dropout)
        x = x.transpose(1, 2).contiguous().view(nbatches, -1, self.h * self.d_k)
        return self.linears[-1](x)


class SublayerConnection(nn.Module):
    def __init__(self, size, dropout):
        super().__init__()
        self.norm, self.dropout = LayerNorm(size), nn.Dropout(dropout)

    def forward(self, x, sublayer):
        return x + self.dropout(sublayer(self.norm(x)))


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.1, max_len=32):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        pe = torch.zeros(max_len, d_model)
        position = torch.arange(0, max_len).unsqueeze(1).float()
        div_term = torch.exp(torch.arange(0, d_model, 2).float() * -(math.log(10000.0) / d_model))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(position * div_term), torch.cos(position * div_term)
        self.register_buffer("pe", pe.unsqueeze(0))

    def forward(self, x):
        x = x + Variable(self.pe[:, : x.size(1)], requires_grad=False)
        return self.dropout(x)


def subsequent_mask(size):
    attn_shape = (1, size, size)
    return torch.from_numpy(np.triu(np.ones(attn_shape), k=1).astype("uint8")) == 0


def subsequent_mask_torch(size):
    return torch.triu(torch.ones(1, size, size), diagonal=1).type(torch.uint8) == 0


class AnnotatedTransformer(nn.Module):
    """Sublayers as lambdas over the block's own attention."""

    def __init__(self, vocab=13, d=8, h=2, n=2, mask=subsequent_mask_torch):
        super().__init__()
        self.embed, self.pos = nn.Embedding(vocab, d), PositionalEncoding(d)
        self.d_model, self.make_mask = d, mask
        layer = nn.ModuleDict(
            dict(
                attn=MultiHeadedAttention(h, d),
                ff=nn.Sequential(nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, d)),
            )
        )
        layer["sublayer"] = clones(SublayerConnection(d, 0.1), 2)
        self.layers, self.norm = clones(layer, n), LayerNorm(d)

    def forward(self, tgt, pad=0):
        mask = (tgt != pad).unsqueeze(-2)
        mask = mask & self.make_mask(tgt.size(-1)).type_as(mask.data)
        x = self.pos(self.embed(tgt) * math.sqrt(self.d_model))
        for layer in self.layers:
            x = layer["sublayer"][0](x, lambda x, layer=layer: layer["attn"](x, x, x, mask))
            x = layer["sublayer"][1](x, layer["ff"])
        return self.norm(x)


class GPTConfig:
    n_layer, n_head, n_embd, block_size, vocab_size = 2, 2, 8, 16, 13

    def __init__(self, **kwargs):
        for k, v in kwargs.items():
            setattr(self, k, v)


class CausalSelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.n_head, self.n_embd = config.n_head, config.n_embd
        self.flash = hasattr(F, "scaled_dot_product_attention") and config.flash
        if not self.flash:
            bias = torch.tril(torch.ones(config.block_size, config.block_size))
            self.register_buffer("bias", bias.view(1, 1, config.block_size, config.block_size))

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k, q, v = (t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (k, q, v))
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0, is_causal=True)
        else:
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
            y = F.softmax(att, dim=-1) @ v
        return y.transpose(1, 2).contiguous().view(B, T, C)


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            dict(
                wte=nn.Embedding(config.vocab_size, config.n_embd),
                wpe=nn.Embedding(config.block_size, config.n_embd),
                h=nn.ModuleList([CausalSelfAttention(config) for _ in range(config.n_layer)]),
                ln_f=nn.LayerNorm(config.n_embd),
            )
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight

    def forward(self, idx, targets=None):
        device = idx.device
        b, t = idx.size()
        assert t <= self.config.block_size, f"Cannot forward sequence of length {t}"
        pos = torch.arange(0, t, dtype=torch.long, device=device)
        x = self.transformer.wte(idx) + self.transformer.wpe(pos)
        for block in self.transformer.h:
            x = x + block(x)
        x = self.transformer.ln_f(x)
        if targets is not None:
            logits = self.lm_head(x)
            loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)
        else:
            logits, loss = self.lm_head(x[:, [-1], :]), None
        return logits, loss

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None):
        for _ in range(max_new_tokens):
            idx_cond = idx if idx.size(1) <= self.config.block_size else idx[:, -self.config.block_size :]
            logits, _ = self(idx_cond)
            logits = logits[:, -1, :] / temperature
            if top_k is not None:
                v, _ = torch.topk(logits, min(top_k, logits.size(-1)))
                logits[logits < v[:, [-1]]] = -float("Inf")
            idx = torch.cat((idx, torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)), dim=1)
        return idx


class Sampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.gpt = GPT(GPTConfig(flash=True))

    def forward(self, idx):
        return self.gpt.generate(idx, 3, temperature=0.8, top_k=4)


class CausalConv1d(nn.Conv1d):
    def __init__(self, i, o, k, dilation=1):
        super().__init__(i, o, k, padding=(k - 1) * dilation, dilation=dilation)

    def forward(self, input):
        result = super().forward(input)
        if self.padding[0] != 0:
            return result[:, :, : -self.padding[0]]
        return result


class WaveNet(nn.Module):
    def __init__(self, layers=3):
        super().__init__()
        self.start = nn.Conv1d(1, 4, 1)
        self.filters, self.gates, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.dilations = []
        for i in range(layers):
            self.dilations.append(2**i)
            self.filters.append(CausalConv1d(4, 4, 2, dilation=2**i))
            self.gates.append(CausalConv1d(4, 4, 2, dilation=2**i))
            self.skips.append(nn.Conv1d(4, 3, 1))
        self.end = nn.Conv1d(3, 2, 1)

    def forward(self, x):
        x, skip = self.start(x), 0
        for i in range(len(self.dilations)):
            residual = x
            x = torch.tanh(self.filters[i](x)) * torch.sigmoid(self.gates[i](x))
            s = self.skips[i](x)
            try:
                skip = skip[:, :, -s.size(2) :]
            except TypeError:
                skip = 0
            skip = s + skip
            x = x + residual[:, :, -x.size(2) :]
        return self.end(F.relu(skip))


class TCN(nn.Module):
    class Chomp1d(nn.Module):
        def __init__(self, chomp_size):
            super().__init__()
            self.chomp_size = chomp_size

        def forward(self, x):
            return x[:, :, : -self.chomp_size].contiguous()

    def __init__(self, channels=(3, 4, 4)):
        super().__init__()
        blocks = []
        for i in range(len(channels) - 1):
            conv = nn.utils.weight_norm(
                nn.Conv1d(channels[i], channels[i + 1], 3, padding=2 * 2**i, dilation=2**i)
            )
            blocks += [nn.Sequential(conv, TCN.Chomp1d(2 * 2**i), nn.ReLU(), nn.Dropout(0.2))]
        self.network = nn.Sequential(*blocks)

    def forward(self, x):
        return self.network(x)[:, :, -1]


class ConvLSTM(nn.Module):
    """Layers by name, states in a list per layer, created at the first step."""

    def __init__(self, channels=(3, 4, 4), steps=3):
        super().__init__()
        self.channels, self.steps, self._all_layers = channels, steps, []
        for i in range(len(channels) - 1):
            cell = nn.Conv2d(channels[i] + channels[i + 1], 4 * channels[i + 1], 3, padding=1)
            setattr(self, f"cell{i}", cell)
            self._all_layers.append(cell)

    def forward(self, input):
        internal_state, outputs = [], []
        for step in range(self.steps):
            x = input
            for i in range(len(self.channels) - 1):
                name = f"cell{i}"
                if step == 0:
                    b, _, h, w = x.size()
                    zeros = Variable(torch.zeros(b, self.channels[i + 1], h, w))
                    internal_state.append((zeros, zeros.clone()))
                (h, c) = internal_state[i]
                i_, f_, o_, g_ = getattr(self, name)(torch.cat([x, h], 1)).chunk(4, 1)
                new_c = f_.sigmoid() * c + i_.sigmoid() * g_.tanh()
                x = o_.sigmoid() * new_c.tanh()
                internal_state[i] = (x, new_c)
            if step in (self.steps - 1,):
                outputs.append(x)
        return outputs, (x, new_c)


class MemoryNetwork(nn.Module):
    def __init__(self, vocab=14, dim=6, hops=3):
        super().__init__()
        for hop in range(hops + 1):
            self.add_module(f"C_{hop}", nn.Embedding(vocab, dim, padding_idx=0))
        self.hops = hops
        j, d = np.meshgrid(np.arange(5), np.arange(dim), indexing="ij")
        self.encoding = nn.Parameter(torch.FloatTensor(1 + 0.1 * (d - j)), requires_grad=False)

    def __getitem__(self, i):
        return getattr(self, f"C_{i}")

    def forward(self, story, query):
        u = [torch.sum(self[0](query) * self.encoding[: query.size(1)].unsqueeze(0), 1)]
        for hop in range(self.hops):
            m_A = torch.sum(
                self[hop](story.view(story.size(0), -1)).view(*story.size(), -1) * self.encoding, 2
            )
            prob = F.softmax(torch.sum(m_A * u[-1].unsqueeze(1), 2), -1)
            m_C = torch.sum(self[hop + 1](story) * self.encoding, 2)
            u.append(u[-1] + (m_C * prob.unsqueeze(2)).sum(1))
        return u[-1] @ self[self.hops].weight.transpose(0, 1)


class NTM(nn.Module):
    """A memory that is addressed by content and location, over the steps of a sequence."""

    def __init__(self, n=5, m=4, hidden=6):
        super().__init__()
        self.N, self.M = n, m
        self.controller = nn.LSTMCell(3 + m, hidden)
        self.fc = nn.Linear(hidden, m + 1 + 1 + 3 + 1)
        self.register_buffer("mem_bias", torch.empty(n, m).uniform_(-0.5, 0.5))

    def reset(self, batch_size):
        self.batch_size = batch_size
        self.memory = self.mem_bias.clone().repeat(batch_size, 1, 1)

    def _convolve(self, w, s):
        assert s.size(0) == 3
        t = torch.cat([w[-1:], w, w[:1]])
        return F.conv1d(t.view(1, 1, -1), s.view(1, 1, -1)).view(-1)

    def address(self, k, beta, g, s, gamma, w_prev):
        wc = F.softmax(beta * F.cosine_similarity(self.memory + 1e-16, k.unsqueeze(1) + 1e-16, dim=-1), dim=1)
        wg = g * wc + (1 - g) * w_prev
        result = torch.zeros(wg.size())
        for b in range(self.batch_size):
            result[b] = self._convolve(wg[b], s[b])
        w = result**gamma
        return torch.div(w, torch.sum(w, dim=1).view(-1, 1) + 1e-16)

    def forward(self, x):
        self.reset(x.size(0))
        read, w = x.new_zeros(x.size(0), self.M), torch.zeros(x.size(0), self.N)
        state, out = None, []
        for step in x.unbind(1):
            state = self.controller(torch.cat((step, read), 1), state)
            o = self.fc(state[0])
            k, beta, g, s, gamma = torch.split(o, [self.M, 1, 1, 3, 1], dim=1)
            w = self.address(k, F.softplus(beta), g.sigmoid(), s.softmax(1), 1 + F.softplus(gamma), w)
            read = torch.matmul(w.unsqueeze(1), self.memory).squeeze(1)
            out += [read]
        return torch.stack(out, 1)


class PointerNet(nn.Module):
    """In-place masks and an argmax that feeds the next step."""

    def __init__(self, hidden=5):
        super().__init__()
        self.enc, self.dec = nn.LSTM(2, hidden, batch_first=True), nn.LSTMCell(2, hidden)
        self.W1, self.W2, self.vt = (nn.Linear(hidden, hidden, bias=False) for _ in range(2)), None, None
        self.W1, self.W2 = self.W1
        self.vt = nn.Linear(hidden, 1, bias=False)

    def forward(self, x):
        outputs, (h, c) = self.enc(x)
        h, c = h[0], c[0]
        inp, mask = x.new_zeros(x.size(0), 2), torch.zeros(x.size(0), x.size(1), dtype=torch.bool)
        pointers, probs = [], []
        for _ in range(x.size(1)):
            h, c = self.dec(inp, (h, c))
            u = self.vt(torch.tanh(self.W1(outputs) + self.W2(h).unsqueeze(1))).squeeze(-1)
            u[mask] = -1e8
            log_p = F.log_softmax(u, dim=-1)
            chosen = log_p.max(1)[1]
            mask = mask.scatter(1, chosen.unsqueeze(1), True)
            inp = x[torch.arange(x.size(0)), chosen]
            pointers.append(chosen)
            probs.append(log_p)
        return torch.stack(pointers, 1), torch.stack(probs, 1)


class BiLSTMCRF(nn.Module):
    """The forward algorithm in tensors, decoding through Python numbers."""

    START, STOP = "<START>", "<STOP>"

    def __init__(self, vocab=9, tags=("B", "I", "O")):
        super().__init__()
        self.tag_to_ix = {t: i for i, t in enumerate([*tags, self.START, self.STOP])}
        self.tagset_size = len(self.tag_to_ix)
        self.emb, self.lstm = nn.Embedding(vocab, 5), nn.LSTM(5, 3, bidirectional=True)
        self.out = nn.Linear(6, self.tagset_size)
        self.transitions = nn.Parameter(torch.randn(self.tagset_size, self.tagset_size))
        self.transitions.data[self.tag_to_ix[self.START], :] = -10000
        self.transitions.data[:, self.tag_to_ix[self.STOP]] = -10000

    def _forward_alg(self, feats):
        alphas = torch.full((1, self.tagset_size), -10000.0)
        alphas[0][self.tag_to_ix[self.START]] = 0.0
        for feat in feats:
            alphas_t = []
            for next_tag in range(self.tagset_size):
                emit = feat[next_tag].view(1, -1).expand(1, self.tagset_size)
                alphas_t.append(
                    torch.logsumexp(alphas + self.transitions[next_tag].view(1, -1) + emit, 1).view(1)
                )
            alphas = torch.cat(alphas_t).view(1, -1)
        return torch.logsumexp(alphas + self.transitions[self.tag_to_ix[self.STOP]], 1)

    def forward(self, sentence):
        lstm_out, _ = self.lstm(self.emb(sentence).view(len(sentence), 1, -1))
        feats = self.out(lstm_out.view(len(sentence), -1))
        return self._forward_alg(feats), feats


class ViterbiCRF(BiLSTMCRF):
    def forward(self, sentence):
        _, feats = super().forward(sentence)
        backpointers, score = [], feats[0]
        for feat in feats[1:]:
            best, ids = (score.unsqueeze(0) + self.transitions).max(1)
            backpointers.append(ids)
            score = best + feat
        best_path = [score.argmax().item()]
        for ids in reversed(backpointers):
            best_path.append(ids[best_path[-1]].item())
        best_path.reverse()
        return score.max(), best_path


RNNOutput = namedtuple("RNNOutput", ["sequence", "pooled"])


class EncoderOutput(NamedTuple):
    """Typed, with a default."""

    hidden: torch.Tensor
    attention: torch.Tensor | None = None

    def scaled(self, factor):
        return self._replace(hidden=self.hidden * factor)


class TupleOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.lin = nn.RNN(4, 5, batch_first=True), nn.Linear(5, 5)

    def encode(self, x):
        return RNNOutput(*self.rnn(x))

    def forward(self, x):
        out = self.encode(x)
        sequence, pooled = out
        attn = (self.lin(sequence) @ out.sequence.transpose(1, 2)).softmax(-1)
        return EncoderOutput(hidden=attn @ sequence, attention=attn).scaled(0.5), pooled, out._asdict()


CASES = {
    "char_rnn": Case(CharRNN, tokens(11, 2, 5)),
    "lstm_tagger": Case(LSTMTagger, tokens(11, 5)),
    "seq2seq": Case(Seq2Seq, lambda g: (torch.randint(1, 12, (5, 2), generator=g),)),
    "seq2seq_dot": Case(lambda: Seq2Seq(method="dot"), tokens(12, 4, 2)),
    "seq2seq_teacher": Case(
        Seq2Seq,
        lambda g: (torch.randint(1, 12, (5, 2), generator=g), torch.randint(1, 12, (4, 2), generator=g)),
        kept=False,
    ),
    "packed_classifier": Case(
        PackedClassifier, lambda g: (torch.randint(1, 12, (3, 5), generator=g), torch.tensor([5, 2, 3]))
    ),
    "text_cnn": Case(TextCNN, tokens(12, 2, 7)),
    "text_cnn_static": Case(lambda: TextCNN(static=True), tokens(12, 2, 7), grad=False),
    "annotated_transformer": Case(AnnotatedTransformer, tokens(13, 2, 6)),
    "annotated_transformer_numpy": Case(
        lambda: AnnotatedTransformer(mask=subsequent_mask), tokens(13, 2, 6), kept=False
    ),
    "annotated_transformer_training": Case(AnnotatedTransformer, tokens(13, 2, 6), training=True),
    "gpt": Case(lambda: GPT(GPTConfig(flash=False)), tokens(13, 2, 6)),
    "gpt_loss": Case(
        lambda: GPT(GPTConfig(flash=True)),
        lambda g: (torch.randint(0, 13, (2, 6), generator=g), torch.randint(0, 13, (2, 6), generator=g)),
    ),
    "gpt_generate": Case(Sampler, tokens(13, 2, 4)),
    "wavenet": Case(WaveNet, normal(2, 1, 12)),
    "tcn": Case(TCN, normal(2, 3, 12)),
    "conv_lstm": Case(ConvLSTM, normal(1, 3, 5, 5)),
    "memory_network": Case(
        MemoryNetwork,
        lambda g: (torch.randint(1, 14, (2, 3, 5), generator=g), torch.randint(1, 14, (2, 5), generator=g)),
    ),
    "ntm": Case(NTM, normal(2, 3, 3)),
    "pointer_net": Case(PointerNet, normal(2, 4, 2)),
    "bilstm_crf": Case(BiLSTMCRF, tokens(9, 4)),
    "viterbi_crf": Case(ViterbiCRF, tokens(9, 4), changes=True),
    "tuple_outputs": Case(TupleOutputs, normal(2, 3, 4)),
}
