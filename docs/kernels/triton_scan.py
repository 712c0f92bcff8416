import torch
import triton
import triton.language as tl


@triton.jit
def scan_kernel(u, delta, A, B, C, y, dim, length, STATE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)  # one program for each channel of each batch row, its states in one vector
    batch, channel = row // dim, row % dim
    n = tl.arange(0, BLOCK)
    real = n < STATE
    rate = tl.load(A + channel * STATE + n, mask=real, other=0.0)
    h = tl.zeros((BLOCK,), tl.float32)
    for t in range(length):
        step = tl.load(delta + row * length + t)
        x = tl.load(u + row * length + t)
        at = (batch * STATE + n) * length + t
        b = tl.load(B + at, mask=real, other=0.0)
        c = tl.load(C + at, mask=real, other=0.0)
        h = tl.exp(step * rate) * h + step * x * b
        tl.store(y + row * length + t, tl.sum(h * c))


def scan(u, delta, A, B, C):
    """float32; B and C of shape (batch, state, length)."""
    u, delta, A, B, C = (x.contiguous() for x in (u, delta, A, B, C))
    y = torch.empty_like(u)
    batch, dim, length = u.shape
    if y.numel():
        scan_kernel[(batch * dim,)](
            u, delta, A, B, C, y, dim, length, STATE=A.shape[1], BLOCK=triton.next_power_of_2(A.shape[1])
        )
    return y
