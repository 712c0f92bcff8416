import torch


def scan(u, delta, A, B, C, *, return_last_state=False, initial_state=None):
    """B and C of shape (batch, state, length)."""
    h = 0 if initial_state is None else initial_state
    ys = []
    for t in range(u.shape[2]):
        decay = torch.exp(delta[:, :, t, None] * A)
        h = decay * h + (delta * u)[:, :, t, None] * B[:, None, :, t]
        ys.append((h * C[:, None, :, t]).sum(-1))
    y = torch.stack(ys, dim=-1)
    return (y, h) if return_last_state else y


def backward_by_autograd(scan):
    """What `check` takes as `backward`, from a scan that autograd differentiates."""

    def backward(grad_y, u, delta, A, B, C, *, grad_last_state=None, **options):
        given = {"u": u, "delta": delta, "A": A, "B": B, "C": C} | options
        leaves = {
            name: value.detach().requires_grad_()
            for name, value in given.items()
            if isinstance(value, torch.Tensor) and name != "seq_idx"
        }
        if grad_last_state is None:
            outputs, seeds = [scan(**given | leaves)], [grad_y]
        else:
            outputs, seeds = scan(**given | leaves, return_last_state=True), [grad_y, grad_last_state]
        found = torch.autograd.grad(outputs, list(leaves.values()), seeds, materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    return backward


scan_backward = backward_by_autograd(scan)
