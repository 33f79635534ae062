"""The networks of an FHVAE: two encoders and a decoder of segments, of LSTMs or fully connected layers.

Segments are (L,B,F): frames, batch, features. An encoder gives a Gaussian of (B,D), the decoder one of (L,B,F).
"""

import torch
from torch import nn

from voxark.fhvae.objective import Gaussian


class GaussianHead(nn.Module):
    """Two affine layers: mean, and logarithm of the variance within +-clamp (0: unbounded)."""

    def __init__(self, input_dim, output_dim, clamp):
        super().__init__()
        self.mean, self.logvar = nn.Linear(input_dim, output_dim), nn.Linear(input_dim, output_dim)
        self.clamp = clamp
        for layer in (self.mean, self.logvar):
            _start_affine(layer)

    def forward(self, x):
        """Gaussian (...,output_dim), float32, of x (...,input_dim)."""
        logvar = self.logvar(x).float()
        return Gaussian(self.mean(x).float(), logvar.clamp(-self.clamp, self.clamp) if self.clamp else logvar)


def _start_affine(layer):
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


class StackedLstm(nn.LSTM):
    """LSTMs with Glorot kernels, zero biases but 1 at the forget gates; the second bias of torch's stays zero."""

    def __init__(self, input_dim, hidden_dim, num_layers):
        super().__init__(input_dim, hidden_dim, num_layers)
        for name, value in self.named_parameters():
            if name.startswith("weight"):
                for gate in value.data.chunk(4):
                    nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(value)
                if name.startswith("bias_ih"):
                    value.data[hidden_dim : 2 * hidden_dim] = 1.0
                else:
                    value.requires_grad_(False)  # it adds to the other


class LstmEncoder(nn.Module):
    """Segment to Gaussian: the last outputs of all layers, concatenated, are what the head sees."""

    def __init__(self, options, input_dim, extra_dim, output_dim):
        super().__init__()
        self.lstm = StackedLstm(input_dim + extra_dim, options.hidden_dim, options.num_layers)
        self.head = GaussianHead(options.hidden_dim * options.num_layers, output_dim, options.logvar_clamp)

    def forward(self, x, extra=None):
        """Gaussian (B,output_dim) of x (L,B,F); extra (B,extra_dim) joins every frame."""
        if extra is not None:
            x = torch.cat([x, extra.expand(len(x), -1, -1).to(x.dtype)], 2)
        _, (last, _) = self.lstm(x)
        return self.head(last.transpose(0, 1).reshape(last.shape[1], -1))


class LstmDecoder(nn.Module):
    """Latent variables to Gaussians of frames: they are the input at every frame; the top layer is seen."""

    def __init__(self, options, latent_dim, output_dim):
        super().__init__()
        self.length = options.segment_length
        self.lstm = StackedLstm(latent_dim, options.hidden_dim, options.num_layers)
        self.head = GaussianHead(options.hidden_dim, output_dim, options.logvar_clamp)

    def forward(self, z):
        """Gaussian (L,B,F) of z (B,D)."""
        return self.head(self.lstm(z.expand(self.length, -1, -1))[0])


def _hidden_layers(input_dim, options):
    dims = [input_dim] + [options.hidden_dim] * options.num_layers
    layers = []
    for one, other in zip(dims[:-1], dims[1:], strict=True):
        layers += [nn.Linear(one, other), nn.Tanh()]
        _start_affine(layers[-2])
    return nn.Sequential(*layers)


class FcEncoder(nn.Module):
    """Segment to Gaussian, all frames at once."""

    def __init__(self, options, input_dim, extra_dim, output_dim):
        super().__init__()
        self.hidden = _hidden_layers(options.segment_length * input_dim + extra_dim, options)
        self.head = GaussianHead(options.hidden_dim, output_dim, options.logvar_clamp)

    def forward(self, x, extra=None):
        """Gaussian (B,output_dim) of x (L,B,F) and extra (B,extra_dim)."""
        flat = x.transpose(0, 1).reshape(x.shape[1], -1)
        if extra is not None:
            flat = torch.cat([flat, extra.to(flat.dtype)], 1)
        return self.head(self.hidden(flat))


class FcDecoder(nn.Module):
    """Latent variables to Gaussians of all frames at once."""

    def __init__(self, options, latent_dim, output_dim):
        super().__init__()
        self.length = options.segment_length
        self.hidden = _hidden_layers(latent_dim, options)
        self.head = GaussianHead(options.hidden_dim, self.length * output_dim, options.logvar_clamp)

    def forward(self, z):
        """Gaussian (L,B,F) of z (B,D)."""
        flat = self.head(self.hidden(z))
        return Gaussian(*(part.view(len(z), self.length, -1).transpose(0, 1) for part in flat))


ENCODERS = {"lstm": LstmEncoder, "fc": FcEncoder}
DECODERS = {"lstm": LstmDecoder, "fc": FcDecoder}
