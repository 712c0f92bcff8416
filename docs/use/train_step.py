import torch

from ssm_edu.torch import selective_scan_fn

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
batch, dim, state, length = 2, 64, 16, 500

u, delta, z = torch.randn(3, batch, dim, length, device=device).unbind()
B, C = torch.randn(2, batch, state, length, device=device).unbind()
A = (-torch.rand(dim, state, device=device)).requires_grad_()
D = torch.ones(dim, device=device, requires_grad=True)
bias = torch.full((dim,), -2.0, device=device, requires_grad=True)

options = {"delta_softplus": True, "return_last_state": True}
y, last_state = selective_scan_fn(u, delta, A, B, C, D, z, bias, **options)
(y.square().mean() + last_state.square().mean()).backward()  # through the last state, too
print(A.grad.shape, D.grad.shape, bias.grad.shape)
