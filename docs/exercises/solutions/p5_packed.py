import numpy as np


def packed(a: np.ndarray, b: np.ndarray, seq_idx: np.ndarray):
    first = np.append(True, seq_idx[1:] != seq_idx[:-1])
    return np.where(first, 0, a), b
