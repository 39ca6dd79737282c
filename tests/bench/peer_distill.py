"""The loss of a distilled step for the PyTorch peers: (1 - a) cross-entropy + a KL(teacher || student) of the next
token at all positions, from the final hidden states of both models.

The product with the output head, both losses and their gradient are computed together from chunks of rows, as fused
linear losses do it, so that the logits of a whole batch never exist. The chunk's arithmetic is a function of its own
that torch.compile turns into one or two kernels.
"""
import torch


def rows_loss(y, z, labels, weight, factor):
    """Logits of student and teacher [rows, V], labels [rows] (below 0: not predicted). Returns `factor` times the sum
    of the loss over the rows, and the gradient of that at y."""
    dtype = y.dtype
    y, z = torch.log_softmax(y.float(), 1), torch.log_softmax(z.float(), 1)
    q = z.exp()
    predicted = (labels >= 0)[:, None]
    target = torch.arange(y.shape[1], device=y.device) == labels[:, None]
    loss = weight * (q * (z - y)) - (1 - weight) * torch.where(target, y, 0.0)
    gradient = factor * (y.exp() - weight * q - (1 - weight) * target)
    return factor * torch.where(predicted, loss, 0.0).sum(), torch.where(predicted, gradient, 0.0).to(dtype)


class DistillLoss(torch.autograd.Function):
    """apply(hidden, head, teacher_hidden, teacher_head, ids, weight, dtype, chunk, rows): hidden states [B, T, C],
    heads [V, C], ids [B, T]; products are computed in dtype; rows: rows_loss, compiled or not."""

    @staticmethod
    def forward(ctx, hidden, head, teacher_hidden, teacher_head, ids, weight, dtype, chunk, rows):
        labels = torch.full_like(ids, -1)
        labels[:, :-1] = ids[:, 1:]
        labels = labels.flatten()
        x, teacher_x = hidden.flatten(0, 1).to(dtype), teacher_hidden.flatten(0, 1).to(dtype)
        w, teacher_w = head.to(dtype), teacher_head.to(dtype)
        factor = 1.0 / (ids.shape[0] * (ids.shape[1] - 1))
        total = torch.zeros((), device=x.device)
        x_gradient, w_gradient = torch.empty_like(x), torch.zeros_like(w, dtype=torch.float32)
        for at in range(0, x.shape[0], chunk):
            part = slice(at, at + chunk)
            loss, gradient = rows(x[part] @ w.t(), teacher_x[part] @ teacher_w.t(), labels[part], weight, factor)
            total += loss
            x_gradient[part] = gradient @ w
            w_gradient += gradient.t() @ x[part]
        ctx.save_for_backward(x_gradient.view_as(hidden).to(hidden.dtype), w_gradient.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx, gradient):
        x_gradient, w_gradient = ctx.saved_tensors
        return gradient * x_gradient, gradient * w_gradient, None, None, None, None, None, None, None
