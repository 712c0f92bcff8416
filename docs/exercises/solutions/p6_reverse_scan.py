import numpy as np

from ssm_edu import scan


def reverse_scan(a: np.ndarray, c: np.ndarray) -> np.ndarray:
    after = np.append(a[1:], 0)
    return scan.blelloch(after[::-1], c[::-1])[::-1]
